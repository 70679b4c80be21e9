from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Float, Int
from tuner.domain.catalog.hyperparameters import (
    ANYTHING,
    BELOW_ONE,
    FINE,
    FRACTION,
    LR,
    MAIN,
    NOT_NEGATIVE,
    POSITIVE,
    POSITIVE_FRACTION,
    Bounds,
    Hyperparameter,
    LogNormalPrior,
)

RANGE = Float(low=0.01, high=0.5, log=True)
PLAIN = Hyperparameter("lr", 0.1, RANGE, "here", LR, bounds=POSITIVE)
COMPLEMENT = Hyperparameter("beta1", 0.9, RANGE, "here", MAIN, bounds=BELOW_ONE, complement=True)
SWITCH = Hyperparameter("weight_decay", 0.0, RANGE, "here", FINE, switch=True)


@settings(max_examples=50)
@given(st.floats(1e-9, 1.0))
def test_a_complement_is_decoded_as_one_minus_the_value(searched: float) -> None:
    assert COMPLEMENT.decode({"one_minus_beta1": searched}) == 1 - searched


def test_a_complement_may_be_given_in_torch_s_form() -> None:
    assert COMPLEMENT.decode({"beta1": 0.7}) == 0.7


def test_a_switch_that_is_off_means_zero_whatever_the_value() -> None:
    assert SWITCH.decode({"use_weight_decay": False, "weight_decay": 0.3}) == 0.0


def test_a_switch_that_is_on_lets_the_value_through() -> None:
    assert SWITCH.decode({"use_weight_decay": True, "weight_decay": 0.3}) == 0.3


@pytest.mark.parametrize("knob", [PLAIN, COMPLEMENT, SWITCH])
def test_a_missing_value_means_the_default(knob: Hyperparameter) -> None:
    assert knob.decode({"other": 3.0}) == knob.default


@pytest.mark.parametrize("knob", [PLAIN, COMPLEMENT, SWITCH])
def test_a_narrower_search_fixes_the_default(knob: Hyperparameter) -> None:
    assert knob.axes(knob.breadth - 1) == {knob.name: Fixed(value=knob.default)}


def test_a_search_broad_enough_adds_the_axis_under_its_searched_name() -> None:
    assert PLAIN.axes(LR) == {"lr": RANGE}
    assert COMPLEMENT.axes(MAIN) == {"one_minus_beta1": RANGE}


def test_a_switch_comes_before_its_value() -> None:
    assert list(SWITCH.axes(FINE)) == ["use_weight_decay", "weight_decay"]
    assert SWITCH.axes(FINE)["use_weight_decay"] == Choice(choices=(False, True))


def test_a_complement_has_two_keys_and_others_one() -> None:
    assert COMPLEMENT.keys == ("beta1", "one_minus_beta1")
    assert PLAIN.keys == ("lr",)


@pytest.mark.parametrize(
    ("default", "axis", "rule"),
    [
        (0.1, Fixed(value=True), "True is not a number"),
        (0.1, Fixed(value="fast"), "'fast' is not a number"),
        (0.1, Choice(choices=(0.1, "fast")), "'fast' is not a number"),
        (True, Fixed(value=1), "1 is not true or false"),
        (True, Float(low=0, high=1), "is not true or false"),
        ("mean", Fixed(value=1.0), "1.0 is not text"),
    ],
)
def test_a_value_of_another_type_than_the_default_is_refused(
    default: bool | float | str, axis: Dimension, rule: str
) -> None:
    with pytest.raises(ValueError, match=rule):
        Hyperparameter("knob", default, RANGE, "here").fit("knob", axis)


@pytest.mark.parametrize(
    ("axis", "fitted"),
    [
        (Fixed(value=1), Fixed(value=1.0)),
        (Choice(choices=(1, 2)), Choice(choices=(1.0, 2.0))),
        (Int(low=1, high=8, log=True), Float(low=1.0, high=8.0, log=True)),
        (RANGE, RANGE),
    ],
)
def test_whole_numbers_become_real_where_the_default_is_real(
    axis: Dimension, fitted: Dimension
) -> None:
    assert repr(PLAIN.fit("lr", axis)) == repr(fitted)


