"""The catalog's schedules: one row each; a schedule is a factor on the learning rate by step.

Durations are fractions of a full trial's steps, so that a pruned trial has followed the schedule
of a full one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tuner.domain.dimensions import Choice, Float, Value
from tuner.domain.hyperparameters import FRACTION, MAIN, POSITIVE_FRACTION, Hyperparameter

Factor = Callable[[int], float]
"""What the learning rate is multiplied with at a step, counted from 0."""

_WARMUP = Hyperparameter(
    "warmup", 0.0, Choice(choices=(0.0, 0.02, 0.05, 0.1)), "AP, PB", MAIN, bounds=FRACTION
)


@dataclass(frozen=True)
class ScheduleRow:
    """One schedule: what it is and how it is searched.

    Attributes:
        name: Its name in study files.
        summary: One sentence on when to use it.
        equation: Its factor after warmup; x is the fraction of the remaining steps taken.
        reference: Where it was published.
        hyperparameters: Its knobs; ``warmup`` is the fraction of all steps warmed up linearly.
        shape: The factor after warmup, from the knobs' values and x in [0, 1]; it uses nothing
            but its arguments and ``math``, since its source is exported.
    """

    name: str
    summary: str
    equation: str
    reference: str
    hyperparameters: tuple[Hyperparameter, ...]
    shape: Callable[[dict[str, float], float], float]

    def decode(self, point: dict[str, Value]) -> dict[str, Value]:
        """Returns every hyperparameter, defaults filled in."""
        return {knob.name: knob.decode(point) for knob in self.hyperparameters}

    def factor(self, values: dict[str, Value], steps: int) -> Factor:
        """Returns the schedule of a full trial.

        Args:
            values: The knobs' values, as :meth:`decode` gives them.
            steps: Steps of a full trial, at least 1.

        >>> factor = SCHEDULES["cosine"].factor({"warmup": 0.5, "final_ratio": 0.0}, 8)
        >>> [round(factor(step), 3) for step in range(8)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 0.854, 0.5, 0.146]
        """
        numbers = {name: float(value) for name, value in values.items()}
        warmup, rest = split_steps(numbers["warmup"], steps)

        def factor(step: int) -> float:
            if step < warmup:
                return (step + 1) / warmup
            return self.shape(numbers, min(1.0, (step - warmup) / rest))

        return factor


def split_steps(warmup: float, steps: int) -> tuple[int, int]:
    """Returns the steps of a trial's warmup and those after it, the latter at least 1."""
    first = round(warmup * steps)
    return first, max(1, steps - first)


# The source of these functions is what `tuner study export` prints, so each stands alone.
def constant_shape(values: dict[str, float], x: float) -> float:
    """Returns 1."""
    return 1.0


def cosine_shape(values: dict[str, float], x: float) -> float:
    """Returns half a cosine wave from 1 to final_ratio."""
    final = values["final_ratio"]
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * x))


def step_shape(values: dict[str, float], x: float) -> float:
    """Returns gamma to the number of periods that have passed."""
    # The small addition keeps a boundary such as 3 * 0.2 from falling one step late.
    return values["gamma"] ** math.floor(x / values["period"] + 1e-9)


SCHEDULES: dict[str, ScheduleRow] = {
    row.name: row
    for row in (
        ScheduleRow(
            "constant",
            "Short runs, and the baseline for every other schedule.",
            "1",
            "–",
            (_WARMUP,),
            constant_shape,
        ),
        ScheduleRow(
            "cosine",
            "The usual choice when the number of steps is known beforehand.",
            "r + (1 − r)·(1 + cos πx)/2",
            "Loshchilov and Hutter, SGDR, ICLR 2017",
            (
                _WARMUP,
                Hyperparameter(
                    "final_ratio",
                    0.0,
                    Float(low=1e-3, high=0.1, log=True),
                    "J",
                    MAIN,
                    bounds=FRACTION,
                    switch=True,
                ),
            ),
            cosine_shape,
        ),
        ScheduleRow(
            "step",
            "Long runs that plateau: cut the rate at fixed fractions.",
            "γ^⌊x / period⌋",
            "He et al., Deep Residual Learning, CVPR 2016",
            (
                _WARMUP,
                Hyperparameter(
                    "gamma",
                    0.1,
                    Float(low=0.05, high=0.5, log=True),
                    "J",
                    MAIN,
                    bounds=POSITIVE_FRACTION,
                ),
                Hyperparameter(
                    "period",
                    0.5,
                    Choice(choices=(0.2, 0.25, 0.5)),
                    "J",
                    MAIN,
                    bounds=POSITIVE_FRACTION,
                ),
            ),
            step_shape,
        ),
    )
}
