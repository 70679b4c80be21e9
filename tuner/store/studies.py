"""Studies in the database: created whole, found by name, extended, deleted."""

from __future__ import annotations

import json
import shlex
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial
from sqlalchemy.exc import IntegrityError

from tuner.domain.budget import Budget
from tuner.domain.names import suggest
from tuner.domain.regimes import SCRATCH
from tuner.domain.spec import StudySpec
from tuner.domain.study_file import parse_spec
from tuner.errors import NotFoundError, SpecError, StorageError
from tuner.store.connection.database import Database
from tuner.store.damage import damage_error
from tuner.store.identity import (
    CONFIRMS,
    HOME,
    SPEC,
    UUID,
    StudyHandle,
    dissolve_copies,
    is_copy,
    lock,
    look_up,
    read_attributes,
    set_attribute,
)
from tuner.store.leases.rows import assume_alive
from tuner.store.optuna import tables as ot
from tuner.store.overviews import CREATED, StudyOverview, list_names, list_overviews, read_overview
from tuner.store.tables import charges, curves, events, leases, plans, workers

Limit = float | str | None
"""A limit of a budget: in trials, full trials or seconds, None without one; or when it stops."""

_DIRECTIONS = {"minimize": StudyDirection.MINIMIZE, "maximize": StudyDirection.MAXIMIZE}


