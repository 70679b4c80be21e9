"""Maps points of a search space to the unit cube, in which CMA-ES and Sobol sequences draw."""

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
        return np.array([_to_unit(axis, params[name]) for name, axis in self._space.items()])

    def to_params(self, point: Vector) -> dict[str, Any]:
        """Returns the parameters that a point of the cube stands for."""
        return {
            name: _from_unit(axis, float(coordinate))
            for (name, axis), coordinate in zip(self._space.items(), point, strict=True)
        }


def _to_unit(axis: BaseDistribution, value: Any) -> float:
    if isinstance(axis, CategoricalDistribution):
        return (axis.to_internal_repr(value) + 0.5) / len(axis.choices)
    low, high, log = _edges(axis)
    x = math.log(value) if log else value
    return float((x - low) / (high - low))


def _from_unit(axis: BaseDistribution, coordinate: float) -> Any:
    if isinstance(axis, CategoricalDistribution):
        return axis.choices[min(int(coordinate * len(axis.choices)), len(axis.choices) - 1)]
    low, high, log = _edges(axis)
    x = low + coordinate * (high - low)
    value = math.exp(x) if log else x
    if isinstance(axis, IntDistribution):
        value = round(value)
    return min(max(value, axis.low), axis.high)  # type: ignore[attr-defined]


def _edges(axis: BaseDistribution) -> tuple[float, float, bool]:
    """Returns low, high and whether these are logarithms; whole numbers reach half a step out."""
    if not isinstance(axis, FloatDistribution | IntDistribution):
        raise TypeError(f"{axis} is no range")
    margin = 0.5 if isinstance(axis, IntDistribution) else 0.0
    low, high = axis.low - margin, axis.high + margin
    return (math.log(low), math.log(high), True) if axis.log else (low, high, False)
