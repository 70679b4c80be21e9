"""The budget of a study: whether its trials, training, wall time or search space are used up."""

from __future__ import annotations

from collections.abc import Collection

import sqlalchemy as sa

from tuner.domain.states import StudyState
from tuner.store.connection.database import Database
from tuner.store.events import record
from tuner.store.identity import StudyHandle, StudyRow, look_up
from tuner.store.leases.charges import WHOLE, count_fitting, fits, read_room
from tuner.store.leases.heartbeat import Alive, elapsed_s
from tuner.store.leases.rows import count_leases
from tuner.store.optuna import tables as ot
from tuner.store.tables import events


def is_used_up(
    connection: sa.Connection, study_row: StudyRow, started: int, alive: Alive | None = None
) -> bool:
    """Tells whether a study's budget allows no further trial, or nothing is left to try.

    Args:
        connection: An open transaction.
        study_row: The study as this transaction sees it.
        started: Number of trials that have started.
        alive: A worker that lives at this moment, if one asks.
    """
    return (
        started >= study_row.trials
        or find_exhausted(connection, study_row.uuid) is not None
        or is_out_of_time(connection, study_row, alive)
        or not fits(WHOLE, read_room(connection, study_row))
    )


def count_left(
    connection: sa.Connection,
    study_row: StudyRow,
    alive: Alive,
    *,
    given_up: Collection[int] | None = None,
    exhausted: bool = False,
) -> int:
    """Returns how many trials a study may still start.

    Args:
        connection: A transaction that has locked the study.
        study_row: The study as this transaction sees it.
        alive: The worker that asks.
        given_up: The numbers of the paused trials that no training is kept for; see
            :func:`tuner.store.leases.charges.read_room`.
        exhausted: Whether trials may start although nothing was found to be left to try.
    """
    if study_row.state is not StudyState.RUNNING or is_out_of_time(connection, study_row, alive):
        return 0
    if not exhausted and find_exhausted(connection, study_row.uuid) is not None:
        return 0
    left = max(0, study_row.trials - ot.count_trials(connection, study_row.study_id))
    room = read_room(connection, study_row, given_up)
    return left if room >= left else count_fitting(room)


def is_out_of_time(
    connection: sa.Connection, study_row: StudyRow, alive: Alive | None = None
) -> bool:
    """Tells whether a study's wall time is used up; for the arguments see :func:`is_used_up`."""
    limit_s = study_row.wall_time_s
    return limit_s is not None and elapsed_s(connection, study_row.uuid, alive)[0] >= limit_s


def is_done(database: Database, study: StudyHandle) -> bool:
    """Tells whether a study is over: no lease is left, and it was stopped or its budget is used up.

    Raises:
        NotFoundError: If the study has been deleted.
    """
    with database.read() as connection:
        return is_over(connection, look_up(connection, study))


def is_over(connection: sa.Connection, study_row: StudyRow) -> bool:
    """Tells whether a study is over, as :func:`is_done` does.

    Args:
        connection: An open transaction.
        study_row: The study as this transaction sees it.
    """
    if count_leases(connection, study_row.uuid):
        return False
    started = ot.count_trials(connection, study_row.study_id)
    return study_row.state is StudyState.STOPPED or is_used_up(connection, study_row, started)


def record_exhausted(
    connection: sa.Connection, study_uuid: str, worker_id: str, reason: str
) -> None:
    """Records, once, that nothing is left to try in a study; the study must be locked.

    It is an event, since a worker may not write a study's attributes.
    """
    if find_exhausted(connection, study_uuid) is None:
        record(connection, study_uuid, "exhausted", worker_id=worker_id, detail=reason)


def count_started_since_resumed(connection: sa.Connection, study_uuid: str) -> int | None:
    """Returns how many trials have started since a study was resumed; None if it never was."""
    of_study = events.c.study_uuid == study_uuid
    last = connection.execute(
        sa.select(sa.func.max(events.c.event_id)).where(
            of_study, events.c.number.is_(None), events.c.kind == "resumed"
        )
    ).scalar_one_or_none()
    if last is None:
        return None
    return connection.execute(
        sa.select(sa.func.count())
        .select_from(events)
        .where(of_study, events.c.kind == "started", events.c.event_id > last)
    ).scalar_one()


def find_exhausted(connection: sa.Connection, study_uuid: str) -> str | None:
    """Returns why nothing is left to try in a study, or too little to gain; None if neither.

    Whoever resumes the study has its workers try again.
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
    """Returns why nothing is left to try in a study, or None; see :func:`find_exhausted`."""
    with database.read() as connection:
        return find_exhausted(connection, study.uuid)


def read_elapsed_s(database: Database, study: StudyHandle) -> tuple[float, float]:
    """Returns how long a study has been worked on.

    Returns:
        Seconds during which at least one worker lived, and the seconds of all workers added up.
    """
    with database.read() as connection:
        return elapsed_s(connection, study.uuid)
