"""From the axes of a search space to Optuna's distributions."""

from __future__ import annotations

from collections.abc import Mapping

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from tuner.domain.dimensions import Choice, Dimension, Fixed, Float, Int, Value
from tuner.domain.spec import StudySpec
from tuner.domain.trials import root_axes


def to_distribution(axis: Dimension) -> BaseDistribution:
    """Returns the distribution Optuna draws an axis from."""
    match axis:
        case Float():
            return FloatDistribution(axis.low, axis.high, log=axis.log)
        case Int():
            return IntDistribution(axis.low, axis.high, log=axis.log)
        case Choice():
            return CategoricalDistribution(axis.choices)
        case Fixed():
            return CategoricalDistribution((axis.value,))


def distributions_of(spec: StudySpec, params: Mapping[str, Value]) -> dict[str, BaseDistribution]:
    """Returns the distribution of each parameter of a trial.

    Args:
        spec: The resolved spec the trial was proposed from.
        params: The trial's parameters by name.
    """
    axes = dict(root_axes(spec))
    for table in (spec.optimizer, spec.schedule):
        for branch, branch_axes in table.items():
            axes |= {f"{branch}.{key}": axis for key, axis in branch_axes.items()}
    return {name: to_distribution(axes[name]) for name in params if name in axes}