def test_whole_numbers_stay_whole_where_the_default_is_whole() -> None:
    knob = Hyperparameter("period", 10, Int(low=1, high=20), "here")
    assert repr(knob.fit("period", Int(low=2, high=4))) == repr(Int(low=2, high=4))


def test_choices_that_become_equal_as_real_numbers_are_refused() -> None:
    with pytest.raises(ValueError, match="must all be different"):
        PLAIN.fit("lr", Choice(choices=(1, 1.0)))


def test_a_number_too_large_for_a_float_is_refused_with_a_value_error() -> None:
    with pytest.raises(ValueError, match=r".+"):
        PLAIN.fit("lr", Fixed(value=10**400))


@pytest.mark.parametrize(
    "axis",
    [
        Fixed(value=0.0),
        Fixed(value=1.5),
        Fixed(value=-0.1),
        Float(low=0.0, high=0.5),
        Float(low=0.5, high=1.01),
        Choice(choices=(0.1, 2)),
    ],
)
def test_a_complement_out_of_bounds_is_refused(axis: Dimension) -> None:
    with pytest.raises(ValueError, match="out of bounds: beta1 is at least 0 and below 1"):
        COMPLEMENT.fit("one_minus_beta1", axis)


def test_the_refusal_of_a_complement_says_what_its_value_means() -> None:
    with pytest.raises(ValueError, match=r"1\.5, which is 1 - beta1, is out of bounds"):
        COMPLEMENT.fit("one_minus_beta1", Fixed(value=1.5))


@pytest.mark.parametrize("axis", [Fixed(value=1), Float(low=1e-9, high=1.0), RANGE])
def test_a_complement_within_its_bounds_is_kept(axis: Dimension) -> None:
    assert COMPLEMENT.fit("one_minus_beta1", axis) == axis


def test_in_torch_s_form_the_same_bounds_hold_the_other_way_round() -> None:
    assert COMPLEMENT.fit("beta1", Fixed(value=0.0)) == Fixed(value=0.0)
    with pytest.raises(ValueError, match="1 is out of bounds: beta1 is at least 0 and below 1"):
        COMPLEMENT.fit("beta1", Fixed(value=1.0))


@pytest.mark.parametrize(
    "axis", [Fixed(value=0), Fixed(value=-0.1), Float(low=0, high=1), Choice(choices=(0.1, -1))]
)
def test_a_value_out_of_bounds_is_refused(axis: Dimension) -> None:
    with pytest.raises(ValueError, match="out of bounds: lr is above 0"):
        PLAIN.fit("lr", axis)


@settings(max_examples=50)
@given(st.floats(-2, 2) | st.sampled_from((0.0, 1.0)))
def test_bounds_hold_what_they_say(value: float) -> None:
    assert value in ANYTHING
    assert (value in POSITIVE) == (value > 0)
    assert (value in NOT_NEGATIVE) == (value >= 0)
    assert (value in BELOW_ONE) == (0 <= value < 1)
    assert (value in FRACTION) == (0 <= value <= 1)
    assert (value in POSITIVE_FRACTION) == (0 < value <= 1)


@pytest.mark.parametrize(
    ("bounds", "text"),
    [
        (POSITIVE, "above 0"),
        (NOT_NEGATIVE, "at least 0"),
        (BELOW_ONE, "at least 0 and below 1"),
        (POSITIVE_FRACTION, "above 0 and at most 1"),
    ],
)
def test_bounds_describe_themselves(bounds: Bounds, text: str) -> None:
    assert bounds.describe() == text


def test_a_prior_describes_itself() -> None:
    assert LogNormalPrior(-2.7, 1.42).describe() == "10^N(-2.7, 1.42)"
