"""Steps and seconds until runs reach a target."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tests.report.summaries import make_spec, make_timed_spec, trial
from tuner.analysis.speed import choose_target, measure_speed
from tuner.domain.trials import Outcome, TrialRecord

SPEC = make_spec()


def runs(*ends: float | None) -> list[TrialRecord]:
    """Returns runs whose metric falls by a half per quarter of 40 steps to these values."""
    found = []
    for number, end in enumerate(ends):
        record = trial(number, "adam", end, Outcome.DIVERGED if end is None else Outcome.COMPLETE)
        curve = {} if end is None else {10: 8 * end, 20: 4 * end, 30: 2 * end, 40: end}
        found.append(replace(record, evaluations=curve))
    return found


def target_of(**ends: list[float | None]) -> tuple[float, str | None] | None:
    by_optimizer = {name: runs(*values) for name, values in ends.items()}
    target = choose_target(SPEC, by_optimizer, "adamw", seeds=True)
    return None if target is None else (target.value, target.reached_by)


def test_the_usual_choice_sets_the_target() -> None:
    assert target_of(sgd=[3.0], adamw=[2.0], adam=[1.0]) == (2.0, "adamw")


def test_without_it_the_optimizer_in_the_middle_does() -> None:
    assert target_of(sgd=[3.0], muon=[2.0], adam=[1.0]) == (2.0, "muon")
    assert target_of(sgd=[3.0], muon=[2.0], adam=[1.0], adamw=[None]) == (2.0, "muon")
    assert target_of(sgd=[3.0], adam=[1.0]) == (3.0, "sgd")


def test_half_of_the_runs_that_set_a_target_reach_it() -> None:
    assert target_of(adamw=[1.0, 2.0, 3.0, 4.0]) == (3.0, "adamw")
    speed = measured([1.0, 2.0, 3.0, 4.0], 3.0)
    assert (speed[0], speed[1] is not None) == (3, True)
    assert target_of(adamw=[1.0, None, None, 4.0]) is None


@pytest.mark.parametrize("ends", [{}, {"sgd": []}, {"sgd": [None]}])
def test_without_a_value_there_is_no_target(ends: dict[str, list[float | None]]) -> None:
    assert target_of(**ends) is None


def test_the_study_s_own_target_comes_first() -> None:
    target = choose_target(make_timed_spec(), {"adamw": runs(2.0)}, "adamw", seeds=False)
    assert target is not None
    assert (target.value, target.reached_by) == (0.5, None)


def measured(
    ends: list[float | None], value: float, direction: str = "minimize"
) -> tuple[int, float | None, float | None]:
    spec = make_spec(direction=direction)
    target = choose_target(spec, {"adamw": runs(value)}, "adamw", seeds=True)
    assert target is not None
    speed = measure_speed(spec, "adam", runs(*ends), target)
    assert speed.runs == len(ends)
    return speed.reached, speed.steps, speed.seconds


def test_time_runs_to_the_first_evaluation_that_reaches_it() -> None:
    # 40 steps take 2 seconds.
    assert measured([1.0], 1.0) == (1, 40.0, 2.0)
    assert measured([1.0], 2.5) == (1, 30.0, 1.5)
    assert measured([1.0, 1.0, 0.5], 2.0) == (3, 30.0, 1.5)


def test_a_run_that_does_not_reach_it_takes_forever() -> None:
    assert measured([1.0, 2.0], 1.0) == (1, None, None)
    assert measured([1.0, 1.0, 2.0], 1.0) == (2, 40.0, 2.0)
    assert measured([1.0, None, 1.0], 1.0) == (2, 40.0, 2.0)
    assert measured([], 1.0) == (0, None, None)


def test_a_metric_may_have_to_be_large() -> None:
    assert measured([1.0], 8.0, "maximize") == (1, 10.0, 0.5)
    assert measured([1.0], 9.0, "maximize") == (0, None, None)


def test_evaluations_are_counted_where_trials_are_told_in_epochs() -> None:
    spec = make_spec(budget={"trials": 20, "epochs": 2, "evaluations": 4})
    [run] = runs(1.0)
    run = replace(run, evaluations={1: 8.0, 2: 4.0, 3: 2.0, 4: 1.0})
    target = choose_target(spec, {"adamw": [run]}, "adamw", seeds=False)
    assert target is not None
    assert measure_speed(spec, "adam", [run], target).steps == 40.0
