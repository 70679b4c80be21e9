"""All pairs of arms compared: who is better, by how much, and whether that is claimed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypedDict

import numpy as np
from numpy.typing import NDArray

from tuner.analysis.arms import Arm, Floats, costs_of
from tuner.analysis.families import adjust, beats_of, find, follow, intervals_of, levels_of
from tuner.analysis.looks import FIRST_LOOK, compare_up_to
from tuner.analysis.paired_tests import flip_signs
from tuner.domain.objective import sign_of
from tuner.domain.study_section import Direction

Interval = tuple[float, float]


@dataclass(frozen=True)
class Comparison:
    """Two arms on the seeds that both trained on.

    Attributes:
        better: The trial of the arm that did better there.
        worse: The trial of the other.
        seeds: The number of those seeds.
        gain: By how much it did better, in the metric's unit, not below 0; None where one diverged.
        interval: Where the gain lies. It leaves out 0 if and only if the pair's own test found it;
            None where there is no gain, or before the first look.
        relative: The gain over the worse arm's mean; None unless all values are above 0.
        relative_interval: The interval over that mean, which is taken as known.
        p: Its p-value, corrected for all looks and all pairs.
        beats: Whether it is claimed that the one is better than the other.
        implied: Whether that follows from other claims, and not from this pair's own test.
        confidence: In how many of such races its interval is right, by itself; never below 1 less
            the level of all pairs together.
        test: ``t``, or ``ranks`` where one diverged or all differences are the same, or ``none``.
    """

    better: int
    worse: int
    seeds: int
    gain: float | None
    interval: Interval | None
    relative: float | None
    relative_interval: Interval | None
    p: float
    beats: bool
    implied: bool
    confidence: float
    test: Literal["t", "ranks", "none"]


@dataclass(frozen=True)
class Compared:
    """All pairs of arms.

    Attributes:
        pairs: Their comparisons.
        beats: Which arm (row) is claimed to be better than which (column).
    """

    pairs: tuple[Comparison, ...]
    beats: NDArray[np.bool_]


def compare_arms(
    arms: Sequence[Arm],
    direction: Direction,
    seeds: Sequence[int],
    planned: int,
    level: float,
) -> Compared:
    """Returns the comparisons of all pairs of arms.

    Args:
        arms: The arms.
        direction: Which values are better.
        seeds: How many seeds of each count.
        planned: The seeds that were planned.
        level: The probability, at most, that a claim is wrong.
    """
    costs = costs_of(arms, direction)
    sign = sign_of(direction)
    looks = compare_up_to(costs, seeds, planned)
    count = len(arms)
    adjusted, order = adjust(looks.p, count)
    own = beats_of(looks, adjusted, count, level)
    levels = levels_of(adjusted, order, count, level)
    found = find(looks, adjusted, level)
    low, high = intervals_of(looks, levels, found)
    shown = np.where(found, adjusted, np.where(adjusted <= level, 1.0, adjusted))
    beats, pairs = follow(own), []
    for at, (one, two) in enumerate(zip(looks.first.tolist(), looks.second.tolist(), strict=True)):
        pair = _Pair(costs[[one, two], : min(seeds[one], seeds[two])], sign)
        better, worse = (one, two) if pair.side <= 0 else (two, one)
        # What follows from other claims is not claimed against what the two did themselves.
        beats[worse, better] = False
        pairs.append(
            Comparison(
                better=arms[better].trial,
                worse=arms[worse].trial,
                seeds=pair.seeds,
                p=float(shown[at]),
                beats=bool(beats[better, worse]),
                implied=bool(beats[better, worse] and not own[better, worse]),
                confidence=1 - float(levels[at]),
                **pair.measure(float(low[at]), float(high[at])),
            )
        )
    return Compared(tuple(pairs), beats)


class _Measured(TypedDict):
    gain: float | None
    interval: Interval | None
    relative: float | None
    relative_interval: Interval | None
    test: Literal["t", "ranks", "none"]


class _Pair:
    """The costs of two arms on their common seeds; times ``sign`` they are values."""

    def __init__(self, costs: Floats, sign: float) -> None:
        self._costs, self._sign, self.seeds = costs, sign, costs.shape[1]
        self._whole = bool(np.isfinite(costs).all()) and self.seeds > 0
        self.side = self._lean()

    def _lean(self) -> float:
        """Returns 1 where the second arm is the better one, -1 where the first is, or 0."""
        first, second = self._costs
        if self._whole:
            return float(np.sign((first - second).mean()))
        both = np.isinf(first) & np.isinf(second)
        with np.errstate(invalid="ignore"):  # inf - inf
            return flip_signs(np.where(both, 0.0, first - second).tolist())[1]

    def measure(self, low: float, high: float) -> _Measured:
        """Returns the gain of the better arm and its interval, from that of first minus second."""
        if not self._whole:
            test: Literal["ranks", "none"] = "ranks" if self.seeds >= FIRST_LOOK else "none"
            return _Measured(
                gain=None, interval=None, relative=None, relative_interval=None, test=test
            )
        gain = abs(float((self._costs[0] - self._costs[1]).mean()))
        known = not math.isnan(low)
        interval = None
        if known:
            interval = (low, high) if self.side > 0 else (-high, -low)
        base = abs(float(self._costs[0 if self.side > 0 else 1].mean()))
        share = bool((self._sign * self._costs > 0).all())
        return _Measured(
            gain=gain,
            interval=interval,
            relative=gain / base if share else None,
            relative_interval=(interval[0] / base, interval[1] / base)
            if share and interval
            else None,
            test="t" if known else ("ranks" if self.seeds >= FIRST_LOOK else "none"),
        )
