from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tuner.domain.budget import Budget, evaluation_step, parse_duration


def evaluation_steps(total: int, evaluations: int) -> list[int]:
    return sorted({evaluation_step(k, total, evaluations) for k in range(1, evaluations + 1)})


def test_a_budget_without_a_length_has_ten_epochs() -> None:
    assert Budget(trials=3).epochs == 10


@pytest.mark.parametrize("given_lengths", [("steps",), ("epochs",), ("examples",)])
def test_a_budget_is_counted_in_one_unit(given_lengths: tuple[str, ...]) -> None:
    budget = Budget.model_validate(dict.fromkeys(given_lengths, 7))
    counted = [n for n in ("steps", "epochs", "examples") if getattr(budget, n) is not None]
    assert counted == list(given_lengths)


@pytest.mark.parametrize(
    "given_lengths",
    [("steps", "epochs"), ("steps", "examples"), ("epochs", "examples", "steps")],
)
def test_a_budget_counted_in_two_units_is_refused(given_lengths: tuple[str, ...]) -> None:
    with pytest.raises(ValidationError, match="exactly one of steps, epochs and examples"):
        Budget.model_validate(dict.fromkeys(given_lengths, 7))


@pytest.mark.parametrize(
    ("raw", "seconds"),
    [("90s", 90), ("30m", 1800), ("2h", 7200), ("1h30m", 5400), ("1.5d", 129_600), (12, 12)],
)
def test_a_duration_is_read_in_seconds(raw: object, seconds: float) -> None:
    assert parse_duration(raw) == seconds
    assert Budget.model_validate({"wall_time": raw}).wall_time == seconds


@settings(max_examples=50)
@given(st.integers(0, 99), st.integers(0, 99), st.integers(0, 99), st.integers(0, 99))
def test_a_duration_is_the_sum_of_its_parts(
    days: int, hours: int, minutes: int, seconds: int
) -> None:
    text = f"{days}d{hours}h{minutes}m{seconds}s"
    assert parse_duration(text) == ((days * 24 + hours) * 60 + minutes) * 60 + seconds


@pytest.mark.parametrize("raw", ["", "90", "1 h", "h", "1h30", "-5m", "1w", "5min"])
def test_text_that_is_no_duration_is_refused(raw: str) -> None:
    with pytest.raises(ValueError, match="is not a duration"):
        parse_duration(raw)


@pytest.mark.parametrize("raw", ["0s", 0, -1, True, float("inf")])
def test_a_wall_time_is_above_zero_and_finite(raw: object) -> None:
    with pytest.raises(ValidationError, match="wall_time"):
        Budget.model_validate({"wall_time": raw})


@settings(max_examples=50)
@given(total=st.integers(1, 1_000_000), evaluations=st.integers(1, 200))
def test_evaluations_rise_to_the_last_step(total: int, evaluations: int) -> None:
    steps = evaluation_steps(total, evaluations)
    assert steps == sorted(set(steps))
    assert steps[0] >= 1
    assert steps[-1] == total
    assert len(steps) == min(total, evaluations)


@settings(max_examples=50)
@given(total=st.integers(1, 100_000), evaluations=st.integers(1, 200))
def test_evaluations_are_spread_evenly(total: int, evaluations: int) -> None:
    steps = [0, *evaluation_steps(total, evaluations)]
    gaps = [later - earlier for earlier, later in itertools.pairwise(steps)]
    assert max(gaps) - min(gaps) <= 1


def test_full_trials_alone_leave_room_for_five_times_as_many_trials() -> None:
    assert Budget().trials == 60
    assert Budget(full_trials=20).trials == 100
    assert Budget(full_trials=1.1).trials == 6
    assert Budget(full_trials=20, trials=30).trials == 30
    assert Budget(full_trials=10**6).trials == 10**6
    assert "trials" not in Budget(full_trials=20).model_fields_set


@pytest.mark.parametrize("value", [0, 0.99, -1, math.nan, math.inf, 10**7, "20", True])
def test_full_trials_are_a_number_from_one_on(value: object) -> None:
    with pytest.raises(ValidationError):
        Budget(full_trials=value)  # type: ignore[arg-type]
