from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.analysis.rate_range import DivergenceWatch, RateCurve

STEPS = 200
RATES = tuple(1e-6 * 10 ** (7 * step / (STEPS - 1)) for step in range(STEPS))


def valley(rate: float) -> float:
    """Returns a loss that falls from 1e-3 on, is least at 0.1 and grows above."""
    place = math.log10(rate)
    if place < -3:
        return 2.0
    return 2.0 - 0.75 * (place + 3) if place < -1 else 0.5 + 4 * (place + 1) ** 2


def curve(noise: float = 0.0, factor: float = 1.0, shift: float = 0.0) -> RateCurve:
    draws = random.Random(0)  # noqa: S311
    losses = [factor * (valley(rate) + draws.gauss(0, noise)) + shift for rate in RATES]
    return RateCurve("sgd", RATES, tuple(losses), diverged=False)


@pytest.mark.parametrize("noise", [0.0, 0.05])
def test_range_ends_where_the_loss_is_least_and_holds_where_it_falls(noise: float) -> None:
    found = curve(noise).find_range()
    assert found is not None
    assert 0.05 < found.high < 0.2
    assert 1e-4 < found.low < 3e-3
    assert 1e-3 <= found.steepest <= 0.1
    assert not found.open_below
    assert not found.open_above


@given(factor=st.floats(1e-3, 1e3), shift=st.floats(-100, 100))
def test_range_does_not_depend_on_the_loss_s_unit_or_zero(factor: float, shift: float) -> None:
    found, other = curve().find_range(), curve(0.0, factor, shift * factor / 100).find_range()
    assert found is not None
    assert other is not None
    assert other.axis == found.axis


@pytest.mark.parametrize("losses", [[1.0] * STEPS, [1.0 + 0.1 * (-1) ** n for n in range(STEPS)]])
def test_loss_that_does_not_fall_has_no_range(losses: list[float]) -> None:
    assert RateCurve("sgd", RATES, tuple(losses), diverged=True).find_range() is None


def test_growing_loss_and_few_steps_have_no_range() -> None:
    grown = tuple(1.0 + rate for rate in RATES)
    assert RateCurve("sgd", RATES, grown, diverged=True).find_range() is None
    assert RateCurve("sgd", RATES[:5], grown[:5], diverged=True).find_range() is None


@given(losses=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=60))
def test_any_losses_have_a_range_within_what_was_tested_or_none(losses: list[float]) -> None:
    rates = RATES[: len(losses)]
    found = RateCurve("sgd", rates, tuple(losses), diverged=False).find_range()
    if found is not None:
        assert found.high in rates
        assert 0 < found.low < found.high
        assert found.low / 2 < found.steepest <= found.high


def test_range_at_an_end_of_the_test_is_said_to_be_open() -> None:
    whole = curve()
    cut = next(at for at, rate in enumerate(RATES) if rate > 0.02)
    early = replace(whole, rates=RATES[:cut], losses=whole.losses[:cut]).find_range()
    assert early is not None
    assert early.open_above
    begin = next(at for at, rate in enumerate(RATES) if rate > 2e-3)
    late = replace(whole, rates=RATES[begin:], losses=whole.losses[begin:]).find_range()
    assert late is not None
    assert late.open_below


def test_axis_is_rounded_outward_to_two_digits() -> None:
    found = curve().find_range()
    assert found is not None
    axis = replace(found, low=0.001234, high=0.0987).axis
    assert (axis.low, axis.high, axis.log) == (0.0012, 0.099, True)
    exact = replace(found, low=0.001, high=0.1).axis
    assert (exact.low, exact.high) == (0.001, 0.1)


def steps_until_over(losses: list[float]) -> int | None:
    watch = DivergenceWatch()
    return next((step for step, loss in enumerate(losses) if watch.is_over(loss)), None)


def test_divergence_is_noise_neither_before_nor_after_the_fall() -> None:
    draws = random.Random(1)  # noqa: S311
    flat = [2 + draws.gauss(0, 0.2) for _ in range(500)]
    falling = [loss - at / 500 for at, loss in enumerate(flat)]
    assert steps_until_over(flat) is None
    assert steps_until_over(falling) is None
    grown = steps_until_over([*flat, *(2 + n**2 for n in range(50))])
    assert grown is not None
    assert grown > 500


@pytest.mark.parametrize("loss", [math.nan, math.inf])
def test_loss_that_is_not_finite_has_diverged(loss: float) -> None:
    assert steps_until_over([1.0, loss]) == 1


@given(shift=st.floats(-1e3, 1e3))
def test_divergence_does_not_depend_on_the_loss_s_zero(shift: float) -> None:
    losses = [5.0 - 0.01 * n if n < 200 else 3.0 + 0.2 * (n - 200) for n in range(400)]
    assert steps_until_over([loss + shift for loss in losses]) == steps_until_over(losses)
