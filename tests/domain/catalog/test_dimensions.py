from __future__ import annotations

import json
import math
import tomllib

import pytest
import tomli_w
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tests.domain.domain_strategies import dimensions, finite
from tuner.domain.catalog.dimensions import (
    Choice,
    Dimension,
    Fixed,
    Float,
    Int,
    dump_dimension,
    format_value,
    parse_dimension,
)


@settings(max_examples=50)
@given(dimensions)
def test_what_is_dumped_parses_to_the_same_axis(axis: Dimension) -> None:
    # Fixed(1) == Fixed(1.0), so the texts are compared too.
    assert repr(parse_dimension(dump_dimension(axis))) == repr(axis)


@settings(max_examples=50)
@given(dimensions)
def test_an_axis_survives_json(axis: Dimension) -> None:
    assert repr(parse_dimension(json.loads(json.dumps(dump_dimension(axis))))) == repr(axis)


@settings(max_examples=50)
@given(dimensions)
def test_an_axis_survives_toml(axis: Dimension) -> None:
    text = tomli_w.dumps({"axis": dump_dimension(axis)})
    assert repr(parse_dimension(tomllib.loads(text)["axis"])) == repr(axis)


@settings(max_examples=50)
@given(dimensions)
def test_an_axis_parses_to_itself(axis: Dimension) -> None:
    assert parse_dimension(axis) is axis


@settings(max_examples=50)
@given(finite, finite)
def test_a_range_is_accepted_exactly_if_low_does_not_exceed_high(low: float, high: float) -> None:
    if low <= high:
        assert (Float(low=low, high=high).low, Float(low=low, high=high).high) == (low, high)
    else:
        with pytest.raises(ValidationError, match="swap them"):
            Float(low=low, high=high)


@pytest.mark.parametrize("kind", [Float, Int])
def test_a_range_upside_down_is_refused(kind: type[Float | Int]) -> None:
    with pytest.raises(ValidationError, match="low = 2 is above high = 1: swap them"):
        kind(low=2, high=1)


@pytest.mark.parametrize("kind", [Float, Int])
@pytest.mark.parametrize("low", [0, -1])
def test_a_log_range_starts_above_zero(kind: type[Float | Int], low: int) -> None:
    with pytest.raises(ValidationError, match="must start above 0"):
        kind(low=low, high=1, log=True)


def test_a_range_of_one_point_is_allowed() -> None:
    assert Float(low=0.5, high=0.5).describe() == "[0.5, 0.5]"


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("end", ["low", "high"])
def test_a_range_has_finite_ends(end: str, value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        parse_dimension({"low": 0.0, "high": 1.0} | {end: value})


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_a_fixed_value_is_finite(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        parse_dimension(value)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_choices_are_finite(value: float) -> None:
    with pytest.raises(ValueError, match="finite"):
        parse_dimension({"choices": [0.1, value]})


def test_two_equal_choices_are_refused() -> None:
    with pytest.raises(ValidationError, match="must all be different"):
        Choice(choices=(0.1, 0.2, 0.1))


def test_true_and_one_are_different_choices() -> None:
    assert Choice(choices=(True, 1, 1.0)).choices == (True, 1, 1.0)


def test_choices_hold_at_least_one() -> None:
    with pytest.raises(ValidationError, match="at least 1 item"):
        Choice(choices=())


@pytest.mark.parametrize(
    ("raw", "kind"),
    [
        ({"low": 1, "high": 8}, Int),
        ({"low": 1, "high": 8.0}, Float),
        ({"low": 1.0, "high": 8}, Float),
        ({"low": 1, "high": 8, "log": True}, Int),
        ({"choices": [1]}, Choice),
        (True, Fixed),
        ("text", Fixed),
    ],
)
def test_the_form_decides_the_kind_of_axis(raw: object, kind: type) -> None:
    assert type(parse_dimension(raw)) is kind


@pytest.mark.parametrize("raw", [None, [1, 2], {}, {"min": 1, "max": 2}, {"log": True}])
def test_another_form_is_refused_with_the_known_ones(raw: object) -> None:
    with pytest.raises(ValueError, match=r"must be a value, \{ choices"):
        parse_dimension(raw)


@pytest.mark.parametrize(
    "raw",
    [
        {"low": 1},
        {"low": True, "high": 2},
        {"low": "1", "high": 2},
        {"low": 1, "high": 2, "step": 1},
        {"choices": [1], "log": True},
        {"choices": "adam"},
    ],
)
def test_a_form_with_a_wrong_part_is_refused(raw: object) -> None:
    with pytest.raises(ValidationError):
        parse_dimension(raw)


def test_an_axis_cannot_be_changed() -> None:
    axis = Fixed(value=1)
    with pytest.raises(ValidationError, match="frozen"):
        axis.value = 2


@pytest.mark.parametrize(
    ("axis", "text"),
    [
        (Float(low=1e-4, high=0.1, log=True), "log[0.0001, 0.1]"),
        (Float(low=0, high=1), "[0, 1]"),
        (Int(low=1, high=20), "int[1, 20]"),
        (Int(low=1, high=20, log=True), "int log[1, 20]"),
        (Choice(choices=(0.0, 0.05, True)), "{0, 0.05, true}"),
        (Fixed(value=False), "false"),
    ],
)
def test_an_axis_describes_itself(axis: Dimension, text: str) -> None:
    assert axis.describe() == text


@settings(max_examples=50)
@given(st.floats(-1e12, 1e12))
def test_a_formatted_number_is_right_to_six_digits(value: float) -> None:
    assert float(format_value(value)) == pytest.approx(value, rel=1e-5)
