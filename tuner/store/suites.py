"""The studies of a suite: each notes the suite that it belongs to, and which workload it is.

The note is an attribute of the study, so that a study that is renamed stays where it belongs.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from pydantic import ValidationError

from tuner.domain.suite import SuitePlan
from tuner.store.connection.database import Database
from tuner.store.damage import parse_value, warn_of_damage
from tuner.store.identity import StudyHandle, lock, set_attribute
from tuner.store.optuna import tables as ot
from tuner.store.studies import Studies

SUITE = "tuner:suite"
"""The attribute of a study of a suite: the suite's plan, and the name of the workload in it."""


@dataclass(frozen=True)
class Member:
    """A study that belongs to a suite.

    Attributes:
        plan: What the suite was scored by when the study was last run with it.
        workload: The name of its workload in the suite.
        study: The name of the study.
    """

    plan: SuitePlan
    workload: str
    study: str


def note_suite(database: Database, study: StudyHandle, plan: SuitePlan, workload: str) -> None:
    """Notes in a study which suite it belongs to, in place of an earlier note.

    Args:
        database: The database that holds the study.
        study: The study.
        plan: What the suite is scored by.
        workload: The name of the study's workload in the suite.

    Raises:
        NotFoundError: If the study has been deleted.
    """
    note = {"plan": plan.model_dump(mode="json"), "workload": workload}
    with database.write() as connection:
        set_attribute(connection, lock(connection, study).study_id, SUITE, note)


def find_members(database: Database) -> list[Member]:
    """Returns the studies of all suites of a database; notes that are damaged are left out.

    Args:
        database: The database.
    """
    noted = ot.study_attributes.c
    with database.read() as connection:
        rows = connection.execute(
            sa.select(ot.studies.c.study_name, noted.value_json)
            .join(ot.study_attributes, noted.study_id == ot.studies.c.study_id)
            .where(noted.key == SUITE)
            .order_by(ot.studies.c.study_id)
        ).all()
    members = [_read(name, parse_value(text)) for name, text in rows]
    return [member for member in members if member is not None]


def find_studies(database: Database, suite: str) -> dict[str, StudyHandle]:
    """Returns the studies of a suite by the name of the workload.

    Args:
        database: The database.
        suite: The suite's name.
    """
    found: dict[str, StudyHandle] = {}
    for member in find_members(database):
        if member.plan.name == suite and member.workload not in found:
            study = Studies(database).get(member.study)
            if study is not None:
                found[member.workload] = study
    return found


def _read(study: str, note: Any) -> Member | None:
    try:
        plan, workload = SuitePlan.model_validate(note["plan"]), note["workload"]
    except (ValidationError, TypeError, KeyError) as error:
        warn_of_damage(f"The study {study!r} is left out of its suite", error)
        return None
    return Member(plan, str(workload), study)
