"""Successive halving that pauses trials at the rungs, and lets the best of them go on later."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping

from optuna.trial import TrialState

from tuner.search.halving import ETA, AshaPruner, cost_at
from tuner.search.past import Past


class PromotionPruner(AshaPruner):
    """Asynchronous successive halving, in the form that promotes trials.

    Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, algorithm 2.

    A trial that comes to a rung pauses there, unless it is among the best n/eta of the n trials
    that have come as far, or the best of all: so a study soon has a complete trial. Once others
    have come that are worse, it may be among them: then it is promoted, to go on up to the next
    rung. So until the end of a study (see :meth:`find_last`) no others are trained further, and
    none is given up while it may yet be among them. A paused trial counts at every rung that it
    has reached, like one that runs, has ended, or has diverged.

    Args:
        evaluations: Evaluations of a full trial, at least 1.
        eta: The reduction factor, at least 2: one of so many trials goes on.
    """

    def __init__(self, evaluations: int, eta: int = ETA) -> None:
        super().__init__(evaluations, eta, at=pausing_rungs(evaluations))

    def find_promotable(self, past: Past, paused: Mapping[int, int]) -> list[int]:
        """Returns the paused trials that may go on now, the furthest first, then the best.

        Args:
            past: The past.
            paused: The progress that each paused trial stands at, by number; those that the past
                does not know yet have to wait.
        """
        return self._find_ahead(past, paused, others=0)

    def find_last(self, past: Past, paused: Mapping[int, int], spare: int) -> list[int]:
        """Returns the paused trials that go on at the end of a study, when no others are to come.

        The best third are rounded up then. Besides, the best of each optimizer go on that has too
        few complete trials to be ranked by, and the best of all where no trial would be complete.
        One that trains may yet be complete, so it counts until it pauses. Each is taken one rung
        further: it may pause once more.

        Args:
            past: The past.
            paused: As for :meth:`find_promotable`.
            spare: Complete trials that each optimizer gets.
        """
        ahead = self._find_ahead(past, paused, others=self._eta - 1)
        trains = [trial for number, trial in past.running.items() if number not in paused]
        complete = [trial for trial in past.ended if trial.state is TrialState.COMPLETE]
        going = [*complete, *trains, *(past.running[number] for number in ahead)]
        through = Counter(trial.params["optimizer"] for trial in going)
        found = []
        for _, _, number in _rank(past, paused):
            optimizer = past.running[number].params["optimizer"]
            if number in ahead:
                found.append(number)
            elif through[optimizer] < spare or not through:
                through[optimizer] += 1
                found.append(number)
        return found

    def _find_ahead(self, past: Past, paused: Mapping[int, int], others: int) -> list[int]:
        """Returns the paused trials that are not behind, though others should come and be worse."""
        self._learn(past)
        costs: dict[int, list[float]] = {}
        found = []
        for rung, cost, number in _rank(past, paused):
            if rung not in costs:
                costs[rung] = [*self._costs_at(past, rung), *[math.inf] * others]
            if not self._is_behind(cost, costs[rung]):
                found.append(number)
        return found

    def _costs_at(self, past: Past, rung: int) -> list[float]:
        """Returns the costs of all trials that have come to a rung, in order."""
        running = [cost_at(trial, rung, past.sign) for trial in past.running.values()]
        return sorted([*self._reached[rung, 0], *(cost for cost in running if cost is not None)])


def _rank(past: Past, paused: Mapping[int, int]) -> list[tuple[int, float, int]]:
    """Returns the rung, cost and number of paused trials, the furthest first, then the best."""
    found = []
    for number, progress in paused.items():
        trial = past.running.get(number)
        if trial is None:
            continue
        # A trial that has started over may have been further once.
        rung = sum(reached <= progress for reached in trial.intermediate_values)
        cost = cost_at(trial, rung, past.sign) if rung else None
        if cost is not None:
            found.append((rung, cost, number))
    return sorted(found, key=lambda one: (-one[0], *one[1:]))


def pausing_rungs(evaluations: int) -> tuple[int, ...]:
    """Returns the rungs at which trials pause: after a fifth and a half of their evaluations.

    On small workloads the best third there holds 51 to 100% and 86 to 100% of the true best
    twentieth; after a tenth it is down to 31% (docs/search.md).

    >>> pausing_rungs(10), pausing_rungs(3), pausing_rungs(1)
    ((2, 5), (1, 2), ())
    """
    found = {math.ceil(share * evaluations) for share in (0.2, 0.5)}
    return tuple(sorted(rung for rung in found if rung < evaluations))
