"""The companion of a study: the study that confirms it.

They are linked by UUID, so that either may be renamed.
"""

from __future__ import annotations

import json

import sqlalchemy as sa

from tuner.store.connection.database import Database
from tuner.store.identity import CONFIRMS, StudyHandle
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
