"""The looks at a race: all pairs of arms are tested after every seed, and that is paid for.

Each look n has a share w(n) of the error, planned beforehand, and all shares make 1. The sequential
p-value of a pair is its smallest p(n)/w(n) so far. If both arms are equal it is at most x with
probability x at most, by Bonferroni over looks (Slud & Wei 1982; Lan & DeMets 1983 tell how shares
are spent). Looking less often can only make it larger, so no rule of stopping breaks it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from tuner.analysis.arms import Floats
from tuner.analysis.paired_tests import PairedTests, measure_pairs

FIRST_LOOK = 3
"""Seeds of every arm before the first look."""

LAST_SHARE = 0.95
"""The share of the error that is kept for the last look (docs/statistics.md has the others)."""


@cache
def shares_of(planned: int) -> dict[int, float]:
    """Returns the share of the error of every look, by the number of seeds.

    >>> {look: round(share, 3) for look, share in shares_of(6).items()}
    {3: 0.008, 4: 0.017, 5: 0.025, 6: 0.95}

    Args:
        planned: The seeds that were planned.
    """
    early = range(FIRST_LOOK, planned)
    if not early:
        return {planned: 1.0}
    whole = sum(look - FIRST_LOOK + 1 for look in early)
    shares = {look: (1 - LAST_SHARE) * (look - FIRST_LOOK + 1) / whole for look in early}
    return {**shares, planned: LAST_SHARE}


@dataclass(frozen=True)
class Looks:
    """Everything that the looks at some arms have found so far.

    Attributes:
        first: The row of every pair's first arm.
        second: The row of its second arm.
        p: Sequential p-values, 1 before the first look; they never grow.
        lean: 1 where the second arm is the better one by the look of that p-value, -1 where the
            first is, or 0.
        side: The same by the last look.
        tests: The tests by look.
        planned: The seeds that were planned.
    """

    first: NDArray[np.intp]
    second: NDArray[np.intp]
    p: Floats
    lean: Floats
    side: Floats
    tests: dict[int, PairedTests]
    planned: int


def no_looks(arms: int, planned: int) -> Looks:
    """Returns what is known of arms before the first look at them.

    Args:
        arms: Their number.
        planned: The seeds that were planned.
    """
    first, second = np.triu_indices(arms, 1)
    nothing = np.zeros(len(first))
    return Looks(first, second, np.ones(len(first)), nothing, nothing, {}, planned)


def look_again(looks: Looks, costs: Floats, seeds: int) -> Looks:
    """Returns what is known after another look.

    Args:
        looks: What was known before.
        costs: All arms' costs; nan from where an arm was dropped.
        seeds: The number of seeds of this look.
    """
    first, second = costs[looks.first, :seeds], costs[looks.second, :seeds]
    lost, lost_too = np.isinf(first), np.isinf(second)
    with np.errstate(invalid="ignore"):  # inf - inf
        differences = np.where(lost & lost_too, 0.0, first - second)
    sizes = np.fmax(_size_of(first), _size_of(second))
    tests = measure_pairs(differences, np.asarray((lost | lost_too).any(axis=1)), sizes)
    found = tests.p / shares_of(looks.planned)[seeds]
    smaller = found < looks.p
    return replace(
        looks,
        p=np.where(smaller, found, looks.p),
        lean=np.where(smaller, tests.side, looks.lean),
        side=np.where(np.isnan(tests.side), looks.side, tests.side),
        tests={**looks.tests, seeds: tests},
    )


def _size_of(costs: Floats) -> Floats:
    """Returns the largest finite cost of each row, without its sign."""
    sizes: Floats = np.where(np.isfinite(costs), np.abs(costs), 0.0).max(axis=1, initial=0.0)
    return sizes


def compare_up_to(costs: Floats, seeds: Sequence[int], planned: int) -> Looks:
    """Returns what all looks together have found about arms.

    Args:
        costs: Their costs.
        seeds: How many seeds of each arm count.
        planned: The seeds that were planned.
    """
    counted = np.arange(costs.shape[1]) < np.array(seeds).reshape(-1, 1)
    kept = np.where(counted, costs, np.nan)
    looks = no_looks(len(costs), planned)
    for look in shares_of(planned):
        if look <= max(seeds, default=0):
            looks = look_again(looks, kept, look)
    return looks
