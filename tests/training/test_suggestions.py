"""What a loop may offer as a hyperparameter of its own, and what it is told otherwise."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest
from optuna.distributions import distribution_to_json, json_to_distribution

from tests.training.trials import make_spec
from tuner.domain.catalog.dimensions import Dimension, Value
from tuner.errors import WorkloadError
from tuner.search.distributions import to_distribution
from tuner.training.rehearsal import Rehearsal
from tuner.training.suggestions import Suggestions


class Last(Rehearsal):
    """Suggests the last choice, or the high end, by way of what the database keeps."""

    def suggest(self, name: str, axis: Dimension) -> Value:
        value = getattr(axis, "choices", [getattr(axis, "high", None)])[-1]
        drawn = to_distribution(axis)
        kept = json.loads(json.dumps(drawn.to_internal_repr(value)))
        found: Value = json_to_distribution(distribution_to_json(drawn)).to_external_repr(kept)
        return found


def suggestions() -> Suggestions:
    return Suggestions(make_spec(), {}, Last())


@pytest.mark.parametrize(
    "choices",
    [
        [64, None],
        [None],
        [1, 2.5, "a", False],
        [False, True],
        np.array([8, 16]),
        list(np.array([0.5, 0.25])),
        [np.bool_(True), np.bool_(False)],
        [10**30, 2**70],
    ],
    ids=str,
)
def test_a_choice_comes_back_as_it_was_offered(choices: Any) -> None:
    found = suggestions().suggest_categorical("width", choices)
    assert found == choices[-1] or found is choices[-1]
    assert type(found) in (int, float, str, bool, type(None))


def test_numpy_s_numbers_and_whole_floats_bound_ranges() -> None:
    # None of these is of the type that is written down; all are taken.
    asked = suggestions()
    assert asked.suggest_int("a", np.int64(8), np.int64(16)) == 16  # type: ignore[arg-type]
    assert asked.suggest_int("b", 8.0, 16.0) == 16  # type: ignore[arg-type]
    assert asked.suggest_float("c", np.float32(0.5), np.float64(2)) == 2.0  # type: ignore[arg-type]
    assert asked.suggest_int("d", 0, 2**53) == 2**53
    assert {type(value) for value in asked.own.values()} == {int, float}


@pytest.mark.parametrize(
    ("choices", "rule"),
    [
        ([(8, 8), (16, 16)], "(8, 8) is neither a number, a text, a switch nor None"),
        ([[8], [16]], "[8] is neither"),
        ([], "the list of choices is empty"),
        ("abc", "'abc' is no list of choices"),
        ({1, 2}, "{1, 2} is no list of choices"),
        ([1, 1.0, True], "the choices 1 and 1.0 are equal"),
        ([1, True], "the choices 1 and True are equal"),
        ([8.0, float("nan")], "nan is no finite number"),
        ([float("inf")], "inf is no finite number"),
    ],
    ids=str,
)
def test_choices_that_would_not_come_back_are_refused_in_one_line(choices: Any, rule: str) -> None:
    with pytest.raises(WorkloadError) as caught:
        suggestions().suggest_categorical("width", choices)
    assert str(caught.value).startswith("The hyperparameter 'width' cannot be suggested: ")
    assert rule in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("kind", "bounds", "rule"),
    [
        ("int", (16, 8), "low = 16 is above high = 8"),
        ("int", (8.5, 16), "8.5 is no whole number"),
        ("int", (0, 2**80), "lies beyond 2**53"),
        ("int", (False, True), "False is no whole number"),
        ("int", (0, float("nan")), "nan is no whole number"),
        ("int", ("8", 16), "'8' is no whole number"),
        ("int", (None, 16), "None is no whole number"),
        ("float", (2.0, 1.0), "low = 2 is above high = 1"),
        ("float", (0.0, float("nan")), "nan is no finite number"),
        ("float", (0.0, 10**400), "is no finite number"),
        ("float", ("a", 1.0), "'a' is no number"),
    ],
)
def test_a_range_that_breaks_a_rule_is_refused_in_one_line(
    kind: str, bounds: tuple[Any, Any], rule: str
) -> None:
    with pytest.raises(WorkloadError) as caught:
        getattr(suggestions(), f"suggest_{kind}")("width", *bounds)
    assert "'width'" in str(caught.value)
    assert rule in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_log_range_starts_above_zero() -> None:
    with pytest.raises(WorkloadError, match=r"'width' cannot be suggested: .* must start above 0"):
        suggestions().suggest_float("width", 0, 1, log=True)


def test_a_name_asked_for_twice_alike_has_one_value() -> None:
    asked = suggestions()
    assert asked.suggest_int("width", 8, 16) == asked.suggest_int("width", 8.0, np.int64(16))  # type: ignore[arg-type]


@pytest.mark.parametrize("again", [(100, 200), (8, 17)])
def test_a_name_asked_for_again_otherwise_is_refused_with_both(again: tuple[int, int]) -> None:
    asked = suggestions()
    asked.suggest_int("width", 8, 16)
    both = rf"'width' .* in int\[8, 16\] and now asks in int\[{again[0]}, {again[1]}\]"
    with pytest.raises(WorkloadError, match=both):
        asked.suggest_int("width", *again)
    with pytest.raises(WorkloadError, match=r"int\[8, 16\] and now asks in \{a, None\}"):
        asked.suggest_categorical("width", ["a", None])


@pytest.mark.parametrize("name", ["model.width", "a b", "", "lr", 7])
def test_a_name_is_a_plain_word_of_its_own(name: Any) -> None:
    with pytest.raises(WorkloadError, match="use a plain word"):
        suggestions().suggest_int(name, 8, 16)
