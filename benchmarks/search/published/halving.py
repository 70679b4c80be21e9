"""Replays stopping rules on runs in random order, whose curves are known."""

from __future__ import annotations

import bisect
import functools
import heapq
import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

Matrix = npt.NDArray[np.float64]

EVALUATIONS = 10
_STARTUP = 5


def spend_without_stopping(curves: Matrix, target: float) -> float:
    """Returns the evaluations until a complete run reaches a target, none being stopped.

    Args:
        curves: Costs of shape (runs, EVALUATIONS), in the order in which runs start.
        target: The cost to reach.
    """
    reached = np.flatnonzero(curves[:, -1] <= target)
    return float((reached[0] + 1) * curves.shape[1]) if len(reached) else math.inf


def spend_with_median(curves: Matrix, target: float) -> float:
    """Returns the same, where runs stop that are behind the median of complete ones (Optuna's)."""
    spent = 0
    complete: list[Matrix] = []
    medians = np.full(curves.shape[1] - 1, math.inf)
    for curve in curves:
        best = np.minimum.accumulate(curve)[:-1]
        behind = best > (medians if len(complete) >= _STARTUP else math.inf)
        over = np.flatnonzero([*behind, False] | ~np.isfinite(curve))
        if len(over):
            spent += int(over[0]) + 1
            continue
        spent += len(curve)
        if curve[-1] <= target:
            return spent
        complete.append(curve)
        medians = np.median(complete, axis=0)[:-1]
    return math.inf


def spend_with_pausing(
    curves: Matrix, target: float, rungs: Sequence[int] = (2, 5), eta: int = 3
) -> float:
    """Returns the same, where runs pause as tuner's trials do (PromotionPruner).

    A run pauses at a rung unless it is among the best n/eta of the n runs that have come there, or
    the best of all; it goes on once it is among them. Runs that go on have precedence over new
    ones, the furthest first, then the best.

    Args:
        curves: As for :func:`spend_without_stopping`.
        target: As there.
        rungs: The evaluations after which runs pause.
        eta: One of so many goes on.
    """
    spent = 0
    reached: list[list[float]] = [[] for _ in rungs]
    paused: list[list[tuple[float, int]]] = [[] for _ in rungs]
    starts, ends = (0, *rungs), (*rungs, curves.shape[1])
    waiting = iter(range(len(curves)))

    def bar(rung: int) -> float:
        """Returns the cost up to which runs go on from a rung."""
        costs = reached[rung]
        return costs[max(1, len(costs) // eta) - 1]

    while True:
        ready = [rung for rung, own in enumerate(paused) if own and own[0][0] <= bar(rung)]
        if ready:
            rung, run = max(ready) + 1, heapq.heappop(paused[max(ready)])[1]
        else:
            rung, run = 0, next(waiting, -1)
        if run < 0:
            return math.inf
        while rung < len(ends):
            part = curves[run, starts[rung] : ends[rung]]
            diverged = np.flatnonzero(~np.isfinite(part))
            if len(diverged):
                spent += int(diverged[0]) + 1
                for later in reached[rung:]:
                    later.append(math.inf)  # it is the worst at every later rung
                break
            spent += len(part)
            cost = float(part[-1])
            if rung == len(rungs):
                if cost <= target:
                    return spent
                break
            bisect.insort(reached[rung], cost)
            if cost > bar(rung):
                heapq.heappush(paused[rung], (cost, run))
                break
            rung += 1


Rule = Callable[[Matrix, float], float]

RULES: dict[str, Rule] = {
    "all complete": spend_without_stopping,
    "median pruning": spend_with_median,
    "20, 50%": spend_with_pausing,
    "10, 30%": functools.partial(spend_with_pausing, rungs=(1, 3)),
    "10, 20, 40%": functools.partial(spend_with_pausing, rungs=(1, 2, 4)),
    "10, 20, 40%, best half": functools.partial(spend_with_pausing, rungs=(1, 2, 4), eta=2),
    "30%": functools.partial(spend_with_pausing, rungs=(3,)),
}
"""Rules by name: those of pausing by their rungs, from which the best third goes on."""


def race(curves: Matrix, repeats: int, seed: int = 0) -> list[float]:
    """Returns what each of RULES spends until a run is as good as the best of 60.

    The target is the median of what the best of 60 random runs ends with.

    Args:
        curves: Costs of shape (runs, EVALUATIONS).
        repeats: Random orders that medians are of.
        seed: Their seed.

    Returns:
        Medians, in full runs' worth of training.
    """
    target = float(np.quantile(curves[:, -1], 1 - 0.5 ** (1 / 60), method="lower"))
    rng = np.random.default_rng(seed)
    orders = [rng.permutation(len(curves)) for _ in range(repeats)]
    return [
        float(np.median([rule(curves[order], target) for order in orders])) / curves.shape[1]
        for rule in RULES.values()
    ]
