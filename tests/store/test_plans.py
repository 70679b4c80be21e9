from __future__ import annotations

import dataclasses

import pytest

from tuner.domain.fuse_plan import FusePlan
from tuner.errors import NotFoundError
from tuner.store import Database, Studies, StudyHandle
from tuner.store.plans import find_plan, keep_plan, read_plans

PLAN = FusePlan(64, compiled=True, single_s=1e-3, trials=1000, reason="quicker")


def test_a_study_has_no_plans_at_first(database: Database, study: StudyHandle) -> None:
    assert read_plans(database, study) == {}


def test_the_first_plan_for_a_device_counts(database: Database, study: StudyHandle) -> None:
    other = dataclasses.replace(PLAN, lanes=8)
    assert keep_plan(database, study, "auto on cpu", PLAN) == PLAN
    assert keep_plan(database, study, "auto on cpu", other) == PLAN
    assert keep_plan(database, study, "auto on H100", other) == other
    assert read_plans(database, study) == {"auto on cpu": PLAN, "auto on H100": other}


def test_another_budget_asks_for_another_plan(database: Database, study: StudyHandle) -> None:
    keep_plan(database, study, "auto on cpu", PLAN)
    extended = dataclasses.replace(PLAN, trials=2000)
    assert keep_plan(database, study, "auto on cpu", extended) == extended
    assert read_plans(database, study) == {"auto on cpu": extended}


def test_a_plan_is_found_by_what_was_asked_for(database: Database, study: StudyHandle) -> None:
    mine = dataclasses.replace(PLAN, trials=study.spec.budget.trials)
    keep_plan(database, study, "auto on cpu", PLAN)  # of another budget
    keep_plan(database, study, "8 on cpu", mine)
    assert find_plan(database, study, "8") == mine
    assert find_plan(database, study, "auto") is None


def test_a_deleted_study_has_no_plans(database: Database, study: StudyHandle) -> None:
    Studies(database).delete(study)
    with pytest.raises(NotFoundError, match="deleted"):
        read_plans(database, study)
    with pytest.raises(NotFoundError, match="deleted"):
        keep_plan(database, study, "auto on cpu", PLAN)
