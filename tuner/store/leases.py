"""Leases as rows: granted, seized from who is gone, and what becomes of their trials.

What changes something here runs inside a transaction that has locked the study.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from tuner.domain.states import StudyState
from tuner.store import optuna_tables as ot
from tuner.store.database import Database
from tuner.store.events import record, select_events
from tuner.store.identity import Present, StudyHandle
from tuner.store.tables import DatabaseClock, leases

LEASE_S = 300.0
"""How long a lease counts without being renewed, in seconds."""

MAX_ATTEMPTS = 3
"""How often a trial is tried without getting further before it is failed."""

_TOLD = 6
"""How many events a failed trial's error tells."""


@dataclass(frozen=True)
class Lease:
    """The right to work on a trial.

    Attributes:
        number: The trial's number in its study.
        token: What every write about it must show.
        attempt: Which attempt this is since it last got further, from 1.
        checkpoint: The token of the holder whose checkpoint counts, None before the first.
    """

    number: int
    token: str
    attempt: int
    checkpoint: str | None = None


class Fate(StrEnum):
    """What becomes of a trial that is taken from who held it."""

    TAKEN = "taken"
    """It can be worked on."""

    FAILED = "failed"
    """It had been tried too often."""

    STOPPED = "stopped"
    """The study was stopped, so it ends with what it has."""

    OVER = "over"
    """It is not running: it ended otherwise, or is not there any more."""


def grant(
    connection: sa.Connection, study_uuid: str, number: int, worker_id: str | None, lease_s: float
) -> Lease:
    """Enters the lease of a trial that has just started; nobody holds it without a worker."""
    token = uuid.uuid4().hex
    terms = {
        "token": token,
        "worker_id": worker_id,
        "expires_at": DatabaseClock() + lease_s,
        "step": 0,
        "attempts": 1,
        "checkpoint": None,
    }
    # A trial that was lost in a renaming can have left the lease of its number behind.
    connection.execute(
        ot.insert_into(connection, leases)
        .values(study_uuid=study_uuid, number=number, **terms)
        .on_conflict_do_update(index_elements=["study_uuid", "number"], set_=terms)
    )
    return Lease(number, token, 1)


