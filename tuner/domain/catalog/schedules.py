"""The catalog's schedules: one row each; a schedule is a factor on the learning rate by step.

Durations are fractions of a full trial, so that a pruned trial has followed the schedule of a full
one. Time is counted in steps, or in epochs where a schedule is stepped by epoch.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from tuner.domain.catalog import finetuning
from tuner.domain.catalog import schedule_functions as fn
from tuner.domain.catalog.dimensions import Choice, Fixed, Float, Value
from tuner.domain.catalog.hyperparameters import (
    BETWEEN,
    COUNT,
    FRACTION,
    MAIN,
    POSITIVE,
    POSITIVE_FRACTION,
    Bounds,
    Hyperparameter,
)

CONSTANT = "constant"
"""The name of the row whose factor is 1 throughout, after warmup."""

ScheduleFn = Callable[[int], float]
"""Returns the factor on the learning rate, or the momentum, at a step counted from 0."""

ScheduleFormula = Callable[[dict[str, float], float], float]
"""Returns the same from the values of a schedule's hyperparameters and x, in [0, 1]: the fraction
that is done of the steps after warmup."""


@dataclass(frozen=True)
class ScheduleRow:
    """One schedule: its formula and reference, and its search space.

    Attributes:
        name: Its name in study files.
        summary: One sentence on when to use it.
        equation: Its factor after warmup; x is the fraction of the remaining steps taken.
        reference: Where it was published.
        hyperparameters: Its hyperparameters; ``warmup`` is the fraction of all steps in which the
            factor rises linearly to its value at x = 0.
        formula: The factor after warmup.
        momentum_formula: The momentum, for a schedule that cycles it; None leaves it alone.
        follows_metric: Whether it lowers the rate further when the metric stops improving:
            by ``factor``, once more than ``patience`` evaluations brought nothing better.
    """

    name: str
    summary: str
    equation: str
    reference: str
    hyperparameters: tuple[Hyperparameter, ...]
    formula: ScheduleFormula
    momentum_formula: ScheduleFormula | None = None
    follows_metric: bool = False

    @property
    def cycles_momentum(self) -> bool:
        """Whether it sets the momentum of optimizers that have one."""
        return self.momentum_formula is not None

    def decode(self, point: dict[str, Value]) -> dict[str, Value]:
        """Returns every hyperparameter, defaults filled in."""
        return {one.name: one.decode(point) for one in self.hyperparameters}

    def factor(self, values: dict[str, Value], steps: int) -> ScheduleFn:
        """Returns the factor on the learning rate in a full trial, by step.

        Args:
            values: The hyperparameters' values, as :meth:`decode` gives them.
            steps: Steps of a full trial, at least 1.

        >>> factor = SCHEDULES["cosine"].factor({"warmup": 0.5, "final_ratio": 0.0}, 8)
        >>> [round(factor(step), 3) for step in range(8)]
        [0.25, 0.5, 0.75, 1.0, 1.0, 0.854, 0.5, 0.146]
        """
        numbers = as_numbers(values)
        warmup, rest = split_steps(numbers, steps)
        start = self.formula(numbers, 0.0)

        def factor(step: int) -> float:
            if step < warmup:
                return start * (step + 1) / warmup
            return self.formula(numbers, min(1.0, (step - warmup) / rest))

        return factor

    def momentum(self, values: dict[str, Value], steps: int) -> ScheduleFn | None:
        """Returns the momentum in a full trial by step, or None where the schedule leaves it alone.

        Args:
            values: The hyperparameters' values, as :meth:`decode` gives them.
            steps: Steps of a full trial, at least 1.
        """
        formula = self.momentum_formula
        if formula is None:
            return None
        numbers = as_numbers(values)
        warmup, rest = split_steps(numbers, steps)
        return lambda step: formula(numbers, min(1.0, max(0.0, (step - warmup) / rest)))


def as_numbers(values: dict[str, Value]) -> dict[str, float]:
    """Returns a schedule's values as its formula takes them."""
    return {name: float(value) for name, value in values.items()}


def split_steps(values: dict[str, float], steps: int) -> tuple[int, int]:
    """Returns the steps of a trial's warmup and those after it, the latter at least 1."""
    first = round(values.get("warmup", 0.0) * steps)
    return first, max(1, steps - first)


def count_epochs(steps: int, epoch_steps: int) -> int:
    """Returns the number of epochs that begin within a trial."""
    return math.ceil(steps / epoch_steps)


def count_patience(values: dict[str, float], evaluations: int) -> int:
    """Returns the evaluations in a row, at least 1, that may bring nothing better.

    Args:
        values: The values of a schedule that follows the metric.
        evaluations: Evaluations of a full trial.
    """
    return max(1, round(values["patience"] * evaluations))


_WARMUP = Hyperparameter(
    "warmup",
    0.0,
    Choice(choices=(0.0, 0.02, 0.05, 0.1)),
    "AP, PB",
    MAIN,
    bounds=FRACTION,
    finetuning=finetuning.WARMUP,
)


def _final_ratio(default: float) -> Hyperparameter:
    axis = Choice(choices=(1e-3, 1e-2))
    return Hyperparameter("final_ratio", default, axis, "AP", MAIN, bounds=FRACTION)


def _momentum(name: str, default: float, source: str) -> Hyperparameter:
    return Hyperparameter(name, default, Fixed(value=default), source, MAIN, bounds=BETWEEN)


