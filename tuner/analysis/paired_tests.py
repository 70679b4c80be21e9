"""Tests of two arms on the same seeds: Student's t, or exact signed ranks where that has no say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.analysis.arms import Floats

_ROUNDING = 1e-6
"""Differences that vary by less than this share of the values vary by rounding alone: metrics are
often computed in float32, which rounds at 6e-8, so the same step of an accuracy is not quite the
same twice."""


@dataclass(frozen=True)
class PairedTests:
    """The tests of several pairs of arms on their first seeds; nan where a pair has too few.

    Attributes:
        p: Two-sided p-values.
        side: 1 where the first arm of a pair costs more, -1 where the second does, or 0.
        mean: Mean differences of cost, first minus second; nan where signed ranks were tested.
        error: Standard errors of those means.
    """

    p: Floats
    side: Floats
    mean: Floats
    error: Floats


def measure_pairs(differences: Floats, diverged: NDArray[np.bool_], sizes: Floats) -> PairedTests:
    """Returns the tests of pairs, a row of differences each.

    A pair is tested by Student's t (1908). Where an arm diverged, or all differences are the same,
    a mean or its error means nothing: there all signs are flipped (Wilcoxon 1945), which needs
    nothing but that both arms were equally likely to be the better one.

    Args:
        differences: Costs of the first arm less those of the second, by seed; infinite where one
            of them diverged, 0 where both did, and nan where one has no value yet.
        diverged: Whether an arm of the pair diverged on any seed.
        sizes: How large the values of each pair are, which tells how they are rounded.
    """
    # Loaded late: it takes a quarter of a second, and most commands judge nothing.
    from scipy.special import stdtr  # noqa: PLC0415

    count = differences.shape[1]
    usable = ~diverged & np.isfinite(differences).all(axis=1)
    finite = np.where(usable[:, None], differences, 0.0)
    mean = finite.mean(axis=1)
    deviation = finite.std(axis=1, ddof=1)
    usable &= deviation > _ROUNDING * sizes
    error = np.where(usable, deviation, np.nan) / np.sqrt(count)
    mean = np.where(usable, mean, np.nan)
    p = 2 * stdtr(count - 1, -np.abs(mean / error))
    side = np.sign(mean)
    for row in np.flatnonzero(~usable & ~np.isnan(differences).any(axis=1)):
        p[row], side[row] = flip_signs(differences[row].tolist())
    return PairedTests(p, side, mean, error)


def flip_signs(differences: Sequence[float]) -> tuple[float, float]:
    """Returns the exact p-value of Wilcoxon's signed ranks, and the side they lean to.

    >>> flip_signs([1.0, 2.0, 3.0, float("inf")])
    (0.125, 1.0)

    Args:
        differences: The differences; those that are 0 tell nothing, equal ones share their ranks.
    """
    sizes = [abs(difference) for difference in differences if difference]
    # Twice the mean rank of equal sizes, which is a whole number.
    ranks = [sum((size > s) + (size >= s) for s in sizes) + 1 for size in sizes]
    total = sum(ranks)
    signs = [difference > 0 for difference in differences if difference]
    above = sum(rank for rank, positive in zip(ranks, signs, strict=True) if positive)
    ways = np.zeros(total + 1)
    ways[0] = 1.0
    for rank in ranks:
        ways[rank:] += ways[: total + 1 - rank].copy()
    tail = float(ways[: min(above, total - above) + 1].sum() / ways.sum())
    return min(1.0, 2 * tail), float(np.sign(2 * above - total))
