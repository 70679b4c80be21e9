"""Successive halving that pauses trials at the rungs, and lets the best of them go on later."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.search.halving import AshaPruner, cost_at
from tuner.search.past import Past


class PromotionPruner(AshaPruner):
    """Asynchronous successive halving, in the form that promotes trials.

    Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, algorithm 2.

    A trial that comes to a rung pauses there, unless it is among the best n/eta of the n trials
    that have come as far. Once others have come that are worse, it may be: then it is promoted, to
    go on up to the next rung. So no trial is trained further that is not among the best third by
    what is known, and none is given up while it may yet be. A paused trial counts at every rung
    that it has reached, like one that runs, has ended, or has diverged.

    Args:
        evaluations: Evaluations of a full trial, at least 1.
        eta: The reduction factor, at least 2: one of so many trials goes on.
    """

    _least = 0  # The first trial at a rung waits for others, too.

    def find_promotable(self, past: Past, paused: Mapping[int, int]) -> list[int]:
        """Returns the paused trials that may go on now, the furthest first, then the best.

        Args:
            past: The past.
            paused: The progress that each paused trial stands at, by number; those that the past
                does not know yet have to wait.
        """
        self._learn(past)
        costs: dict[int, list[float]] = {}
        found = []
        for number, progress in paused.items():
            trial = past.running.get(number)
            if trial is None:
                continue
            # A trial that has started over may have been further once.
            rung = sum(reached <= progress for reached in trial.intermediate_values)
            cost = cost_at(trial, rung, past.sign) if rung else None
            if rung not in costs:
                costs[rung] = self._costs_at(past, rung)
            if cost is not None and not self._is_behind(cost, costs[rung]):
                found.append((-rung, cost, number))
        return [number for _, _, number in sorted(found)]

    def _costs_at(self, past: Past, rung: int) -> list[float]:
        """Returns the costs of all trials that have come to a rung, in order."""
        running = [cost_at(trial, rung, past.sign) for trial in past.running.values()]
        return sorted([*self._reached[rung, 0], *(cost for cost in running if cost is not None)])
