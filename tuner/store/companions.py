"""The companion of a study: the study that confirms it.

They are linked by UUID, so that either may be renamed. A companion is made with its study, and
waits until somebody writes its finalists, once the search is over.
"""

from __future__ import annotations

import json

import sqlalchemy as sa

from tuner.domain.confirmation import Confirm, Confirmation
from tuner.domain.states import StudyState
from tuner.store.connection.database import Database
from tuner.store.finalists import is_waiting, write_finalists
from tuner.store.identity import (
    CONFIRMS,
    SPEC,
    StudyHandle,
    lock,
    match_uuid,
    set_attribute,
)
from tuner.store.leases.budget import is_over
from tuner.store.optuna import tables as ot
from tuner.store.studies import Studies


def find_companion(database: Database, study: StudyHandle) -> StudyHandle | None:
    """Returns the study that confirms another one, the latest if there are several, or None.

    What only says that it does, and has no finalists of that study, is none.

    Args:
        database: The database that holds both.
        study: The study that is confirmed.
    """
    noted = ot.study_attributes.c
    with database.read() as connection:
        names = connection.execute(
            sa.select(ot.studies.c.study_name)
            .join(ot.study_attributes, noted.study_id == ot.studies.c.study_id)
            .where(noted.key == CONFIRMS, noted.value_json == json.dumps(study.uuid))
            .order_by(ot.studies.c.study_id.desc())
        ).scalars()
        found = list(names)
    companion = Studies(database).get(found[0]) if found else None
    if companion is None or companion.spec.confirmation is None:
        return None
    return companion if companion.spec.confirmation.study == study.uuid else None


def find_confirmed(database: Database, companion: StudyHandle) -> str | None:
    """Returns the name of the study that a companion confirms; None if it has been deleted.

    Args:
        database: The database that holds both.
        companion: The study that confirms.
    """
    confirmation = companion.spec.confirmation
    if confirmation is None:
        return None
    with database.read() as connection:
        return connection.execute(
            sa.select(ot.studies.c.study_name)
            .join(ot.study_attributes, ot.study_attributes.c.study_id == ot.studies.c.study_id)
            .where(*match_uuid(confirmation.study))
            .order_by(ot.studies.c.study_id)
            .limit(1)
        ).scalar_one_or_none()


def begin(
    database: Database,
    study: StudyHandle,
    companion: StudyHandle,
    confirmation: Confirmation,
    *,
    stopped: bool = False,
) -> StudyHandle | None:
    """Writes the finalists of a study into its companion, unless that has some, and returns it.

    However many processes do so at a time, the finalists of the first count.

    Args:
        database: The database that holds both.
        study: The study that is confirmed.
        companion: The study that confirms it.
        confirmation: The finalists.
        stopped: Whether they run again also if somebody has stopped the search.

    Returns:
        The companion with its finalists; None if the search is not over, or was stopped.

    Raises:
        NotFoundError: If one of them has been deleted.
    """
    with database.write() as connection:
        # Whoever stops or extends the study waits for this, or this for them.
        searched = lock(connection, study)
        may_begin = searched.state is StudyState.RUNNING or stopped
        if not may_begin or not is_over(connection, searched):
            return None
        if is_waiting(lock(connection, companion).attributes[SPEC]):
            write_finalists(connection, companion.uuid, confirmation)
    return Studies(database).refresh(companion)


def change_confirm(database: Database, companion: StudyHandle, confirm: Confirm) -> StudyHandle:
    """Changes how a study will be confirmed, as long as its companion waits, and returns that.

    Args:
        database: The database that holds it.
        companion: The study that confirms.
        confirm: How the finalists are to be chosen, and how often they run again.

    Raises:
        NotFoundError: If it has been deleted.
    """
    with database.write() as connection:
        study_row = lock(connection, companion)
        spec = study_row.attributes[SPEC]
        if is_waiting(spec):
            changed = spec | {"confirm": confirm.model_dump(mode="json")}
            set_attribute(connection, study_row.study_id, SPEC, changed)
    return Studies(database).refresh(companion)
