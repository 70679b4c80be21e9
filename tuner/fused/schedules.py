"""Factors and momenta of many lanes at once, by the formulas that single trials follow."""

from __future__ import annotations

import builtins
from collections import defaultdict
from collections.abc import Mapping, Sequence
from types import FunctionType, SimpleNamespace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuner.domain.catalog import schedule_functions as fn
from tuner.domain.catalog.dimensions import Value
from tuner.domain.catalog.schedules import (
    SCHEDULES,
    ScheduleFn,
    ScheduleFormula,
    ScheduleRow,
    as_numbers,
    split_steps,
)

Numbers = NDArray[np.float64]

_ARRAY_MATH: dict[str, Any] = {
    "math": SimpleNamespace(pi=np.pi, cos=np.cos, floor=np.floor, sqrt=np.sqrt, pow=np.power),
    "min": np.minimum,
    "__builtins__": builtins,
}


def _over_arrays(formula: ScheduleFormula) -> Any:
    """Returns a formula that calls NumPy's functions in place of ``math``: one source for both."""
    return FunctionType(formula.__code__, _ARRAY_MATH)


# The formulas without branches; the others are evaluated number by number.
_OVER_ARRAYS = {
    formula: _over_arrays(formula)
    for formula in (
        fn.constant_factor,
        fn.cosine_factor,
        fn.step_factor,
        fn.linear_factor,
        fn.polynomial_factor,
        fn.exponential_factor,
        fn.inverse_sqrt_factor,
        fn.stable_decay_factor,
        fn.cyclic_factor,
        fn.cyclic_momentum,
    )
}


def evaluate_schedules(
    schedules: Sequence[tuple[str, Mapping[str, Value]]], length: int, at: NDArray[np.int64]
) -> tuple[Numbers, Numbers]:
    """Returns the factors on learning rates, and the momenta, that schedules set.

    Args:
        schedules: The name and the values of each lane's schedule.
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
        if row.cycles_momentum:
            momenta[lanes] = _momenta(row, values, length, at)
    return factors, momenta


def _factors(
    row: ScheduleRow, values: list[dict[str, Value]], length: int, at: NDArray[np.int64]
) -> Numbers:
    if row.formula not in _OVER_ARRAYS:
        return _evaluate([row.factor(one, length) for one in values], at)
    formula, numbers = _OVER_ARRAYS[row.formula], _columns(values)
    warmup, rest = _split(values, length)
    rising = formula(numbers, 0.0) * (at + 1) / np.maximum(warmup, 1)
    after = formula(numbers, np.clip((at - warmup) / rest, 0, 1))
    factors: Numbers = np.where(at < warmup, rising, after)
    return factors


def _momenta(
    row: ScheduleRow, values: list[dict[str, Value]], length: int, at: NDArray[np.int64]
) -> Numbers:
    if row.momentum_formula not in _OVER_ARRAYS:
        momentum_fns = [row.momentum(one, length) for one in values]
        return _evaluate([momentum_fn for momentum_fn in momentum_fns if momentum_fn], at)
    warmup, rest = _split(values, length)
    x = np.clip((at - warmup) / rest, 0, 1)
    momenta: Numbers = _OVER_ARRAYS[row.momentum_formula](_columns(values), x)
    return momenta


def _evaluate(schedule_fns: Sequence[ScheduleFn], at: NDArray[np.int64]) -> Numbers:
    steps = at.tolist()
    return np.array([[schedule_fn(step) for step in steps] for schedule_fn in schedule_fns])


def _columns(values: list[dict[str, Value]]) -> dict[str, Numbers]:
    rows = [as_numbers(one) for one in values]
    return {name: np.array([[row[name]] for row in rows]) for name in rows[0]}


def _split(
    values: list[dict[str, Value]], length: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    pairs = np.array([split_steps(as_numbers(one), length) for one in values])
    return pairs[:, :1], pairs[:, 1:]
