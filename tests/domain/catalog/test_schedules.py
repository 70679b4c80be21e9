from __future__ import annotations

import itertools
import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.domain.catalog.dimensions import Choice, Fixed, Float, Value
from tuner.domain.catalog.schedule_functions import set_momentum
from tuner.domain.catalog.schedules import (
    SCHEDULES,
    USUAL_SCHEDULES,
    ScheduleRow,
    as_numbers,
    count_epochs,
    count_patience,
    split_steps,
)

RISING = {"cosine_restarts", "one_cycle", "cyclic"}
CONTINUOUS = set(SCHEDULES) - {"step", "multistep", "cosine_restarts"}


@st.composite
def settings_of(draw: st.DrawFn, row: ScheduleRow) -> dict[str, Value]:
    """Draws a point of a schedule's search space, in the form ``factor`` takes."""
    point: dict[str, Value] = {}
    for knob in row.hyperparameters:
        match knob.dimension:
            case Fixed() as axis:
                point[knob.name] = axis.value
            case Choice() as axis:
                point[knob.name] = draw(st.sampled_from(axis.choices))
            case Float() as axis:
                point[knob.name] = draw(st.floats(axis.low, axis.high))
        if knob.switch:
            point[knob.switch_name] = draw(st.booleans())
    return row.decode(point)


def rows(names: set[str]) -> pytest.MarkDecorator:
    chosen = [name for name in SCHEDULES if name in names]
    return pytest.mark.parametrize("row", [SCHEDULES[name] for name in chosen], ids=chosen)


quickly = settings(max_examples=50)


@rows(set(SCHEDULES))
class TestEverySchedule:
    @quickly
    @given(data=st.data(), steps=st.integers(1, 2000))
    def test_its_factor_stays_above_zero_and_at_most_at_one(
        self, row: ScheduleRow, data: st.DataObject, steps: int
    ) -> None:
        factor = row.factor(data.draw(settings_of(row)), steps)
        assert all(0 < factor(step) <= 1 for step in range(steps))

    @quickly
    @given(data=st.data(), steps=st.integers(1, 500), beyond=st.integers(0, 100))
    def test_it_keeps_its_last_factor_beyond_the_end(
        self, row: ScheduleRow, data: st.DataObject, steps: int, beyond: int
    ) -> None:
        factor = row.factor(data.draw(settings_of(row)), steps)
        assert factor(steps + beyond) == factor(steps)

    @quickly
    @given(data=st.data(), steps=st.integers(1, 500))
    def test_its_rate_reaches_the_top_once_at_least(
        self, row: ScheduleRow, data: st.DataObject, steps: int
    ) -> None:
        values = data.draw(settings_of(row)) | {"warmup": 0.0}
        top = max(row.formula(as_numbers(values), x / 1000) for x in range(1000))
        assert top == pytest.approx(1.0, abs=1e-3)

    @quickly
    @given(data=st.data())
    def test_it_follows_the_same_course_at_every_length(
        self, row: ScheduleRow, data: st.DataObject
    ) -> None:
        values = data.draw(settings_of(row)) | {"warmup": 0.0}
        short, long = row.factor(values, 100), row.factor(values, 1000)
        assert [short(step) for step in range(101)] == pytest.approx(
            [long(10 * step) for step in range(101)]
        )

    @quickly
    @given(data=st.data(), steps=st.integers(1, 500))
    def test_the_momentum_it_sets_stays_within_its_range(
        self, row: ScheduleRow, data: st.DataObject, steps: int
    ) -> None:
        values = data.draw(settings_of(row))
        momentum = row.momentum(values, steps)
        assert (momentum is None) == ("base_momentum" not in values)
        if momentum is not None:
            low, high = float(values["base_momentum"]), float(values["max_momentum"])
            course = [momentum(step) for step in range(steps + 10)]
            assert all(low - 1e-12 <= value <= high + 1e-12 for value in course)
            assert course[0] == pytest.approx(high)

    @quickly
    @given(data=st.data())
    def test_the_momentum_it_sets_goes_against_its_rate(
        self, row: ScheduleRow, data: st.DataObject
    ) -> None:
        values = data.draw(settings_of(row))
        factor, momentum = row.factor(values, 400), row.momentum(values, 400)
        warm = split_steps(as_numbers(values), 400)[0]
        peak = warm + float(values.get("pct_start", 0.0)) * (400 - warm)
        for step in range(warm, 400 if momentum else 0):
            assert momentum is not None
            if step < peak < step + 1:
                continue  # both turn within this step
            rise = factor(step + 1) - factor(step)
            assert rise * (momentum(step + 1) - momentum(step)) <= 0

    def test_its_defaults_and_ranges_lie_within_their_bounds(self, row: ScheduleRow) -> None:
        for knob in row.hyperparameters:
            assert isinstance(knob.default, int | float)
            assert knob.default in knob.bounds
            assert knob.fit(knob.search_name, knob.dimension) == knob.dimension

    def test_it_says_what_it_is_and_how_it_is_searched(self, row: ScheduleRow) -> None:
        assert SCHEDULES[row.name] is row
        assert row.summary.endswith(".")
        assert row.equation
        assert row.reference
        assert (row.hyperparameters[0].name == "warmup") == (row.name != "one_cycle")
        assert all(knob.source for knob in row.hyperparameters)