def is_of(study_uuid: str, number: int, token: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Returns what holds of the row of a lease that still counts."""
    return (
        leases.c.study_uuid == study_uuid,
        leases.c.number == number,
        leases.c.token == token,
    )


def read_leases(connection: sa.Connection, study_uuid: str) -> list[sa.Row[Any]]:
    """Returns every lease of a study by number, and whether it has ``expired``."""
    return list(
        connection.execute(
            sa.select(leases, (leases.c.expires_at < DatabaseClock()).label("expired"))
            .where(leases.c.study_uuid == study_uuid)
            .order_by(leases.c.number)
        )
    )


def read_held(
    database: Database, study: StudyHandle, is_dead: Callable[[str], bool]
) -> frozenset[int]:
    """Returns the numbers of the trials that somebody trains.

    Args:
        database: Where the study is.
        study: The study.
        is_dead: Tells of a worker's id whether its process is known to have died.
    """
    with database.read() as connection:
        return find_held(connection, study.uuid, is_dead)


def find_held(
    connection: sa.Connection, study_uuid: str, is_dead: Callable[[str], bool]
) -> frozenset[int]:
    """Returns what :func:`read_held` does, within a transaction."""
    rows = read_leases(connection, study_uuid)
    return frozenset(row.number for row in rows if not is_abandoned(row, is_dead))


def count_leases(connection: sa.Connection, study_uuid: str) -> int:
    """Returns how many trials of a study are not finished."""
    return connection.execute(
        sa.select(sa.func.count()).select_from(leases).where(leases.c.study_uuid == study_uuid)
    ).scalar_one()


def is_abandoned(row: sa.Row[Any], is_dead: Callable[[str], bool], *, expired: bool = True) -> bool:
    """Tells whether nobody works on a trial any more: released, expired, or its worker dead."""
    return row.worker_id is None or (expired and bool(row.expired)) or is_dead(row.worker_id)


def none_is(worker_id: str) -> bool:
    """Knows of no worker that it has died: its lease has to expire."""
    return False


def seize(
    connection: sa.Connection,
    present: Present,
    row: sa.Row[Any],
    *,
    attempt: int,
    worker_id: str | None = None,
    lease_s: float = 0.0,
) -> tuple[Fate, Lease] | None:
    """Takes a trial from whoever held it, unless something has happened to it since it was read.

    A trial that cannot be worked on any more is ended instead: one that has been tried too often,
    and any in a study that was stopped. Of one that is over already the lease goes.

    Args:
        connection: In a transaction.
        present: The study.
        row: The lease as :func:`read_leases` read it.
        attempt: Which attempt this is.
        worker_id: Who takes it, None to give it back for anyone.
        lease_s: How long the lease counts, in seconds.

    Returns:
        What becomes of it, and its lease; None if something has happened to it.
    """
    token = uuid.uuid4().hex
    seized = connection.execute(
        sa.update(leases)
        .where(
            *is_of(row.study_uuid, row.number, row.token),
            leases.c.expires_at == row.expires_at,
            leases.c.worker_id.is_not_distinct_from(row.worker_id),
        )
        .values(
            token=token,
            worker_id=worker_id,
            expires_at=DatabaseClock() + lease_s,
            attempts=attempt,
        )
    )
    if seized.rowcount != 1:
        return None
    lease = Lease(row.number, token, attempt, row.checkpoint)
    trial_id = find_running(connection, present.study_id, row.number)
    if trial_id is None:
        connection.execute(sa.delete(leases).where(*is_of(row.study_uuid, row.number, token)))
        return Fate.OVER, lease
    if present.state is StudyState.STOPPED:
        _end(connection, row, trial_id, TrialState.PRUNED, {"stopped_by": "stop"})
        return Fate.STOPPED, lease
    if attempt > MAX_ATTEMPTS:
        history = _tell_attempts(connection, row)
        _end(connection, row, trial_id, TrialState.FAIL, {"error": history})
        detail = f"{row.attempts} attempts did not get past step {row.step}"
        record(connection, row.study_uuid, "failed_attempts", number=row.number, detail=detail)
        return Fate.FAILED, lease
    return Fate.TAKEN, lease


def record_taking(
    connection: sa.Connection, row: sa.Row[Any], lease: Lease, worker_id: str
) -> None:
    """Records that a worker goes on with a trial, as what it is after who had it before."""
    if row.worker_id is not None:
        kind = "taken_over"
    else:
        kind = "continued" if row.step or lease.attempt > 1 else "started"
    attempt = [f"attempt {lease.attempt}"] if lease.attempt > 1 else []
    at = [] if kind == "started" else [f"at step {row.step}"]
    record(
        connection,
        row.study_uuid,
        kind,
        number=row.number,
        worker_id=worker_id,
        detail=", ".join(attempt + at),
    )


def find_running(connection: sa.Connection, study_id: int, number: int) -> int | None:
    """Returns the id of a trial that is not finished, or None if there is none of this number."""
    return connection.execute(
        sa.select(ot.trials.c.trial_id).where(
            ot.trials.c.study_id == study_id,
            ot.trials.c.number == number,
            ot.trials.c.state == TrialState.RUNNING,
        )
    ).scalar_one_or_none()


def _end(
    connection: sa.Connection,
    row: sa.Row[Any],
    trial_id: int,
    state: TrialState,
    attributes: Mapping[str, Any],
) -> None:
    """Ends a trial that nobody holds, with its last evaluation if it is not failed."""
    last = (
        sa.select(ot.trial_reports.c.intermediate_value)
        .where(ot.trial_reports.c.trial_id == trial_id)
        .order_by(ot.trial_reports.c.step.desc())
        .limit(1)
    )
    value = None if state is TrialState.FAIL else connection.execute(last).scalar_one_or_none()
    kept = {**attributes, "steps": row.step}
    ot.set_attributes(connection, [(trial_id, key, value) for key, value in kept.items()])
    ot.finish_trials(connection, [(trial_id, state, value)])
    connection.execute(
        sa.delete(leases).where(
            leases.c.study_uuid == row.study_uuid, leases.c.number == row.number
        )
    )


def _tell_attempts(connection: sa.Connection, row: sa.Row[Any]) -> str:
    lines = [
        f"WorkerDied: {row.attempts} workers died or hung on it; none got past step {row.step}."
    ]
    told = select_events(connection, row.study_uuid, row.number)
    return "\n".join([*lines, *(f"  {event}" for event in told[-_TOLD:])])
