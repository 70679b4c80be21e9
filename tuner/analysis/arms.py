"""The arms of a confirmation: configurations trained again, all on the same seeds in one order."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tuner.domain.objective import sign_of
from tuner.domain.study_section import Direction

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Arm:
    """A configuration of the search that is trained again.

    Attributes:
        trial: The number of the trial that it is from.
        values: Its metric on the planned seeds, in their order; None, or a value that is not
            finite, where it diverged. An arm that was dropped has fewer.
        cost: What one seed of it costs, in seconds or steps.
        complexity: How many hyperparameters there are to tune: none of an optimizer's own defaults.
    """

    trial: int
    values: tuple[float | None, ...] = ()
    cost: float = 0.0
    complexity: int = 0


def check_arms(arms: Sequence[Arm], direction: str, planned: int, level: float) -> None:
    """Raises a ValueError unless arms, direction, planned seeds and level can be judged.

    Args:
        arms: The arms.
        direction: Which values are better.
        planned: The seeds that were planned.
        level: The probability that any claim may be wrong.
    """
    if direction not in ("minimize", "maximize"):
        raise ValueError(f"direction = {direction!r}: it must be 'minimize' or 'maximize'")
    if planned < 2:
        raise ValueError(f"planned = {planned}: a comparison needs two seeds; plan at least 2")
    if not 0 < level < 1:
        raise ValueError(f"level = {level:g}: it must lie between 0 and 1, such as 0.05")
    trials = [arm.trial for arm in arms]
    twice = sorted({trial for trial in trials if trials.count(trial) > 1})
    if twice:
        raise ValueError(f"trial {twice[0]} is two arms: pass all its values as one arm")
    for arm in arms:
        if len(arm.values) > planned:
            raise ValueError(
                f"trial {arm.trial} has {len(arm.values)} values, but {planned} seeds were "
                "planned: the number of seeds is fixed before the first is trained"
            )


def costs_of(arms: Sequence[Arm], direction: Direction) -> Floats:
    """Returns a row for each arm of what is to be small: inf where it diverged, nan where untried.

    Args:
        arms: The arms.
        direction: Which values are better.
    """
    sign = sign_of(direction)
    costs = np.full((len(arms), max((len(arm.values) for arm in arms), default=0)), np.nan)
    for row, arm in zip(costs, arms, strict=True):
        for seed, value in enumerate(arm.values):
            finite = value is not None and math.isfinite(value)
            row[seed] = sign * value if value is not None and finite else np.inf
    return costs


def rank_arms(costs: Floats) -> list[tuple[int, float, int]]:
    """Returns (diverged, mean cost, row) of arms that ran on the same seeds, the best first.

    Args:
        costs: Their costs, without nan.
    """
    diverged = np.isinf(costs).sum(axis=1)
    finite = np.where(np.isinf(costs), 0.0, costs)
    counts = costs.shape[1] - diverged
    means = np.where(counts > 0, finite.sum(axis=1) / np.maximum(counts, 1), np.inf)
    return sorted(zip(diverged.tolist(), means.tolist(), range(len(costs)), strict=True))
