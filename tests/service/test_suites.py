from __future__ import annotations

import pytest

from tests.conftest import MakeSpec
from tuner.domain.states import StudyState
from tuner.domain.suite import SuitePlan
from tuner.errors import NotFoundError
from tuner.service.suites import find_plan, find_study_name, read_suite_summary, renew_notes
from tuner.store import Database, Studies, StudyHandle
from tuner.store.control import set_state
from tuner.store.suites import note_suite

PLAN = SuitePlan(
    name="mine", baseline="adam", optimizers=("sgd", "adam"), targets={"curve": 0.5, "own": None}
)


@pytest.fixture
def study(database: Database, make_spec: MakeSpec) -> StudyHandle:
    tables = {"search": {"mode": "compare", "pruner": "none"}, "budget": {"trials": 8, "steps": 20}}
    created = Studies(database).create(make_spec(**tables))
    note_suite(database, created, PLAN, "curve")
    return created


def missing(database: Database) -> list[str]:
    return [workload.missing for workload in read_suite_summary(database, PLAN).workloads]


def test_what_each_workload_lacks_is_told(database: Database, study: StudyHandle) -> None:
    assert missing(database) == [
        "0 of 8 trials are over, and none has run again on fresh seeds",
        "it has no study yet",
    ]
    set_state(database, study, StudyState.STOPPED)
    assert missing(database)[0] == "its study was stopped after 0 of 8 trials"


def test_a_suite_is_found_by_its_name(database: Database, study: StudyHandle) -> None:
    assert find_plan(database, "mine") == PLAN
    with pytest.raises(NotFoundError, match=r"no suite 'min': did you mean 'mine'\?"):
        find_plan(database, "min")


def test_its_studies_are_told_of_a_new_plan(database: Database, study: StudyHandle) -> None:
    later = PLAN.model_copy(update={"baseline": "sgd"})
    renew_notes(database, later)
    assert find_plan(database, "mine") == later


def test_a_study_without_a_note_is_found_by_its_usual_name(
    database: Database, study: StudyHandle
) -> None:
    assert find_study_name(database, "mine", "curve", "mine.curve") == "small"
    assert find_study_name(database, "other", "curve", "small") == "small"
    assert find_study_name(database, "other", "curve", "other.curve") is None
