"""Successive halving: at a few points of its life a trial must be among the best to go on.

A trial's resource is the number of its evaluations. Only these are judged, so that it makes no
difference which worker reported them, and a trial that was interrupted is judged as one that was
not.
"""

from __future__ import annotations

import bisect
import math
from collections import defaultdict
from collections.abc import Sequence

from optuna.trial import FrozenTrial

from tuner.search.lane_pruner import LanePruner
from tuner.search.past import Past, number_of

ETA = 3
"""The reduction factor: one of so many trials goes on. Successive halving is least sensitive near
e, and both papers use 3 or 4; with the usual ten evaluations 3 leaves two rungs, 4 only one."""


class AshaPruner(LanePruner):
    """Asynchronous successive halving, in the form that stops trials.

    Li et al., "A System for Massively Parallel Hyperparameter Tuning", MLSys 2020, algorithm 2.

    At a rung, a trial goes on if it is among the best n/eta of the n trials that have been
    evaluated as often, itself included, and nobody waits for others. Where fewer than eta trials
    have come that far, the best of them goes on: so the first one always does. Trials that are
    level go on together; a diverged trial is the worst at every rung it did not reach. The lanes
    of a cohort reach a rung together, and each competes with all others there.

    Args:
        evaluations: Evaluations of a full trial, at least 1.
        eta: The reduction factor, at least 2: one of so many trials goes on.
        at: The rungs, as numbers of evaluations; None for those of :func:`rungs`.
    """

    _least = 1
    """The trials that go on from a rung at least, once any has come there."""

    def __init__(
        self, evaluations: int, eta: int = ETA, *, at: tuple[int, ...] | None = None
    ) -> None:
        self._eta = eta
        self._rungs = rungs(evaluations, eta) if at is None else at
        self._seen = 0
        # The costs of trials that are over, in order, by rung and bracket.
        self._reached: dict[tuple[int, int], list[float]] = defaultdict(list)

    def prune_lanes(self, past: Past, lanes: Sequence[FrozenTrial]) -> list[bool]:
        """Returns whether each lane should stop, as it may where it has just reached a rung."""
        self._learn(past)
        rung = max(len(lane.intermediate_values) for lane in lanes)
        if rung not in self._rungs:
            return [False] * len(lanes)
        own = {number_of(lane) for lane in lanes}
        others = [trial for number, trial in past.running.items() if number not in own]
        costs = [cost_at(trial, rung, past.sign) for trial in (*lanes, *others)]
        first = [self.first_rung(number_of(trial)) for trial in (*lanes, *others)]
        reached = {bracket: self._reached[rung, bracket].copy() for bracket in set(first)}
        for trial in past.ended_as(lanes):
            cost = cost_at(trial, rung, past.sign)
            if cost is not None:
                reached[self.first_rung(number_of(trial))].remove(cost)
        for bracket, cost in zip(first, costs, strict=True):
            if cost is not None:
                bisect.insort(reached[bracket], cost)
        return [
            cost is not None
            and rung in self._rungs[bracket:]
            and self._is_behind(cost, reached[bracket])
            for bracket, cost in zip(first, costs[: len(lanes)], strict=False)
        ]

    def _learn(self, past: Past) -> None:
        """Takes in the trials that have ended since it last did."""
        for trial in past.ended[self._seen :]:
            for rung in self._rungs:
                cost = cost_at(trial, rung, past.sign)
                if cost is not None:
                    bracket = self.first_rung(number_of(trial))
                    bisect.insort(self._reached[rung, bracket], cost)
        self._seen = len(past.ended)

    def _is_behind(self, cost: float, reached: list[float]) -> bool:
        """Tells whether a cost, one of the sorted costs at a rung, is not among the least."""
        goes_on = max(self._least, len(reached) // self._eta)
        return bisect.bisect_left(reached, cost) >= goes_on

    def first_rung(self, number: int) -> int:
        """Returns the rung, counted from 0, at which a trial is judged first.

        Args:
            number: The trial's number in its study.
        """
        return 0


class HyperbandPruner(AshaPruner):
    """Hyperband with its brackets run side by side.

    Li et al., "Hyperband: A Novel Bandit-Based Approach", JMLR 2018, algorithm 1.

    Successive halving stops slow learners early. Hyperband hedges: a part of the trials, a
    bracket, is judged from the second rung on, a smaller part from the third, and the smallest
    not at all. A trial's number decides its bracket, and trials compete within theirs.

    Args:
        evaluations: Evaluations of a full trial, at least 1.
        eta: The reduction factor, at least 2: one of so many trials goes on.
    """

    def __init__(self, evaluations: int, eta: int = ETA) -> None:
        super().__init__(evaluations, eta)
        self._turns = _interleave(bracket_sizes(evaluations, eta))

    def first_rung(self, number: int) -> int:
        """Returns the rung at which a trial is judged first, which is its bracket."""
        return self._turns[number % len(self._turns)]


def rungs(evaluations: int, eta: int = ETA) -> tuple[int, ...]:
    """Returns the rungs: the numbers of evaluations after which trials are judged.

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
    """Returns the trials that a round of Hyperband starts in each bracket, the most pruned first.

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


def cost_at(trial: FrozenTrial, rung: int, sign: float) -> float | None:
    """Returns the cost of a trial at a rung, or None if it did not get there.

    One that has reached the target of its study before is the best at every later rung.
    """
    curve = [value for _, value in sorted(trial.intermediate_values.items())]
    if len(curve) < rung:
        diverged = trial.state.is_finished() and curve and math.isnan(curve[-1])
        if trial.user_attrs.get("reached"):
            return -math.inf
        return math.inf if diverged else None
    value = curve[rung - 1]
    return math.inf if math.isnan(value) else sign * value