class Studies:
    """Creates, finds, changes and deletes the studies of a database.

    Args:
        database: The database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, spec: StudySpec, past: Sequence[FrozenTrial] = ()) -> StudyHandle:
        """Creates a study, with all its attributes in one transaction.

        Args:
            spec: A resolved spec.
            past: Trials of it that have ended elsewhere.

        Raises:
            SpecError: If the name is taken.
        """
        identity = uuid.uuid4().hex
        attributes: dict[str, Any] = {
            UUID: identity,
            SPEC: spec.to_json(),
            CREATED: datetime.now(UTC).isoformat(timespec="seconds"),
        }
        if spec.confirmation is not None:
            attributes[CONFIRMS] = spec.confirmation.study
        name, direction = spec.study.name, _DIRECTIONS[spec.study.ranking]
        try:
            with self._database.write() as connection:
                study_id = ot.insert_study(connection, name, direction, attributes)
                set_attribute(connection, study_id, HOME, study_id)
                ot.insert_ended(connection, study_id, past)
        except StorageError as error:
            if isinstance(error.__cause__, IntegrityError):
                raise SpecError(
                    f"{self._database.name}: there is a study {name!r} already. Choose another "
                    f"--name, or delete it with 'tuner study delete {shlex.quote(name)}'."
                ) from None
            raise
        return StudyHandle(name, study_id, identity, spec)

    def get(self, name: str) -> StudyHandle | None:
        """Returns the study of a name, or None if there is none.

        Raises:
            NotFoundError: If the study of that name was not made by tuner.
        """
        with self._database.read() as connection:
            study_id = connection.execute(
                sa.select(ot.studies.c.study_id).where(ot.studies.c.study_name == name)
            ).scalar_one_or_none()
            if study_id is None:
                return None
            attributes = read_attributes(connection, study_id)
        if SPEC not in attributes:
            raise NotFoundError(
                f"The study {name!r} was not made by tuner; see it with 'tuner dashboard'."
            )
        spec = _parse(attributes[SPEC], f"study {name!r} in {self._database.name}")
        return StudyHandle(name, study_id, attributes.get(UUID, ""), spec)

    def find(self, name: str) -> StudyHandle:
        """Returns the study of a name.

        Raises:
            NotFoundError: If there is none, with the nearest name.
        """
        study = self.get(name)
        if study is not None:
            return study
        with self._database.read() as connection:
            names = list(connection.execute(sa.select(ot.studies.c.study_name)).scalars())
        raise NotFoundError(
            f"{self._database.name} has no study {name!r}"
            + (f": {suggest(name, names)}" if names else ": it has none at all.")
        )

    def extend(
        self, study: StudyHandle, change: Callable[[Budget], Mapping[str, Limit]]
    ) -> StudyHandle:
        """Gives a study another budget; running workers see it at their next trial.

        Args:
            study: The study.
            change: Returns, for the current budget, new limits by name; the others stay. It is
                called while the study is locked.

        Raises:
            NotFoundError: If the study has been deleted.
        """
        with self._database.write() as connection:
            study_row = lock(connection, study)
            spec = _parse(study_row.attributes[SPEC], f"study {study.name!r}")
            limits = dict(change(spec.budget))
            if limits:
                spec = spec.with_budget(spec.budget.model_copy(update=limits))
                set_attribute(connection, study_row.study_id, SPEC, spec.to_json())
        return StudyHandle(study.name, study_row.study_id, study.uuid, spec)

    def refresh(self, study: StudyHandle) -> StudyHandle:
        """Returns a study as it is now, since it may have been extended or renamed.

        Raises:
            NotFoundError: If it has been deleted.
        """
        with self._database.read() as connection:
            study_row = look_up(connection, study)
            name = connection.execute(
                sa.select(ot.studies.c.study_name).where(
                    ot.studies.c.study_id == study_row.study_id
                )
            ).scalar_one()
        spec = _parse(study_row.attributes[SPEC], f"study {name!r}")
        return StudyHandle(name, study_row.study_id, study.uuid, spec)

    def count_trials(self, study: StudyHandle) -> int:
        """Returns the number of trials of a study that have started; a copy has its own."""
        with self._database.read() as connection:
            return ot.count_trials(connection, study.study_id)

    def delete(self, study: StudyHandle) -> bool:
        """Deletes a study and all its records; if it is a copy, only the copy.

        Returns:
            Whether it was the study itself, and no copy.
        """
        with self._database.write() as connection:
            home = lock(connection, study).study_id
            if is_copy(connection, study, home):
                ot.delete_study(connection, study.study_id)
                return False
            dissolve_copies(connection, study, home)
            for table in (leases, charges, workers, curves, events, plans):
                connection.execute(sa.delete(table).where(table.c.study_uuid == study.uuid))
            ot.delete_study(connection, home)
        return True

    def look(
        self, study: StudyHandle, is_dead: Callable[[str], bool] = assume_alive
    ) -> StudyOverview:
        """Returns the line of one study in the list of studies; see :meth:`list`.

        Raises:
            NotFoundError: If the study has been deleted.
        """
        with self._database.read() as connection:
            study_id = look_up(connection, study).study_id
            overview = read_overview(connection, study_id, study.name, is_dead)
        if overview is None:
            raise NotFoundError(f"The study {study.name!r} has been deleted.")
        return overview

    def names(self) -> Sequence[str]:
        """Returns the names of the studies that :meth:`list` lists, in order; it is quicker."""
        with self._database.read() as connection:
            return list_names(connection)

    def count_others(self) -> int:
        """Returns the number of studies in the database that tuner has not made."""
        ours = sa.select(ot.study_attributes.c.study_id).where(ot.study_attributes.c.key == SPEC)
        others = sa.select(sa.func.count()).where(ot.studies.c.study_id.not_in(ours))
        with self._database.read() as connection:
            return connection.execute(others).scalar_one()

    def trace(self, uuids: Collection[str]) -> Mapping[str, bool]:
        """Returns which of some studies this database has held: True where it still does.

        A study that others than tuner deleted leaves its workers behind. One that tuner deleted
        leaves nothing, as one that was never here.
        """
        stored = {json.dumps(uuid): uuid for uuid in uuids}
        kept = ot.study_attributes.c
        is_held = sa.select(kept.value_json).where(kept.key == UUID)
        worked = sa.select(workers.c.study_uuid).distinct()
        with self._database.read() as connection:
            held = {stored.get(row.value_json) for row in connection.execute(is_held)}
            known = {row.study_uuid for row in connection.execute(worked)}
        return {uuid: uuid in held for uuid in uuids if uuid in held or uuid in known}

    def list(self, is_dead: Callable[[str], bool] = assume_alive) -> list[StudyOverview]:
        """Returns every study made by tuner, by name, but those that wait to confirm another one.

        Args:
            is_dead: Returns for a worker's id whether its process is known to have died; without
                it, a worker counts as alive until its lease expires.
        """
        with self._database.read() as connection:
            return list_overviews(connection, is_dead)


def _parse(stored: Any, origin: str) -> StudySpec:
    if not isinstance(stored, dict):
        raise damage_error(f"The spec of the {origin}", stored)
    for table, values in _BEFORE.items():
        own = stored.get(table, {})
        if isinstance(own, dict):
            stored = stored | {table: values | own}
    return parse_spec(stored, origin=origin)


_BEFORE: dict[str, dict[str, Any]] = {
    "search": {"portfolio": False, "spare": 2},
    "space": {"regime": SCRATCH},
}
"""The values of keys that older versions did not know, for the specs that these stored."""