@rows(set(SCHEDULES) - {"one_cycle"})
class TestEveryScheduleWithWarmup:
    @quickly
    @given(data=st.data(), steps=st.integers(1, 500), warmup=st.floats(0.0, 1.0))
    def test_it_rises_linearly_to_where_its_shape_starts(
        self, row: ScheduleRow, data: st.DataObject, steps: int, warmup: float
    ) -> None:
        values = data.draw(settings_of(row)) | {"warmup": warmup}
        factor, start = row.factor(values, steps), row.formula(as_numbers(values), 0.0)
        warm = round(warmup * steps)
        rising = [factor(step) for step in range(warm)]
        assert rising == pytest.approx([start * (step + 1) / warm for step in range(warm)])


@rows(set(SCHEDULES) - RISING)
class TestEveryDecay:
    def test_without_warmup_it_starts_at_one(self, row: ScheduleRow) -> None:
        assert row.factor(row.decode({}), 100)(0) == 1.0

    def test_a_single_step_trains_at_the_full_rate(self, row: ScheduleRow) -> None:
        assert row.factor(row.decode({}), 1)(0) == 1.0

    @quickly
    @given(data=st.data(), steps=st.integers(1, 500))
    def test_it_never_rises_after_its_warmup(
        self, row: ScheduleRow, data: st.DataObject, steps: int
    ) -> None:
        values = data.draw(settings_of(row))
        factor = row.factor(values, steps)
        after = [factor(step) for step in range(round(float(values["warmup"]) * steps), steps + 1)]
        assert after == sorted(after, reverse=True)


@rows(CONTINUOUS)
@quickly
@given(data=st.data())
def test_its_shape_has_no_jumps(row: ScheduleRow, data: st.DataObject) -> None:
    values = as_numbers(data.draw(settings_of(row)))
    fine = 2000
    course = [row.formula(values, x / fine) for x in range(fine)]
    jumps = [abs(after - before) for before, after in itertools.pairwise(course)]
    # A root falls steeply at its very end, where 1 - x is the last piece.
    assert max(jumps) <= math.sqrt(1 / fine) + 1e-12


@pytest.mark.parametrize(
    ("name", "values", "end"),
    [
        ("constant", {"warmup": 0.1}, 1.0),
        ("cosine", {"warmup": 0.0, "final_ratio": 0.0}, 0.0),
        ("cosine", {"warmup": 0.1, "final_ratio": 0.05}, 0.05),
        ("step", {"warmup": 0.0, "gamma": 0.1, "period": 0.5}, 0.01),
        ("step", {"warmup": 0.05, "gamma": 0.5, "period": 0.25}, 0.0625),
        ("cosine_restarts", {"final_ratio": 0.2, "cycles": 3, "T_mult": 2}, 0.2),
        ("one_cycle", {}, 1 / 25e4),
        ("cyclic", {"half_cycle": 0.05, "base_ratio": 0.3}, 0.3),
        ("cyclic", {"half_cycle": 0.1, "base_ratio": 0.3}, 0.3),
        ("cyclic", {"half_cycle": 0.25, "base_ratio": 0.3}, 0.3),
        ("cyclic", {"half_cycle": 0.5, "base_ratio": 0.3}, 0.3),
        ("plateau", {"warmup": 0.1}, 1.0),
    ],
)
def test_it_ends_where_its_row_says(name: str, values: dict[str, Value], end: float) -> None:
    row = SCHEDULES[name]
    assert row.factor(row.decode(values), 100)(100) == pytest.approx(end, abs=1e-14)


