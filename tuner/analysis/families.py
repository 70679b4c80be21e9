"""All pairs of arms as one family: its claims together hold a wrong one in 5% of races at most.

The pairs' sequential p-values (see `looks.py`) go through Holm's steps (1979) with the counts of
Shaffer (1986): of K arms' pairs, only so many can be equal once some are not.
"""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

from tuner.analysis.arms import Floats
from tuner.analysis.looks import Looks, shares_of


@cache
def counts_of(arms: int) -> tuple[int, ...]:
    """Returns by how much each p-value is multiplied, the smallest first.

    Arms fall into groups of equals. Only some numbers of equal pairs can arise from that: of three
    arms all 3 pairs, 1 or none, but never 2. At each step it is the largest such number that the
    pairs left allow (Shaffer 1986, her first procedure).

    >>> counts_of(3), counts_of(4)
    ((3, 1, 1), (6, 3, 3, 3, 2, 1))

    Args:
        arms: The number of arms.
    """
    possible: list[set[int]] = [{0}]
    for size in range(1, arms + 1):
        groups = range(1, size + 1)
        possible.append({g * (g - 1) // 2 + rest for g in groups for rest in possible[size - g]})
    pairs = arms * (arms - 1) // 2
    return tuple(
        max(count for count in possible[arms] if count <= pairs - step) for step in range(pairs)
    )


def adjust(p: Floats, arms: int) -> tuple[Floats, NDArray[np.intp]]:
    """Returns all pairs' p-values corrected for their number, and their order.

    Args:
        p: Sequential p-values of all pairs.
        arms: The number of arms.
    """
    order = np.argsort(p, kind="stable")
    raised = np.minimum(1.0, np.maximum.accumulate(p[order] * np.array(counts_of(arms), float)))
    adjusted = np.empty_like(p)
    adjusted[order] = raised
    return adjusted, order


def levels_of(adjusted: Floats, order: NDArray[np.intp], arms: int, level: float) -> Floats:
    """Returns the level at which each pair was tested; its interval then says what its test says.

    A pair that was found has that of its own step, all others that of the step that ended it.

    Args:
        adjusted: Corrected p-values.
        order: Their order.
        arms: The number of arms.
        level: The level of all pairs together.
    """
    found = int((adjusted <= level).sum())
    steps = np.minimum(np.arange(len(order)), found)
    levels = np.empty_like(adjusted)
    counts = np.array([*counts_of(arms), 1], float)
    levels[order] = level / np.maximum(counts[steps], 1.0)
    return levels


def intervals_of(looks: Looks, levels: Floats, found: NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """Returns the ends of every pair's interval of the difference of cost; nan where it has none.

    At each look it is Student's, at the pair's level times the look's share, and what all looks
    have in common is the interval (repeated intervals, Jennison & Turnbull 1989).

    Args:
        looks: What is known.
        levels: The pairs' levels.
        found: Which pairs are found to differ.
    """
    from scipy.special import stdtrit  # noqa: PLC0415 (see paired_tests)

    low, high = np.full(len(levels), -np.inf), np.full(len(levels), np.inf)
    for seeds, tests in looks.tests.items():
        half = tests.error * stdtrit(seeds - 1, 1 - levels * shares_of(looks.planned)[seeds] / 2)
        low, high = np.fmax(low, tests.mean - half), np.fmin(high, tests.mean + half)
    low, high = np.minimum(low, high), np.maximum(low, high)  # looks that exclude each other
    # A pair of which looks disagree is not found: then its interval holds 0, too.
    low = np.where(found, low, np.minimum(low, 0.0))
    high = np.where(found, high, np.maximum(high, 0.0))
    unknown = np.isinf(low) | np.isinf(high)
    return np.where(unknown, np.nan, low), np.where(unknown, np.nan, high)


def beats_of(looks: Looks, adjusted: Floats, arms: int, level: float) -> NDArray[np.bool_]:
    """Returns which arm (row) was found to be better than which (column).

    Args:
        looks: What is known.
        adjusted: Corrected p-values.
        arms: The number of arms.
        level: The level of all pairs together.
    """
    beats = np.zeros((arms, arms), bool)
    found = find(looks, adjusted, level)
    beats[looks.first, looks.second] = found & (looks.side < 0)
    beats[looks.second, looks.first] = found & (looks.side > 0)
    return beats


def find(looks: Looks, adjusted: Floats, level: float) -> NDArray[np.bool_]:
    """Returns which pairs are found to differ.

    What an early look found and the last one contradicts is no finding.

    Args:
        looks: What is known.
        adjusted: Corrected p-values.
        level: The level of all pairs together.
    """
    agree: NDArray[np.bool_] = (looks.lean == looks.side) & (looks.side != 0)
    return agree & (adjusted <= level)


def follow(beats: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Returns what was found and what follows: if a beats b, and b beats c, then a beats c.

    If all that was found is true, so is what follows from it: it adds no error.

    Args:
        beats: What was found.
    """
    reach = beats
    for _ in range(max(1, len(beats)).bit_length()):
        reach = reach | (reach.astype(np.int64) @ reach.astype(np.int64) > 0)
    return beats | (reach & ~reach.T)
