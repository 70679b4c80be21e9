"""Schedules of many lanes at once, over the shapes that single trials follow."""

from __future__ import annotations

import builtins
from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.domain.catalog import schedule_functions as shapes
from tuner.domain.catalog.dimensions import Value
from tuner.domain.catalog.schedules import (
    SCHEDULES,
    ScheduleFn,
    ScheduleRow,
    Shape,
    as_numbers,
    split_steps,
)

Numbers = NDArray[np.float64]

_ARRAY_MATH: dict[str, Any] = {
    "math": SimpleNamespace(pi=np.pi, cos=np.cos, floor=np.floor, sqrt=np.sqrt, pow=np.power),
    "min": np.minimum,
    "__builtins__": builtins,
}


def _over_arrays(shape: Shape) -> Any:
    """Returns a shape with the functions of arrays in place of ``math``: one source for both."""
    return FunctionType(shape.__code__, _ARRAY_MATH)


# Those without branches. The others are evaluated number by number.
_OVER_ARRAYS = {
    shape: _over_arrays(shape)
    for shape in (
        shapes.constant_shape,
        shapes.cosine_shape,
        shapes.step_shape,
        shapes.linear_shape,
        shapes.polynomial_shape,
        shapes.exponential_shape,
        shapes.inverse_sqrt_shape,
        shapes.stable_decay_shape,
        shapes.cyclic_shape,
        shapes.cyclic_momentum,
    )
}


def tabulate_courses(
    schedules: Sequence[tuple[str, Mapping[str, Value]]], length: int, at: NDArray[np.int64]
) -> tuple[Numbers, Numbers]:
    """Returns what learning rates are multiplied with, and the momenta that schedules set.

    Args:
        schedules: Of every lane, the schedule's name and values.
        length: Steps of a full trial, or epochs where the schedules are stepped by epoch.
        at: The steps, or epochs, from 0.

    Returns:
        Factors and momenta, float64 of shape (lanes, len(at)); a momentum is NaN where its
        schedule leaves it alone.
    """
    factors = np.empty((len(schedules), len(at)))
    momenta = np.full_like(factors, np.nan)
    lanes_of = defaultdict(list)
    for lane, (name, _) in enumerate(schedules):
        lanes_of[name].append(lane)
    for name, lanes in lanes_of.items():
        row, values = SCHEDULES[name], [dict(schedules[lane][1]) for lane in lanes]
        factors[lanes] = _factors(row, values, length, at)
        if row.momentum_shape is not None:
            momenta[lanes] = _momenta(row, values, length, at)
    return factors, momenta


def _factors(
    row: ScheduleRow, values: list[dict[str, Value]], length: int, at: NDArray[np.int64]
) -> Numbers:
    if row.shape not in _OVER_ARRAYS:
        return _evaluate([row.factor(one, length) for one in values], at)
    shape, numbers = _OVER_ARRAYS[row.shape], _columns(values)
    warmup, rest = _split(values, length)
    rising = shape(numbers, 0.0) * (at + 1) / np.maximum(warmup, 1)
    after = shape(numbers, np.clip((at - warmup) / rest, 0, 1))
    factors: Numbers = np.where(at < warmup, rising, after)
    return factors


def _momenta(
    row: ScheduleRow, values: list[dict[str, Value]], length: int, at: NDArray[np.int64]
) -> Numbers:
    if row.momentum_shape not in _OVER_ARRAYS:
        courses = [row.momentum(one, length) for one in values]
        return _evaluate([course for course in courses if course], at)
    warmup, rest = _split(values, length)
    x = np.clip((at - warmup) / rest, 0, 1)
    momenta: Numbers = _OVER_ARRAYS[row.momentum_shape](_columns(values), x)
    return momenta


def _evaluate(courses: Sequence[ScheduleFn], at: NDArray[np.int64]) -> Numbers:
    steps = at.tolist()
    return np.array([[course(step) for step in steps] for course in courses])


def _columns(values: list[dict[str, Value]]) -> dict[str, Numbers]:
    rows = [as_numbers(one) for one in values]
    return {name: np.array([[row[name]] for row in rows]) for name in rows[0]}


def _split(
    values: list[dict[str, Value]], length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    pairs = np.array([split_steps(as_numbers(one), length) for one in values])
    return pairs[:, :1], pairs[:, 1:]