@pytest.mark.parametrize("period", [0.2, 0.25, 0.5])
@pytest.mark.parametrize("steps", [20, 100, 1000, 12_340])
def test_a_step_falls_exactly_on_each_multiple_of_its_period(period: float, steps: int) -> None:
    factor = SCHEDULES["step"].factor({"warmup": 0.0, "gamma": 0.5, "period": period}, steps)
    falls = [step for step in range(1, steps) if factor(step) < factor(step - 1)]
    assert falls == [round(k * period * steps) for k in range(1, round(1 / period))]


def test_cosine_is_halfway_down_in_the_middle() -> None:
    factor = SCHEDULES["cosine"].factor({"warmup": 0.0, "final_ratio": 0.2}, 100)
    assert factor(50) == pytest.approx(0.6)


@pytest.mark.parametrize(
    ("cycles", "longer", "starts"), [(3, 1, [70, 140]), (3, 2, [30, 90]), (2, 3, [1]), (1, 2, [])]
)
def test_restarts_fall_exactly_between_the_cycles(
    cycles: int, longer: int, starts: list[int]
) -> None:
    steps = 4 if starts == [1] else 210
    values: dict[str, Value] = {
        "warmup": 0.0,
        "final_ratio": 0.0,
        "cycles": cycles,
        "T_mult": longer,
    }
    factor = SCHEDULES["cosine_restarts"].factor(values, steps)
    assert [step for step in range(1, steps) if factor(step) == 1.0] == starts


@pytest.mark.parametrize("longer", [1, 2, 1000])
def test_any_number_of_restarts_can_be_followed(longer: int) -> None:
    values: dict[str, Value] = {"final_ratio": 0.1, "cycles": 1000, "T_mult": longer}
    factor = SCHEDULES["cosine_restarts"].factor(values, 3000)
    assert all(0.1 <= factor(step) <= 1 for step in range(0, 3001, 300))
    assert factor(3000) == pytest.approx(0.1)


@pytest.mark.parametrize("peak", [0.1, 0.3, 0.5])
def test_one_cycle_peaks_where_it_is_told_to(peak: float) -> None:
    row = SCHEDULES["one_cycle"]
    values = row.decode({"pct_start": peak})
    factor, momentum = row.factor(values, 100), row.momentum(values, 100)
    assert momentum is not None
    assert factor(0) == pytest.approx(1 / 25)
    assert factor(round(100 * peak)) == 1.0
    assert momentum(round(100 * peak)) == pytest.approx(0.85)
    assert momentum(100) == pytest.approx(0.95)


def test_cyclic_goes_up_and_down_in_equal_halves() -> None:
    row = SCHEDULES["cyclic"]
    factor = row.factor(row.decode({"half_cycle": 0.25, "base_ratio": 0.5}), 8)
    assert [factor(step) for step in range(9)] == [0.5, 0.75, 1, 0.75, 0.5, 0.75, 1, 0.75, 0.5]


def test_momentum_waits_at_its_top_during_warmup() -> None:
    row = SCHEDULES["cyclic"]
    momentum = row.momentum(row.decode({"warmup": 0.1}), 100)
    assert momentum is not None
    assert {momentum(step) for step in range(11)} == {0.9}
    assert momentum(12) < 0.9


def test_momentum_is_set_where_there_is_one() -> None:
    groups: list[dict[str, Any]] = [
        {"momentum": 0.5},
        {"betas": (0.9, 0.99)},
        {"momentum": 0.0},
        {"betas": (0.0, 0.99)},
        {"momentum": 0, "betas": (0.9, 0.99, 0.999)},
        {"lr": 0.1},
    ]
    set_momentum(groups, 0.85)
    assert groups == [
        {"momentum": 0.85},
        {"betas": (0.85, 0.99)},
        {"momentum": 0.0},
        {"betas": (0.0, 0.99)},
        {"momentum": 0, "betas": (0.85, 0.99, 0.999)},
        {"lr": 0.1},
    ]


@pytest.mark.parametrize(
    ("patience", "evaluations", "count"), [(0.1, 10, 1), (0.3, 10, 3), (0.2, 50, 10), (0.1, 1, 1)]
)
def test_patience_is_a_share_of_the_evaluations(
    patience: float, evaluations: int, count: int
) -> None:
    assert count_patience({"patience": patience}, evaluations) == count


def test_an_epoch_that_begins_counts() -> None:
    assert [count_epochs(steps, 10) for steps in (1, 10, 11, 100)] == [1, 1, 2, 10]


def test_the_usual_schedules_are_in_the_catalog() -> None:
    assert set(USUAL_SCHEDULES) <= set(SCHEDULES)
