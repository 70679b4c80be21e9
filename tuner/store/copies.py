"""Copies of studies in other databases, or under other names, made whole or not at all.

A copy has an identity of its own, as its workers have, so that both can be worked on. Checkpoints
are files and stay: a trial that waits starts over in the copy.
"""

from __future__ import annotations

import json
import shlex
import uuid
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from tuner.errors import SpecError, StorageError
from tuner.store.connection.database import Database
from tuner.store.identity import CONFIRMS, HOME, SPEC, UUID, StudyHandle, look_up, set_attribute
from tuner.store.optuna import tables as ot
from tuner.store.studies import Studies
from tuner.store.tables import charges, curves, events, leases, plans, workers

_ROWS = 5_000
"""Rows that lie in memory at once."""


def copy_studies(
    source: Database, studies: Mapping[str, StudyHandle], target: Database
) -> list[StudyHandle]:
    """Copies studies as they are at one moment, with their trials, curves and events.

    What one of them has to do with another one, as a study that confirms it, the copies have too.

    Args:
        source: The database that holds them.
        studies: The studies, by the names of the copies.
        target: The database of the copies; it may be the same one.

    Returns:
        The copies, in the same order.

    Raises:
        SpecError: If a study of one of the names is there already.
        NotFoundError: If a study has been deleted.
        StorageError: If a value of one of them is damaged, or the database cannot be written.
    """
    identities = {study.uuid: uuid.uuid4().hex for study in studies.values()}
    try:
        with source.read() as read, target.write() as write:
            for name, study in studies.items():
                _Copy(read, write, identities).make(study, name)
    except StorageError as error:
        if isinstance(error.__cause__, IntegrityError):
            raise SpecError(
                f"{target.name}: there is a study of the name {' or '.join(map(repr, studies))} "
                "already. Choose another one with --as, or delete it with 'tuner study delete "
                f"{shlex.quote(next(iter(studies)))}'."
            ) from None
        raise
    except (LookupError, TypeError, ValueError) as error:
        raise StorageError(
            f"{source.name}: a value of the study is damaged and cannot be copied: {error}. "
            "Nothing has been copied. 'tuner study report' names what is damaged."
        ) from error
    return [Studies(target).find(name) for name in studies]


class _Copy:
    """Copies one study from one transaction to another.

    Args:
        read: The transaction that sees it.
        write: The one that writes the copy.
        identities: The identities of the copies, by those of the studies.
    """

    def __init__(
        self, read: sa.Connection, write: sa.Connection, identities: Mapping[str, str]
    ) -> None:
        self._read, self._write, self._identities = read, write, identities

    def make(self, study: StudyHandle, name: str) -> None:
        """Copies a study under a name."""
        study_id = look_up(self._read, study).study_id
        copy_id = self._copy_study(study_id, name)
        trials = self._copy_trials(study_id, copy_id)
        for table in ot.of_trials:
            of_study = table.c.trial_id.in_(
                sa.select(ot.trials.c.trial_id).where(ot.trials.c.study_id == study_id)
            )
            rows = self._rows(table, of_study, next(iter(table.primary_key)))
            self._insert(table, ({**row, "trial_id": trials[row["trial_id"]]} for row in rows))
        self._copy_ours(study.uuid)

    def _copy_study(self, study_id: int, name: str) -> int:
        result = self._write.execute(sa.insert(ot.studies).values(study_name=name))
        copy_id = int(result.inserted_primary_key[0])  # type: ignore[index]
        for table in ot.of_studies:
            rows = self._rows(table, table.c.study_id == study_id, next(iter(table.primary_key)))
            self._insert(table, ({**row, "study_id": copy_id} for row in rows))
        stored = {
            row.key: json.loads(row.value_json)
            for row in self._write.execute(
                sa.select(ot.study_attributes.c.key, ot.study_attributes.c.value_json).where(
                    ot.study_attributes.c.study_id == copy_id
                )
            )
        }
        spec: dict[str, Any] = stored[SPEC] | {"study": stored[SPEC]["study"] | {"name": name}}
        confirmed = self._identities.get(str(stored.get(CONFIRMS)))
        if confirmed is not None:
            spec |= {"confirmation": spec["confirmation"] | {"study": confirmed}}
            set_attribute(self._write, copy_id, CONFIRMS, confirmed)
        set_attribute(self._write, copy_id, SPEC, spec)
        set_attribute(self._write, copy_id, UUID, self._identities[stored[UUID]])
        set_attribute(self._write, copy_id, HOME, copy_id)
        return copy_id

    def _copy_trials(self, study_id: int, copy_id: int) -> dict[int, int]:
        """Copies the trials themselves; returns the ids of the copies."""
        numbers: dict[int, int] = {}
        rows = self._rows(ot.trials, ot.trials.c.study_id == study_id, ot.trials.c.trial_id)

        def copies() -> Iterator[dict[str, Any]]:
            for row in rows:
                numbers[row["number"]] = row.pop("trial_id")
                yield {**row, "study_id": copy_id}

        self._insert(ot.trials, copies())
        made = self._write.execute(
            sa.select(ot.trials.c.number, ot.trials.c.trial_id).where(
                ot.trials.c.study_id == copy_id
            )
        )
        return {numbers[row.number]: row.trial_id for row in made}

    def _copy_ours(self, study_uuid: str) -> None:
        """Copies what our own tables hold, and gives workers and leases new identities."""
        of_study = self._read.execute(
            sa.select(workers.c.worker_id).where(workers.c.study_uuid == study_uuid)
        )
        worker_ids: dict[str | None, str] = {
            worker_id: uuid.uuid4().hex for worker_id in of_study.scalars()
        }
        for table in (workers, leases, charges, curves, plans, events):
            order = next(iter(table.primary_key))
            rows = self._rows(table, table.c.study_uuid == study_uuid, order)
            self._insert(table, (self._renew(row, worker_ids) for row in rows))

    def _renew(
        self, row: Mapping[str, Any], worker_ids: Mapping[str | None, str]
    ) -> dict[str, Any]:
        copy = {**row, "study_uuid": self._identities[row["study_uuid"]]}
        if "worker_id" in row:
            copy["worker_id"] = worker_ids.get(row["worker_id"])
        if "token" in row:  # a lease, which nobody holds here and whose checkpoint is not here
            free = {"worker_id": None, "expires_at": 0.0, "step": 0, "attempts": 1}
            copy |= free | {"token": uuid.uuid4().hex, "checkpoint": None}
        return copy

    def _rows(
        self, table: sa.Table, chosen: sa.ColumnElement[bool], order: sa.ColumnElement[Any]
    ) -> Iterator[dict[str, Any]]:
        """Yields the rows of a table, without the ids that the database itself gives out."""
        found = self._read.execution_options(yield_per=_ROWS).execute(
            sa.select(table).where(chosen).order_by(order)
        )
        own = _own_key(table)
        for row in found.mappings():
            yield {key: value for key, value in row.items() if key != own}

    def _insert(self, table: sa.Table, rows: Iterable[dict[str, Any]]) -> None:
        batch: list[dict[str, Any]] = []
        for row in rows:
            batch.append(row)
            if len(batch) == _ROWS:
                self._write.execute(sa.insert(table), batch)
                batch = []
        if batch:
            self._write.execute(sa.insert(table), batch)


def _own_key(table: sa.Table) -> str | None:
    """Returns the name of the column that a database numbers rows by, unless others refer to it."""
    keys = list(table.primary_key)
    if table is ot.trials or len(keys) > 1 or not isinstance(keys[0].type, sa.Integer):
        return None
    return keys[0].name
