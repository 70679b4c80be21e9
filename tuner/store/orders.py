"""What a study asks of its workers: to go on, to wait, to end."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tuner.domain.states import StudyState
from tuner.store.connection.database import Database
from tuner.store.damage import parse_value
from tuner.store.identity import HOME, SPEC, STATE, UUID, StudyHandle, StudyRow, look_up
from tuner.store.leases.rows import count_leases
from tuner.store.leases.workers import Alive, elapsed_s
from tuner.store.optuna import tables as ot
from tuner.store.tables import events, workers


@dataclass(frozen=True)
class Orders:
    """What a worker is asked to do.

    Attributes:
        state: Whether the study goes on.
        out_of_time: Whether its wall time is used up.
        leaving: Whether this worker was asked to end.
    """

    state: StudyState
    out_of_time: bool
    leaving: bool


def read_orders(connection: sa.Connection, study: StudyHandle, worker: Alive) -> Orders:
    """Returns what a worker is asked to do, in one statement if the study has no wall time.

    Raises:
        NotFoundError: If the study has been deleted.
    """
    leaving = sa.select(workers.c.leaving).where(workers.c.worker_id == worker.worker_id)
    attributes = ot.study_attributes.c
    rows = connection.execute(
        sa.select(attributes.key, attributes.value_json, leaving.scalar_subquery()).where(
            attributes.study_id == study.study_id,
            attributes.key.in_((UUID, SPEC, HOME, STATE)),
        )
    ).all()
    study_row = StudyRow(study.study_id, {key: _from_json(value) for key, value, _ in rows})
    asked = any(row_asked for _, _, row_asked in rows)
    if study_row.attributes.get(UUID) != study.uuid or not study_row.is_home:
        study_row = look_up(connection, study)
        asked = bool(connection.execute(leaving).scalar_one_or_none())
    return Orders(study_row.state, is_out_of_time(connection, study_row, worker), asked)


def is_used_up(
    connection: sa.Connection, study_row: StudyRow, started: int, alive: Alive | None = None
) -> bool:
    """Tells whether a study's budget allows no further trial, or nothing is left to try.

    Args:
        connection: Where to ask.
        study_row: The study as this transaction sees it.
        started: Trials that have started.
        alive: A worker that lives at this moment.
    """
    return (
        started >= study_row.trials
        or find_exhausted(connection, study_row.uuid) is not None
        or is_out_of_time(connection, study_row, alive)
    )


def find_exhausted(connection: sa.Connection, study_uuid: str) -> str | None:
    """Returns why nothing is left to try in a study, or None; whoever resumes it has it try again.

    A worker says so in an event, since it may not write a study's attributes.
    """
    found = connection.execute(
        sa.select(events.c.kind, events.c.detail)
        .where(
            events.c.study_uuid == study_uuid,
            events.c.number.is_(None),
            events.c.kind.in_(("exhausted", "resumed")),
        )
        .order_by(events.c.event_id.desc())
        .limit(1)
    ).one_or_none()
    return found.detail if found is not None and found.kind == "exhausted" else None


def read_exhausted(database: Database, study: StudyHandle) -> str | None:
    """Returns what :func:`find_exhausted` does."""
    with database.read() as connection:
        return find_exhausted(connection, study.uuid)


def is_out_of_time(
    connection: sa.Connection, study_row: StudyRow, alive: Alive | None = None
) -> bool:
    """Tells whether a study's wall time is used up; see :func:`is_used_up`."""
    limit_s = study_row.wall_time_s
    return limit_s is not None and elapsed_s(connection, study_row.uuid, alive)[0] >= limit_s


def is_done(database: Database, study: StudyHandle) -> bool:
    """Tells whether nothing is held by anyone, and nothing is left to start or the study stopped.

    Raises:
        NotFoundError: If the study has been deleted.
    """
    with database.read() as connection:
        study_row = look_up(connection, study)
        if count_leases(connection, study.uuid):
            return False
        started = ot.count_trials(connection, study_row.study_id)
        return study_row.state is StudyState.STOPPED or is_used_up(connection, study_row, started)


def read_elapsed_s(database: Database, study: StudyHandle) -> tuple[float, float]:
    """Returns how long a study has been worked on.

    Returns:
        Seconds during which at least one worker lived, and the seconds of all workers added up.
    """
    with database.read() as connection:
        return elapsed_s(connection, study.uuid)


@functools.lru_cache(maxsize=16)
def _from_json(text: str) -> Any:
    return parse_value(text)
