"""What trials are ranked by: a metric, or the time until it reaches a target."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from tuner.domain.objective import (
    UNREACHED,
    follow,
    is_reached,
    reaches,
    tell_aim,
    tell_objective,
    tell_value,
    to_unreached,
    to_value,
)
from tuner.domain.study_file import parse_spec
from tuner.domain.study_section import StudySection
from tuner.errors import SpecError

METRICS = st.floats(-1e6, 1e6).map(lambda metric: round(metric, 3))


def section(**given: Any) -> StudySection:
    return StudySection.model_validate({"name": "small", "workload": "a:B", **given})


def timed(target: float = 0.5, **given: Any) -> StudySection:
    return section(objective="time_to_target", target=target, **given)


def test_without_a_target_the_metric_is_the_value() -> None:
    study = section(direction="maximize")
    assert to_value(study, 0.3, 20, 1.5) == to_unreached(study, 0.3) == 0.3
    assert not reaches(study, 1e9)
    assert (study.ranking, tell_objective(study)) == ("maximize", "val_loss")
    assert (tell_value(study, 0.3), tell_value(study, None)) == ("0.3", "–")


@pytest.mark.parametrize(("direction", "best"), [("minimize", 0.2), ("maximize", 0.4)])
def test_trial_stands_by_its_best_evaluation_where_the_study_says_so(
    direction: str, best: float
) -> None:
    study = section(direction=direction, rank_by="best")
    standing = follow(study, None, 0.3)
    for metric in (0.2, 0.4, 0.35, 0.25):
        standing = follow(study, standing, metric)
    assert standing == best
    assert tell_objective(study) == "best val_loss"
    assert tell_aim(study, "`") == f"{direction} `val_loss`, at each trial's best evaluation"


def test_best_evaluation_and_time_to_a_target_refuse_each_other() -> None:
    with pytest.raises(ValidationError, match="leave one of the two out"):
        timed(rank_by="best")


@pytest.mark.parametrize(
    ("direction", "below", "above"), [("minimize", True, False), ("maximize", False, True)]
)
def test_a_target_is_reached_from_its_own_side(direction: str, below: bool, above: bool) -> None:
    study = timed(direction=direction)
    assert [reaches(study, metric) for metric in (0.4, 0.5, 0.6)] == [below, True, above]
    assert study.ranking == "minimize"


def test_value_is_the_time_of_the_unit_asked_for() -> None:
    assert to_value(timed(), 0.5, 20, 1.5) == 20
    assert to_value(timed(unit="seconds"), 0.5, 20, 1.5) == 1.5
    assert tell_value(timed(), 12_000) == "12,000 steps"
    assert tell_value(timed(unit="seconds"), 1.5) == "1.5 s"
    assert tell_objective(timed()) == "steps to val_loss 0.5"
    assert tell_aim(timed(), "`") == "reach `val_loss 0.5` in few steps"


@given(metrics=st.lists(METRICS, min_size=2, max_size=2, unique=True))
@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_trials_that_do_not_reach_it_rank_behind_by_their_metric(
    direction: str, metrics: list[float]
) -> None:
    study = timed(target=2e6 if direction == "maximize" else -2e6, direction=direction)
    better, worse = sorted(metrics, reverse=direction == "maximize")
    assert UNREACHED <= to_value(study, better, 10**10, 1e9) <= to_unreached(study, worse)
    if max(map(abs, metrics)) < 1000:
        assert to_unreached(study, better) < to_unreached(study, worse)
    assert not is_reached(study, to_unreached(study, better))
    assert tell_value(study, to_unreached(study, worse)) == "not reached"


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"target": 0.5}, "target is set, but trials are ranked by the metric"),
        ({"unit": "seconds"}, "unit is set, but"),
        ({"objective": "time_to_target"}, "needs a target: add target = 0.1, the val_loss"),
        ({"objective": "time_to_target", "target": float("nan")}, "finite"),
        ({"objective": "time_to_target", "target": "low"}, "valid number"),
        ({"objective": "time", "target": 0.5}, "'metric' or 'time_to_target'"),
        ({"objective": "time_to_target", "target": 0.5, "unit": "epochs"}, "'steps' or 'seconds'"),
    ],
)
def test_nonsense_is_refused(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        section(**given)


def test_gaussian_processes_cannot_model_trials_without_a_time() -> None:
    tree = {
        "study": {"name": "small", "workload": "a:B", "objective": "time_to_target", "target": 1},
        "search": {"sampler": "gp"},
        "space": {"optimizers": ["sgd"], "schedules": ["constant"]},
    }
    with pytest.raises(SpecError, match="models times"):
        parse_spec(tree, origin="test")
