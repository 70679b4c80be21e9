"""Maps points of a search space to the unit cube, in which samplers move and compare them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

Vector = npt.NDArray[np.float64]


class UnitCube:
    """A search space stretched to [0, 1] along every axis.

    A logarithmic range is stretched in its logarithm; of n whole numbers or choices each takes
    a stretch of 1/n (in the logarithm, where whole numbers are searched so).

    Args:
        space: The distributions by name.
    """

    def __init__(self, space: Mapping[str, BaseDistribution]) -> None:
        self._space = dict(space)

    def to_point(self, params: Mapping[str, Any]) -> Vector:
        """Returns the point of the cube that stands for parameters."""
        return np.array([to_unit(axis, params[name]) for name, axis in self._space.items()])

    def to_params(self, point: Vector) -> dict[str, Any]:
        """Returns the parameters that a point of the cube stands for."""
        return {
            name: from_unit(axis, float(coordinate))
            for (name, axis), coordinate in zip(self._space.items(), point, strict=True)
        }


def to_unit(axis: BaseDistribution, value: Any) -> float:
    """Returns the place of a value on its axis, stretched to [0, 1]; of a single value, the middle.

    >>> to_unit(FloatDistribution(0.01, 1.0, log=True), 0.1)
    0.5
    """
    if isinstance(axis, CategoricalDistribution):
        return (axis.to_internal_repr(value) + 0.5) / len(axis.choices)
    low, high, log = _edges(axis)
    if high <= low:
        return 0.5
    x = math.log(value) if log else value
    return float((x - low) / (high - low))


def from_unit(axis: BaseDistribution, coordinate: float) -> Any:
    """Returns the value at a place on an axis that is stretched to [0, 1].

    >>> from_unit(CategoricalDistribution(("sgd", "adam")), 0.6)
    'adam'
    """
    if isinstance(axis, CategoricalDistribution):
        return axis.choices[min(int(coordinate * len(axis.choices)), len(axis.choices) - 1)]
    low, high, log = _edges(axis)
    x = low + coordinate * (high - low)
    return nearest(axis, math.exp(x) if log else x)


def nearest(axis: BaseDistribution, value: float) -> float | int:
    """Returns the value of a range that is nearest to a number."""
    axis = _range(axis)
    if axis.step:
        value = axis.low + round((value - axis.low) / axis.step) * axis.step
    value = min(max(value, axis.low), axis.high)
    return round(value) if isinstance(axis, IntDistribution) else float(value)


def _edges(axis: BaseDistribution) -> tuple[float, float, bool]:
    """Returns low, high and whether these are logarithms; whole numbers reach half a step out."""
    axis = _range(axis)
    margin = 0.5 if isinstance(axis, IntDistribution) else 0.0
    low, high = axis.low - margin, axis.high + margin
    return (math.log(low), math.log(high), True) if axis.log else (low, high, False)


def _range(axis: BaseDistribution) -> FloatDistribution | IntDistribution:
    if not isinstance(axis, FloatDistribution | IntDistribution):
        raise TypeError(f"{type(axis).__name__} is no range")
    return axis
