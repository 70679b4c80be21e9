"""Turns the axes of a search space into Optuna's distributions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import cast

from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.trial import Trial

from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Float, Int, Value
from tuner.domain.space import walk
from tuner.domain.spec import StudySpec


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


def suggest(trial: Trial, name: str, axis: Dimension) -> Value:
    """Returns the value that a trial of Optuna's suggests for an axis.

    Args:
        trial: The trial, which asks its study's sampler.
        name: The parameter's name.
        axis: The axis; the value of a fixed one is not asked for.
    """
    match axis:
        case Float():
            return trial.suggest_float(name, axis.low, axis.high, log=axis.log)
        case Int():
            return trial.suggest_int(name, axis.low, axis.high, log=axis.log)
        case Choice():
            return cast("Value", trial.suggest_categorical(name, axis.choices))
        case Fixed():
            return axis.value


class Distributions:
    """The distributions of a search space, each made once for all trials that have it.

    Args:
        spec: The resolved spec the trials are proposed from.
    """

    def __init__(self, spec: StudySpec) -> None:
        self._known = {name: to_distribution(axis) for name, axis in spec.axes().items()}

    def of(
        self, params: Mapping[str, Value], own_axes: Mapping[str, Dimension] | None = None
    ) -> dict[str, BaseDistribution]:
        """Returns the distribution of each parameter of a trial, of those that are searched.

        Args:
            params: The trial's parameters by name.
            own_axes: The axes of its workload's own hyperparameters.
        """
        known = self._known
        own = {name: to_distribution(axis) for name, axis in (own_axes or {}).items()}
        return {
            name: known[name] if name in known else own[name]
            for name in params
            if name in known or name in own
        }


def joint_space(spec: StudySpec) -> dict[str, BaseDistribution]:
    """Returns the distributions of a space in which every trial has the same parameters.

    Args:
        spec: A resolved spec without conditions; axes of a single value are left out.
    """
    space: dict[str, BaseDistribution] = {}

    def visit(name: str, axis: Dimension) -> Value:
        space[name] = to_distribution(axis)
        match axis:
            case Float() | Int():
                return axis.low
            case Choice():
                return axis.choices[0]
            case Fixed():
                return axis.value

    walk(spec, visit)
    return {name: axis for name, axis in sorted(space.items()) if not axis.single()}
