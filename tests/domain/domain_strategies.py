"""Hypothesis strategies for axes and study files, for the tests of this folder."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
from hypothesis import strategies as st

from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Float, Int, Value
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES

finite = st.floats(allow_nan=False, allow_infinity=False)
values = st.one_of(st.booleans(), st.integers(), finite, st.text())


@st.composite
def float_ranges(draw: st.DrawFn) -> Float:
    low, high = sorted((draw(finite), draw(finite)))
    return Float(low=low, high=high, log=low > 0 and draw(st.booleans()))


@st.composite
def int_ranges(draw: st.DrawFn) -> Int:
    low, high = sorted((draw(st.integers()), draw(st.integers())))
    return Int(low=low, high=high, log=low > 0 and draw(st.booleans()))


choices = st.lists(values, min_size=1, max_size=5, unique_by=lambda v: (type(v), v)).map(
    lambda drawn: Choice(choices=tuple(drawn))
)
dimensions: st.SearchStrategy[Dimension] = st.one_of(
    float_ranges(), int_ranges(), choices, values.map(lambda value: Fixed(value=value))
)


@st.composite
def spec_trees(draw: st.DrawFn) -> dict[str, Any]:
    """Draws the tree of a valid study file, with or without overrides."""
    optimizers = draw(_some(OPTIMIZERS))
    schedules = draw(_some(SCHEDULES))
    lengths: tuple[dict[str, float], ...] = (
        {"steps": 40},
        {"epochs": 2},
        {"epochs": 0.5},
        {"examples": 999},
        {},
    )
    space: dict[str, Any] = {"optimizers": optimizers, "schedules": schedules}
    breadth = draw(st.sampled_from((None, 1, 2, 3)))
    if breadth is not None:
        space["breadth"] = breadth
    return {
        "study": {"name": "drawn", "workload": "models.digits:Digits"},
        "budget": {
            "trials": draw(st.integers(1, 300)),
            "evaluations": draw(st.integers(1, 30)),
            **draw(st.sampled_from(lengths)),
        },
        "space": space,
        "optimizer": {
            name: {OPTIMIZERS[name].rate: draw(learning_rates)}
            for name in optimizers
            if draw(st.booleans())
        },
        "train": {
            "batch_size": draw(st.sampled_from((32, "full", {"choices": [16, 64, "full"]}))),
            "average": draw(st.sampled_from(("none", "ema", {"choices": ["none", "ema", "swa"]}))),
        },
    }


learning_rates: st.SearchStrategy[Any] = st.one_of(
    st.floats(1e-6, 10.0),
    st.just(1),
    st.tuples(st.floats(1e-6, 1e-3), st.floats(1e-2, 1.0), st.booleans()).map(
        lambda drawn: {"low": drawn[0], "high": drawn[1], "log": drawn[2]}
    ),
    st.just({"choices": [0.1, 0.01, 1]}),
)


def is_within(value: object, axis: Dimension) -> bool:
    """Tells whether a value lies on an axis, up to rounding."""
    match axis:
        case Fixed():
            return value == axis.value
        case Choice():
            return value in axis.choices
        case Float() | Int():
            assert isinstance(value, int | float)
            low, high = float(axis.low), float(axis.high)
            near = math.isclose(value, low, rel_tol=1e-9) or math.isclose(value, high, rel_tol=1e-9)
            return low <= value <= high or near


def _some(catalog: Mapping[str, Any]) -> st.SearchStrategy[list[str]]:
    return st.lists(st.sampled_from(sorted(catalog)), min_size=1, max_size=4, unique=True)


def suggest_with(data: st.DataObject) -> Callable[..., Value]:
    """Returns a function that draws a value for an axis, as ``walk`` takes it."""

    def suggest(name: str, axis: Dimension) -> Value:
        match axis:
            case Float():
                return data.draw(st.floats(axis.low, axis.high))
            case Int():
                return data.draw(st.integers(axis.low, axis.high))
            case Choice():
                return data.draw(st.sampled_from(axis.choices))
            case Fixed():
                pytest.fail(f"{name} is fixed, so there is nothing to suggest")

    return suggest
