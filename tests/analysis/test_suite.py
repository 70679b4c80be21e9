from __future__ import annotations

import pytest

from tests.analysis.suites import (
    OPTIMIZERS,
    confirmation_of,
    even,
    falling,
    plan_of,
    result_of,
    spec_of,
    suite_of,
)
from tuner.analysis.suite import WorkloadResult, measure_workload, summarize_suite


def steps(result: WorkloadResult) -> dict[str, float | None]:
    return {standing.speed.optimizer: standing.speed.steps for standing in result.standings}


def test_the_median_run_tells_the_steps_to_a_given_target() -> None:
    curves = even(4, 6, 2) | {"muon": [falling(reaches=at) for at in (1, 2, 9)]}
    result = result_of(curves, plan_of(digits=0.1))
    assert steps(result) == {"adam": 40, "adamw": 60, "muon": 20}
    assert [standing.ratio for standing in result.standings] == [2, 3, 1]


def test_a_target_that_half_of_the_runs_do_not_reach_is_missed() -> None:
    late = [falling(reaches=5), falling(reaches=5), falling(reaches=5, end=0.2), None]
    result = result_of(even(4, 6, 2) | {"muon": late}, plan_of(digits=0.1))
    muon = result.standings[-1]
    assert (muon.speed.steps, muon.ratio, muon.speed.reached, muon.speed.runs) == (None, None, 2, 4)
    assert muon.value == pytest.approx(0.1)


@pytest.mark.parametrize("seeds", [3, 4, 5, 6])
def test_the_baseline_reaches_the_target_that_its_runs_set(seeds: int) -> None:
    ends = [falling(reaches=7, end=0.1 + seed / 100) for seed in range(seeds)]
    result = result_of(even(4, 6, 2) | {"adamw": ends})
    assert result.target is not None
    assert result.target.reached_by == "adamw"
    assert steps(result)["adamw"] == 70
    assert result.missing == ""


def test_a_metric_that_is_to_grow_is_reached_from_below() -> None:
    curves = {
        name: [[0.5, 0.6, 0.7 + bonus, *[0.7 + bonus] * 7]] * 3
        for name, bonus in (("adam", 0.1), ("adamw", 0.0), ("muon", -0.05))
    }
    result = result_of(curves, direction="maximize")
    assert steps(result) == {"adam": 30, "adamw": 30, "muon": None}


def test_without_runs_of_the_baseline_that_count_there_is_no_target() -> None:
    result = result_of(even(4, 6, 2) | {"adamw": [None, None, falling(reaches=2)]})
    assert result.target is None
    assert "no target" in result.missing
    assert summarize_suite(plan_of(), [result]).steps == ()


def test_an_optimizer_without_runs_has_missed_the_target() -> None:
    curves = even(4, 6, 2)
    del curves["muon"]
    result = result_of(curves)
    assert steps(result)["muon"] is None
    assert result.standings[-1].value is None


def test_seconds_count_where_no_run_shared_them() -> None:
    plan = plan_of(digits=0.1)
    alone = summarize_suite(plan, [result_of(even(4, 6, 2), plan)])
    assert [score.optimizer for score in alone.seconds] == ["muon", "adam", "adamw"]
    assert alone.workloads[0].standings[0].speed.seconds == pytest.approx(0.8)
    shared = summarize_suite(plan, [result_of(even(4, 6, 2), plan, lanes=3)])
    assert (shared.seconds, shared.fused) == ((), ("digits",))
    assert shared.steps == alone.steps


def test_scores_rest_on_the_workloads_that_are_scored() -> None:
    summary = suite_of(digits=even(4, 6, 2), parabola="it has no study yet")
    assert [workload.name for workload in summary.scored] == ["digits"]
    assert summary.steps[0].area == 1
    assert suite_of(parabola="it has no study yet").steps == ()


def test_a_study_of_other_optimizers_is_not_scored() -> None:
    plan = plan_of().model_copy(update={"optimizers": ("adamw", "sgd")})
    result = measure_workload(
        "digits", "mine.digits", spec_of(), confirmation_of(OPTIMIZERS), [], plan
    )
    assert result.missing == "its study compares adam, adamw, muon"
    assert summarize_suite(plan, [result]).steps == ()
