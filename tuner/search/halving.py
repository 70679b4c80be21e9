"""Successive halving: at a few points of its life a trial must be among the best to go on.

A trial's resource is the number of its evaluations. Whatever is judged is read off the
evaluations themselves, so that it makes no difference which worker reported them, and a trial
that was interrupted is judged as one that was not.
"""

from __future__ import annotations

import bisect
import math
from collections.abc import Sequence

from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tuner.search.history import number_of
from tuner.search.lanes import LanePruner, others_of, sign_of

ETA = 3
"""Of how many trials one goes on. Successive halving is least sensitive near e, and both papers
use 3 or 4; with the usual ten evaluations 3 leaves two rungs, 4 only one."""

_COMPETING = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)


class AshaPruner(LanePruner):
    """Asynchronous successive halving (Li et al., 2020), in the form that stops trials.

    At a rung, a trial goes on if it is among the best n/eta of the n trials that have been
    evaluated as often, itself included, and nobody waits for others. Where fewer than eta trials
    have come that far, the best of them goes on: so the first one always does. Trials that are
    level go on together; a diverged trial is the worst at every rung it did not reach. The lanes
    of a cohort reach a rung together, and each competes with all others there.

    Args:
        evaluations: Evaluations of a full trial, at least 1.
        eta: Of how many trials one goes on, at least 2.
    """

    def __init__(self, evaluations: int, eta: int = ETA) -> None:
        self._eta = eta
        self._rungs = rungs(evaluations, eta)

    def prune_lanes(self, study: Study, lanes: Sequence[FrozenTrial]) -> list[bool]:
        """Tells which lanes should stop, which they may where they have just reached a rung."""
        rung = max(len(lane.intermediate_values) for lane in lanes)
        if rung not in self._rungs:
            return [False] * len(lanes)
        trials = (*lanes, *others_of(study, lanes, _COMPETING))
        costs = [_cost_at(trial, rung, study.direction) for trial in trials]
        first = [self.first_rung(number_of(trial)) for trial in trials]
        reached: dict[int, list[float]] = {}
        for bracket, cost in zip(first, costs, strict=True):
            if cost is not None:
                bisect.insort(reached.setdefault(bracket, []), cost)
        return [
            cost is not None
            and rung in self._rungs[bracket:]
            and _is_behind(cost, reached[bracket], self._eta)
            for bracket, cost in zip(first, costs[: len(lanes)], strict=False)
        ]

    def first_rung(self, number: int) -> int:
        """Returns the rung, counted from 0, at which a trial is judged first.

        Args:
            number: The trial's number in its study.
        """
        return 0


class HyperbandPruner(AshaPruner):
    """Hyperband (Li et al., 2018) with its brackets run side by side.

    Successive halving stops early what learns slowly. Hyperband hedges: a part of the trials, a
    bracket, is judged from the second rung on, a smaller part from the third, and the smallest
    not at all. A trial's number decides its bracket, and trials compete within theirs.

    Args:
        evaluations: Evaluations of a full trial, at least 1.
        eta: Of how many trials one goes on, at least 2.
    """

    def __init__(self, evaluations: int, eta: int = ETA) -> None:
        super().__init__(evaluations, eta)
        self._turns = _interleave(bracket_sizes(evaluations, eta))

    def first_rung(self, number: int) -> int:
        """Returns the rung at which a trial is judged first, which is its bracket."""
        return self._turns[number % len(self._turns)]


def rungs(evaluations: int, eta: int = ETA) -> tuple[int, ...]:
    """Returns after how many evaluations trials are judged.

    They are the powers of eta from 1 on, as long as a trial that goes on has eta times as much to
    gain: a judgement near the end would save little and cost a result.

    >>> rungs(10), rungs(26), rungs(27)
    ((1, 3), (1, 3), (1, 3, 9))
    """
    found = []
    rung = 1
    while rung * eta <= evaluations:
        found.append(rung)
        rung *= eta
    return tuple(found)


def bracket_sizes(evaluations: int, eta: int = ETA) -> tuple[int, ...]:
    """Returns how many trials a round of Hyperband starts in each bracket, the most pruned first.

    >>> bracket_sizes(81)
    (81, 34, 15, 8, 5)
    """
    s_max = len(rungs(evaluations, eta))
    return tuple(
        -(-(s_max + 1) * eta**s // (s + 1))  # rounded up, in whole numbers
        for s in range(s_max, -1, -1)
    )


def _interleave(sizes: tuple[int, ...]) -> list[int]:
    """Returns a round's brackets in an order that spreads each evenly over the round."""
    turns = [
        ((turn + 0.5) / size, bracket) for bracket, size in enumerate(sizes) for turn in range(size)
    ]
    return [bracket for _, bracket in sorted(turns)]


def _is_behind(cost: float, reached: list[float], eta: int) -> bool:
    """Tells whether a cost, one of those at a rung in their order, is not among the least."""
    goes_on = max(1, len(reached) // eta)
    return bisect.bisect_left(reached, cost) >= goes_on


def _cost_at(trial: FrozenTrial, rung: int, direction: StudyDirection) -> float | None:
    """Returns how bad a trial was at a rung, or None if it did not get there."""
    curve = [value for _, value in sorted(trial.intermediate_values.items())]
    if len(curve) < rung:
        diverged = trial.state.is_finished() and curve and math.isnan(curve[-1])
        return math.inf if diverged else None
    value = curve[rung - 1]
    return math.inf if math.isnan(value) else sign_of(direction) * value
