"""The catalog's schedules: one row each; a schedule is a factor on the learning rate by step.

Durations are fractions of a full trial's steps, so that a pruned trial has followed the schedule
of a full one.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tuner.domain.dimensions import Choice, Float, Value
from tuner.domain.hyperparameters import FRACTION, MAIN, POSITIVE, POSITIVE_FRACTION, Hyperparameter

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


def linear_shape(values: dict[str, float], x: float) -> float:
    """Returns a straight line from 1 to final_ratio."""
    return 1 - x * (1 - values["final_ratio"])


def polynomial_shape(values: dict[str, float], x: float) -> float:
    """Returns a power of what is left, from 1 to final_ratio."""
    final = values["final_ratio"]
    return final + (1 - final) * math.pow(1 - x, values["power"])


def exponential_shape(values: dict[str, float], x: float) -> float:
    """Returns the same shrinkage every step, from 1 to final_ratio."""
    return math.pow(values["final_ratio"], x)


def multistep_shape(values: dict[str, float], x: float) -> float:
    """Returns gamma to the number of milestones that have passed."""
    return values["gamma"] ** ((x >= values["first"]) + (x >= values["second"]))


def inverse_sqrt_shape(values: dict[str, float], x: float) -> float:
    """Returns one over the square root of time, counted in timescales."""
    return math.sqrt(values["timescale"] / (values["timescale"] + x))


def stable_decay_shape(values: dict[str, float], x: float) -> float:
    """Returns 1 until the cooldown, then a straight line to 0."""
    return min(1.0, (1 - x) / values["cooldown"])


def _final_ratio(default: float) -> Hyperparameter:
    axis = Choice(choices=(1e-3, 1e-2))
    return Hyperparameter("final_ratio", default, axis, "AP", MAIN, bounds=FRACTION)


_GAMMA = Hyperparameter(
    "gamma", 0.1, Float(low=0.05, high=0.5, log=True), "J", MAIN, bounds=POSITIVE_FRACTION
)

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
                _GAMMA,
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
        ScheduleRow(
            "linear",
            "The simplest decay when the number of steps is known; common for transformers.",
            "1 − (1 − r)·x",
            "Goyal et al., Accurate, Large Minibatch SGD, 2017",
            (_WARMUP, _final_ratio(1e-3)),
            linear_shape,
        ),
        ScheduleRow(
            "polynomial",
            "Between linear and a sharp drop: a power below 1 decays late, above 1 early.",
            "r + (1 − r)·(1 − x)^power",
            "Chen et al., DeepLab, TPAMI 2018",
            (
                _WARMUP,
                _final_ratio(1e-3),
                Hyperparameter(
                    "power", 1.0, Float(low=0.5, high=5.0), "SIV", MAIN, bounds=POSITIVE
                ),
            ),
            polynomial_shape,
        ),
        ScheduleRow(
            "exponential",
            "Steady decay by the same share each step, with no end in sight.",
            "r^x",
            "Li and Arora, An Exponential Learning Rate Schedule for Deep Learning, ICLR 2020",
            (
                _WARMUP,
                Hyperparameter(
                    "final_ratio",
                    0.1,
                    Float(low=1e-3, high=1.0, log=True),
                    "J",
                    MAIN,
                    bounds=POSITIVE_FRACTION,
                ),
            ),
            exponential_shape,
        ),
        ScheduleRow(
            "multistep",
            "As step, with two cuts late in training: the classic recipe of image networks.",
            "γ^(milestones passed)",
            "He et al., Deep Residual Learning, CVPR 2016",
            (
                _WARMUP,
                _GAMMA,
                Hyperparameter(
                    "first", 0.5, Choice(choices=(0.5, 0.6)), "J", MAIN, bounds=FRACTION
                ),
                Hyperparameter(
                    "second", 0.75, Choice(choices=(0.75, 0.85)), "J", MAIN, bounds=FRACTION
                ),
            ),
            multistep_shape,
        ),
        ScheduleRow(
            "inverse_sqrt",
            "Runs whose end is not known: it keeps falling, ever more slowly.",
            "√(t/(t + x)), t being the timescale",
            "Vaswani et al., Attention Is All You Need, NeurIPS 2017",
            (
                _WARMUP,
                Hyperparameter(
                    "timescale",
                    0.1,
                    Choice(choices=(0.02, 0.05, 0.1, 0.2)),
                    "J",
                    MAIN,
                    bounds=POSITIVE_FRACTION,
                ),
            ),
            inverse_sqrt_shape,
        ),
        ScheduleRow(
            "stable_decay",
            "Warmup-stable-decay: a constant rate that can be extended, then a short cooldown.",
            "min(1, (1 − x)/cooldown)",
            "Hu et al., MiniCPM, COLM 2024",
            (
                _WARMUP,
                Hyperparameter(
                    "cooldown",
                    0.2,
                    Float(low=0.1, high=0.5),
                    "J",
                    MAIN,
                    bounds=POSITIVE_FRACTION,
                ),
            ),
            stable_decay_shape,
        ),
    )
}

USUAL_SCHEDULES = ("constant", "cosine", "step")
"""What a study searches whose file names no schedules."""