_CYCLES = Bounds(1, 1000)

_COSINE_FINAL = Hyperparameter(
    "final_ratio",
    0.0,
    Float(low=1e-3, high=0.1, log=True),
    "J",
    MAIN,
    bounds=FRACTION,
    switch=True,
)

_GAMMA = Hyperparameter(
    "gamma", 0.1, Float(low=0.05, high=0.5, log=True), "J", MAIN, bounds=POSITIVE_FRACTION
)

SCHEDULES: dict[str, ScheduleRow] = {
    row.name: row
    for row in (
        ScheduleRow(
            CONSTANT,
            "Short runs, and the baseline for every other schedule.",
            "1",
            "–",
            (_WARMUP,),
            fn.constant_factor,
        ),
        ScheduleRow(
            "cosine",
            "The usual choice when the number of steps is known beforehand.",
            "r + (1 − r)·(1 + cos πx)/2",
            "Loshchilov and Hutter, SGDR, ICLR 2017",
            (_WARMUP, _COSINE_FINAL),
            fn.cosine_factor,
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
            fn.step_factor,
        ),
        ScheduleRow(
            "linear",
            "The simplest decay when the number of steps is known; common for transformers.",
            "1 − (1 − r)·x",
            "Goyal et al., Accurate, Large Minibatch SGD, 2017",
            (_WARMUP, _final_ratio(1e-3)),
            fn.linear_factor,
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
            fn.polynomial_factor,
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
            fn.exponential_factor,
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
            fn.multistep_factor,
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
            fn.inverse_sqrt_factor,
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
            fn.stable_decay_factor,
        ),
        ScheduleRow(
            "cosine_restarts",
            "Several models from one run: the rate is near its end once a cycle.",
            "r + (1 − r)·(1 + cos πu)/2, u being the fraction of the cycle passed",
            "Loshchilov and Hutter, SGDR, ICLR 2017",
            (
                _WARMUP,
                _COSINE_FINAL,
                Hyperparameter("cycles", 3, Choice(choices=(2, 3, 4)), "J", MAIN, bounds=_CYCLES),
                Hyperparameter("T_mult", 2, Choice(choices=(1, 2)), "J", MAIN, bounds=COUNT),
            ),
            fn.cosine_restarts_factor,
        ),
        ScheduleRow(
            "one_cycle",
            "Short budgets at high rates: one rise, a long fall, and momentum against them.",
            "x < p: a + (1 − a)·(1 − cos πx/p)/2; then z + (1 − z)·(1 + cos π(x − p)/(1 − p))/2; "
            "p = pct_start, a = 1/div_factor, z = a/final_div_factor",
            "Smith and Topin, Super-Convergence, SPIE 2019",
            (
                Hyperparameter(
                    "pct_start", 0.3, Float(low=0.1, high=0.5), "torch", MAIN, bounds=BETWEEN
                ),
                Hyperparameter(
                    "div_factor", 25.0, Fixed(value=25.0), "torch", MAIN, bounds=Bounds(1)
                ),
                Hyperparameter(
                    "final_div_factor", 1e4, Fixed(value=1e4), "torch", MAIN, bounds=Bounds(1)
                ),
                _momentum("base_momentum", 0.85, "torch"),
                _momentum("max_momentum", 0.95, "torch"),
            ),
            fn.one_cycle_factor,
            fn.one_cycle_momentum,
        ),
        ScheduleRow(
            "cyclic",
            "When a good rate is not known: it sweeps a range of them, and momentum against it.",
            "b + (1 − b)·(1 − |x/h mod 2 − 1|), b = base_ratio, h = half_cycle",
            "Smith, Cyclical Learning Rates for Training Neural Networks, WACV 2017",
            (
                _WARMUP,
                # Each of these ends a trial at the foot of a cycle.
                Hyperparameter(
                    "half_cycle",
                    0.1,
                    Choice(choices=(0.05, 0.1, 0.25, 0.5)),
                    "J",
                    MAIN,
                    bounds=POSITIVE_FRACTION,
                ),
                Hyperparameter(
                    "base_ratio",
                    0.25,
                    Float(low=0.05, high=0.5, log=True),
                    "J",
                    MAIN,
                    bounds=POSITIVE_FRACTION,
                ),
                _momentum("base_momentum", 0.8, "torch"),
                _momentum("max_momentum", 0.9, "torch"),
            ),
            fn.cyclic_factor,
            fn.cyclic_momentum,
        ),
        ScheduleRow(
            "plateau",
            "When nothing is known of the run: cut the rate once the metric stops improving.",
            "factor^(times more than patience·evaluations in a row brought nothing better)",
            "He et al., Deep Residual Learning, CVPR 2016",
            (
                _WARMUP,
                Hyperparameter(
                    "factor", 0.1, Choice(choices=(0.1, 0.3, 0.5)), "J", MAIN, bounds=BETWEEN
                ),
                Hyperparameter(
                    "patience", 0.1, Choice(choices=(0.1, 0.2, 0.3)), "J", MAIN, bounds=FRACTION
                ),
            ),
            fn.constant_factor,
            follows_metric=True,
        ),
    )
}

USUAL_SCHEDULES = (CONSTANT, "linear", "cosine", "stable_decay")
"""The schedules that a study searches whose file names none."""
