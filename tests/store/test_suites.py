from __future__ import annotations

import pytest
import sqlalchemy as sa

from tests.conftest import MakeSpec
from tests.store.renaming import rename
from tuner.domain.suite import SuitePlan
from tuner.errors import DamageWarning
from tuner.store import Database, Studies, StudyHandle
from tuner.store.optuna import tables as ot
from tuner.store.suites import SUITE, Member, find_members, find_studies, note_suite

PLAN = SuitePlan(
    name="mine", baseline="adam", optimizers=("sgd", "adam"), targets={"curve": 0.5, "own": None}
)


def test_a_study_notes_its_suite_and_the_latest_note_counts(
    database: Database, study: StudyHandle
) -> None:
    assert find_members(database) == []
    note_suite(database, study, PLAN, "curve")
    later = PLAN.model_copy(update={"baseline": "sgd"})
    note_suite(database, study, later, "curve")
    assert find_members(database) == [Member(later, "curve", "small")]
    assert find_studies(database, "mine") == {"curve": study}
    assert find_studies(database, "another") == {}


def test_a_study_that_is_renamed_stays_in_its_suite(database: Database, study: StudyHandle) -> None:
    note_suite(database, study, PLAN, "curve")
    assert rename(database, study, "renamed") == 201
    (found,) = find_studies(database, "mine").values()
    assert (found.name, found.uuid) == ("renamed", study.uuid)


def test_a_study_that_is_deleted_leaves_its_suite(database: Database, study: StudyHandle) -> None:
    note_suite(database, study, PLAN, "curve")
    Studies(database).delete(study)
    assert find_studies(database, "mine") == {}


@pytest.mark.parametrize(
    "note", ["{", "3", "{}", '{"plan": {"name": "mine"}, "workload": "curve"}']
)
def test_a_damaged_note_is_left_out_with_a_warning(
    database: Database, study: StudyHandle, make_spec: MakeSpec, note: str
) -> None:
    other = Studies(database).create(make_spec(study={"name": "other", "workload": "a.b:C"}))
    note_suite(database, study, PLAN, "curve")
    note_suite(database, other, PLAN, "own")
    with database.write() as connection:
        connection.execute(
            sa.update(ot.study_attributes)
            .where(ot.study_attributes.c.study_id == study.study_id)
            .where(ot.study_attributes.c.key == SUITE)
            .values(value_json=note)
        )
    with pytest.warns(DamageWarning, match="'small' is left out of its suite"):
        assert [member.workload for member in find_members(database)] == ["own"]
