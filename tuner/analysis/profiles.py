"""Scores of optimizers over several workloads: performance profiles, and speed-ups.

They are functions of a matrix of costs alone: a row for each workload, a column for each optimizer,
inf where an optimizer has missed the workload's target.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]

MOST_TAU = 4.0
"""The largest ratio to the fastest at which a profile counts, as in AlgoPerf."""

TAUS = (1.0, 1.5, 2.0, 3.0, MOST_TAU)
"""The ratios at which reports tell a profile."""


@dataclass(frozen=True)
class Speedup:
    """How many times as fast as the baseline an optimizer is.

    Attributes:
        factor: The geometric mean, over the workloads whose target both have reached, of the
            baseline's cost as a multiple of the optimizer's; None without any.
        both: On how many workloads both have reached the target.
        missed: On how many the baseline alone has reached it.
        alone: On how many the optimizer alone has.
        neither: On how many neither has.
    """

    factor: float | None
    both: int
    missed: int
    alone: int
    neither: int


def ratios_of(costs: Floats) -> Floats:
    """Returns each cost as a multiple of the smallest on its workload, so at least 1, or inf.

    These are the performance ratios of Dolan and Moré, Benchmarking optimization software with
    performance profiles, Mathematical Programming 91 (2002).

    Args:
        costs: The costs; above 0, inf where a target was missed.

    Raises:
        ValueError: If a cost is not above 0.
    """
    if not (costs > 0).all():
        raise ValueError("a cost is not above 0: pass inf where a target was missed")
    best = costs.min(axis=1, initial=np.inf, keepdims=True)
    ratios = np.full(costs.shape, np.inf)
    np.divide(costs, best, out=ratios, where=np.isfinite(costs))
    return ratios


def profile_of(ratios: Floats, tau: float) -> Floats:
    """Returns for each optimizer the share of workloads on which its ratio is at most tau, 0 to 1.

    Args:
        ratios: The performance ratios, of one workload at least.
        tau: At least 1.
    """
    share: Floats = (ratios <= tau).mean(axis=0)
    return share


def score_of(ratios: Floats) -> Floats:
    """Returns for each optimizer the area under its profile from 1 to 4, divided by 3: 0 to 1.

    It is the score of AlgoPerf (Dahl et al., Benchmarking neural network training algorithms,
    arXiv 2306.07179). A workload with the ratio r adds to it (4 − r) / 3, so the integral is exact.

    Args:
        ratios: The performance ratios, of one workload at least.
    """
    width = MOST_TAU - 1
    score: Floats = (np.maximum(MOST_TAU - ratios, 0) / width).mean(axis=0)
    return score


def compare_speed(costs: Floats, baseline: int) -> tuple[Speedup, ...]:
    """Returns for each optimizer how many times as fast as the baseline it is.

    Args:
        costs: The costs.
        baseline: The baseline's column.
    """
    return tuple(_compare(costs[:, column], costs[:, baseline]) for column in range(costs.shape[1]))


def _compare(own: Floats, base: Floats) -> Speedup:
    reached, compared = np.isfinite(own), np.isfinite(base)
    both = reached & compared
    factor = float(np.exp(np.log(base[both] / own[both]).mean())) if both.any() else None
    return Speedup(
        factor=factor,
        both=int(both.sum()),
        missed=int((compared & ~reached).sum()),
        alone=int((reached & ~compared).sum()),
        neither=int((~reached & ~compared).sum()),
    )


@dataclass(frozen=True)
class Score:
    """The score of one optimizer over the workloads of a suite.

    Attributes:
        optimizer: Its name.
        area: The area under its profile from 1 to 4, divided by 3: 0 to 1.
        profile: Its profile at each of :data:`TAUS`, by that.
        speedup: How many times as fast as the baseline it is.
    """

    optimizer: str
    area: float
    profile: Mapping[float, float]
    speedup: Speedup


def score_all(costs: Floats, optimizers: Sequence[str], baseline: str) -> tuple[Score, ...]:
    """Returns the scores of optimizers, the best first; of equals, in their order.

    Args:
        costs: The costs, of one workload at least.
        optimizers: Their names, one a column.
        baseline: The baseline, which is one of them.
    """
    ratios = ratios_of(costs)
    profiles = {tau: profile_of(ratios, tau) for tau in TAUS}
    speedups = compare_speed(costs, list(optimizers).index(baseline))
    scores = [
        Score(
            optimizer=name,
            area=float(area),
            profile={tau: float(shares[column]) for tau, shares in profiles.items()},
            speedup=speedups[column],
        )
        for column, (name, area) in enumerate(zip(optimizers, score_of(ratios), strict=True))
    ]
    return tuple(sorted(scores, key=lambda score: -score.area))
