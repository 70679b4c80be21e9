from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.report.charts.scales import Scale, cap_values, even_values, fit_scale, write_value

POSITIVE = st.floats(1e-12, 1e12)
NUMBERS = st.floats(-1e9, 1e9)


@given(st.lists(POSITIVE, min_size=1), st.booleans())
def test_every_number_lies_on_the_scale_that_was_fitted_to_it(
    values: list[float], log: bool
) -> None:
    scale = fit_scale(values, log=log)
    assert all(scale.holds(value) for value in values)
    assert scale.low < scale.high


@given(st.lists(NUMBERS, min_size=2, unique=True), st.booleans())
def test_order_along_the_axis_is_that_of_the_numbers(values: list[float], log: bool) -> None:
    scale = fit_scale(values, log=log)
    places = [scale.place(value) for value in sorted(values)]
    assert places == sorted(places)
    assert all(0 <= place <= 1 for place in places)


@given(st.lists(NUMBERS, min_size=1))
def test_numbers_of_which_one_is_not_above_0_never_have_a_log_axis(values: list[float]) -> None:
    assert not fit_scale([*values, 0.0], log=True).log


@given(st.lists(POSITIVE, min_size=1), st.booleans())
def test_ticks_are_few_and_lie_on_the_axis(values: list[float], log: bool) -> None:
    scale = fit_scale(values, log=log)
    ticks = scale.ticks(5)
    assert 1 <= len(ticks) <= 12
    assert all(scale.holds(tick.value) for tick in ticks)
    assert len({tick.label for tick in ticks}) == len(ticks)


def test_a_wide_log_axis_names_powers_of_ten() -> None:
    assert [tick.label for tick in Scale(1e-4, 1, log=True).ticks()] == [
        *("0.0001", "0.001", "0.01", "0.1", "1"),
    ]


def test_a_log_axis_of_less_than_two_powers_names_numbers_between() -> None:
    assert [tick.label for tick in Scale(0.05, 0.6, log=True).ticks()] == [
        *("0.05", "0.1", "0.2", "0.5"),
    ]


def test_scale_of_nothing_and_of_one_number_are_scales() -> None:
    assert fit_scale([]).low < fit_scale([]).high
    assert fit_scale([0.0]).holds(0.0)
    assert 0 < fit_scale([3.0], log=True).place(3.0) < 1


@pytest.mark.parametrize("worse", [1, -1])
def test_values_far_off_are_left_out_on_the_worse_side_alone(worse: int) -> None:
    values = [worse * value for value in (-90.0, *range(1, 20), 1000.0)]
    cap = cap_values(values, log=False, worse=worse)
    assert cap == worse * 19


def test_nothing_is_left_out_of_few_values_or_alike_ones() -> None:
    assert cap_values([1, 2, 1e9], log=True, worse=1) is None
    assert cap_values([2.0] * 20, log=True, worse=1) is None


@given(NUMBERS.filter(lambda value: abs(value) > 1e-9))
def test_number_as_written_is_the_number_in_three_digits(value: float) -> None:
    read = float(write_value(value).replace(",", ""))
    assert math.isclose(read, value, rel_tol=6e-3)
    assert len(write_value(value)) <= 9


def test_even_values_are_round_and_inside() -> None:
    assert even_values(0.0, 1.0, 5) == [0.0, 0.25, 0.5, 0.75, 1.0]
    assert even_values(2.0, 2.0, 5) == [2.0]
