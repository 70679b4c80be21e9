"""Random search over an optimizer's range, as its even draws tell of it: how good, how often.

The bands are those of Lourie, Cho and He, "Show Your Work with Confidence" (2023), computed by
their library opda. They hold for all numbers of trials at once.
"""

from __future__ import annotations

import functools
from dataclasses import dataclass

from tuner.domain.study_section import Direction

LEVEL = 0.95
"""How often, at least, a band or an interval holds the truth."""

LEAST_DRAWS = 2
"""Draws from which on there is a band."""

_SIMULATED = 64
"""Draws up to which the critical value of a band is simulated, which takes about a second."""


@dataclass(frozen=True)
class RandomCurve:
    """The best of n points drawn evenly from an optimizer's range, for n = 1, 2, … in its tuples.

    The band holds the median for all n at once, in 95% of cases at least.

    Attributes:
        median: The value that half of such searches reach; None where they may reach none.
        best: The end of the band that is better, None where it is no value.
        worst: The end that is worse, None where it is no value.
        open_from: The n from which on the draws set no bound to what is better, so that ``best`` is
            None there too; None where they always do.
    """

    median: tuple[float | None, ...]
    best: tuple[float | None, ...]
    worst: tuple[float | None, ...]
    open_from: int | None


@dataclass(frozen=True)
class EvenDraws:
    """The values of points that were drawn evenly from an optimizer's range.

    Attributes:
        values: Their values, in any order; None, which is worse than any, where one has none.
        direction: Which values are better.
    """

    values: tuple[float | None, ...]
    direction: Direction

    @functools.cached_property
    def curve(self) -> RandomCurve | None:
        """The curve of random search, computed once it is asked for: the first may take seconds.

        It goes up to as many trials as there are values; of fewer than two there is none. Equal
        values and divergences make its band hold more often, not less.
        """
        if len(self.values) < LEAST_DRAWS:
            return None
        largest_first = self.direction == "maximize"
        known = sorted((v for v in self.values if v is not None), reverse=largest_first)
        ranked = dict(enumerate(known, start=1))
        best, median, worst = _rank_band(len(self.values))
        return RandomCurve(
            median=tuple(map(ranked.get, median)),
            best=tuple(map(ranked.get, best)),
            worst=tuple(map(ranked.get, worst)),
            open_from=best.index(0) + 1 if 0 in best else None,
        )


@dataclass(frozen=True)
class Share:
    """A part of an optimizer's trials or range.

    Attributes:
        count: The trials that count.
        trials: All of them.
        low: The lower end of its interval, from 0 to 1.
        high: The upper end.
    """

    count: int
    trials: int
    low: float
    high: float

    @property
    def share(self) -> float:
        """The part, from 0 to 1."""
        return self.count / self.trials


@functools.cache
def _rank_band(draws: int) -> tuple[tuple[int, ...], ...]:
    """Returns the ranks of a band's better end, of the median, and of its worse end, for n = 1, ….

    They follow from the number of draws alone. Rank 1 is the best draw; 0 stands for whatever is
    better than all draws, and one more than their number for whatever is worse.
    """
    import numpy as np  # noqa: PLC0415 (a light command needs no numpy)
    from opda.nonparametric import EmpiricalDistribution  # noqa: PLC0415 (it loads scipy)

    lower, middle, upper = EmpiricalDistribution.confidence_bands(
        ys=np.arange(1.0, draws + 1),
        confidence=LEVEL,
        a=0.0,
        b=draws + 1.0,
        method="ld_equal_tailed" if draws <= _SIMULATED else "ks",
        generator=np.random.default_rng(0),
        n_jobs=1,
    )
    trials = np.arange(1, draws + 1)
    return tuple(
        tuple(int(rank) for rank in cdf.quantile_tuning_curve(trials, minimize=True))
        for cdf in (upper, middle, lower)
    )


def to_share(count: int, trials: int) -> Share | None:
    """Returns a share with its exact 95% interval (Clopper and Pearson 1934); None of no trials.

    Args:
        count: The trials that count.
        trials: All of them.
    """
    from scipy.special import betaincinv  # noqa: PLC0415 (a light command needs no scipy)

    if not trials:
        return None
    tail = (1 - LEVEL) / 2
    low = float(betaincinv(count, trials - count + 1, tail)) if count else 0.0
    high = float(betaincinv(count + 1, trials - count, 1 - tail)) if count < trials else 1.0
    return Share(count, trials, low, high)
