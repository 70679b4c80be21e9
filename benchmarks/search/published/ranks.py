"""How well a part of a training tells its end."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
from scipy.stats import spearmanr

Matrix = npt.NDArray[np.float64]

KEPT = 1 / 3
"""The share of trials that goes on from a rung."""

BEST = 0.05
"""The share of trials that a search is after."""


def correlate(early: Matrix, last: Matrix) -> float:
    """Returns Spearman's rank correlation of two costs of the same runs.

    Args:
        early: Costs at a point of training, or of another training; infinite ones are the worst.
        last: Costs at the end.
    """
    both = [np.where(np.isfinite(costs), costs, np.finfo(float).max) for costs in (early, last)]
    if any(len(np.unique(costs)) == 1 for costs in both):
        return math.nan
    return float(spearmanr(*both).statistic)


def find_kept(early: Matrix, share: float = KEPT) -> npt.NDArray[np.int64]:
    """Returns the runs that go on from a point: the best of them there."""
    count = max(1, int(len(early) * share))
    return np.argsort(early, kind="stable")[:count]


def find_best(last: Matrix, share: float = BEST) -> npt.NDArray[np.int64]:
    """Returns the runs that are best at the end, at least one."""
    count = max(1, round(len(last) * share))
    return np.argsort(last, kind="stable")[:count]


def hold(early: Matrix, last: Matrix) -> float:
    """Returns the share of the runs best at the end that are among the best third at a point."""
    return float(np.isin(find_best(last), find_kept(early)).mean())


def survive(rungs: Sequence[Matrix], last: Matrix) -> float:
    """Returns the place, as a share, of the best run that is left after a third goes on at each.

    0 is the best of all runs.

    Args:
        rungs: The costs of all runs at each rung, the first rung first.
        last: Their costs at the end.
    """
    left = np.arange(len(last))
    for costs in rungs:
        left = left[find_kept(costs[left])]
    return float((last < last[left].min()).mean())
