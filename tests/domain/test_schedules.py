from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuner.domain.dimensions import Choice, Float, Value
from tuner.domain.schedules import SCHEDULES, ScheduleRow


@st.composite
def settings_of(draw: st.DrawFn, row: ScheduleRow) -> dict[str, Value]:
    """Draws a point of a schedule's search space, in the form ``factor`` takes."""
    point: dict[str, Value] = {}
    for knob in row.hyperparameters:
        match knob.dimension:
            case Choice() as axis:
                point[knob.name] = draw(st.sampled_from(axis.choices))
            case Float() as axis:
                point[knob.name] = draw(st.floats(axis.low, axis.high))
        if knob.switch:
            point[knob.switch_name] = draw(st.booleans())
    return row.decode(point)


all_rows = pytest.mark.parametrize("row", SCHEDULES.values(), ids=list(SCHEDULES))


@all_rows
class TestEverySchedule:
    @settings(deadline=None, max_examples=50, derandomize=True)
    @given(data=st.data(), steps=st.integers(1, 2000))
    def test_its_factor_stays_above_zero_and_at_most_at_one(
        self, row: ScheduleRow, data: st.DataObject, steps: int
    ):
        factor = row.factor(data.draw(settings_of(row)), steps)
        assert all(0 < factor(step) <= 1 for step in range(steps))

    @settings(deadline=None, max_examples=50, derandomize=True)
    @given(data=st.data(), steps=st.integers(1, 500), warmup=st.floats(0.0, 1.0))
    def test_its_warmup_rises_linearly_to_one(
        self, row: ScheduleRow, data: st.DataObject, steps: int, warmup: float
    ):
        factor = row.factor(data.draw(settings_of(row)) | {"warmup": warmup}, steps)
        warm = round(warmup * steps)
        rising = [factor(step) for step in range(warm)]
        assert rising == pytest.approx([(step + 1) / warm for step in range(warm)])

    @settings(deadline=None, max_examples=50, derandomize=True)
    @given(data=st.data(), steps=st.integers(1, 500))
    def test_it_never_rises_after_its_warmup(
        self, row: ScheduleRow, data: st.DataObject, steps: int
    ):
        values = data.draw(settings_of(row))
        factor = row.factor(values, steps)
        after = [factor(step) for step in range(round(float(values["warmup"]) * steps), steps + 1)]
        assert after == sorted(after, reverse=True)

    @settings(deadline=None, max_examples=50, derandomize=True)
    @given(data=st.data(), steps=st.integers(1, 500), beyond=st.integers(0, 100))
    def test_it_keeps_its_last_factor_beyond_the_end(
        self, row: ScheduleRow, data: st.DataObject, steps: int, beyond: int
    ):
        factor = row.factor(data.draw(settings_of(row)), steps)
        assert factor(steps + beyond) == factor(steps)

    def test_without_warmup_it_starts_at_one(self, row: ScheduleRow):
        assert row.factor(row.decode({}), 100)(0) == 1.0

    def test_a_single_step_trains_at_the_full_rate(self, row: ScheduleRow):
        assert row.factor(row.decode({}), 1)(0) == 1.0

    def test_its_defaults_and_ranges_lie_within_their_bounds(self, row: ScheduleRow):
        for knob in row.hyperparameters:
            assert knob.default in knob.bounds
            assert knob.fit(knob.search_name, knob.dimension) == knob.dimension

    def test_it_says_what_it_is_and_how_it_is_searched(self, row: ScheduleRow):
        assert SCHEDULES[row.name] is row
        assert row.summary.endswith(".")
        assert row.equation
        assert row.reference
        assert row.hyperparameters[0].name == "warmup"
        assert all(knob.source for knob in row.hyperparameters)


@pytest.mark.parametrize(
    ("name", "values", "end"),
    [
        ("constant", {"warmup": 0.1}, 1.0),
        ("cosine", {"warmup": 0.0, "final_ratio": 0.0}, 0.0),
        ("cosine", {"warmup": 0.1, "final_ratio": 0.05}, 0.05),
        ("step", {"warmup": 0.0, "gamma": 0.1, "period": 0.5}, 0.01),
        ("step", {"warmup": 0.05, "gamma": 0.5, "period": 0.25}, 0.0625),
    ],
)
def test_it_ends_where_its_row_says(name: str, values: dict[str, Value], end: float):
    assert SCHEDULES[name].factor(values, 100)(100) == pytest.approx(end, abs=1e-15)


@pytest.mark.parametrize("period", [0.2, 0.25, 0.5])
@pytest.mark.parametrize("steps", [20, 100, 1000, 12_340])
def test_a_step_falls_exactly_on_each_multiple_of_its_period(period: float, steps: int):
    factor = SCHEDULES["step"].factor({"warmup": 0.0, "gamma": 0.5, "period": period}, steps)
    falls = [step for step in range(1, steps) if factor(step) < factor(step - 1)]
    assert falls == [round(k * period * steps) for k in range(1, round(1 / period))]


def test_cosine_is_halfway_down_in_the_middle():
    factor = SCHEDULES["cosine"].factor({"warmup": 0.0, "final_ratio": 0.2}, 100)
    assert factor(50) == pytest.approx(0.6)
