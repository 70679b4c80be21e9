"""Leases as rows of the database: granted, read, locked, released."""

from __future__ import annotations

import functools
import uuid
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from tuner.store.connection.database import JUMP_S, Database
from tuner.store.damage import StoredCount
from tuner.store.identity import StudyHandle, StudyRow
from tuner.store.optuna import tables as ot
from tuner.store.tables import DatabaseClock, leases

LEASE_S = 300.0
"""Seconds that a lease counts without being renewed."""


@dataclass(frozen=True)
class Lease:
    """A worker's permission to train a trial and to write about it, for a limited time.

    Attributes:
        number: The trial's number in its study.
        token: 32 hexadecimal digits, new for every holder. A write about the trial must show it.
        attempt: The attempt this is since the trial last got further, from 1.
        checkpoint: The token of the holder whose checkpoint counts, None before the first.
        step: Optimizer steps its former holder has recorded, 0 for a new trial.
    """

    number: int
    token: str
    attempt: int
    checkpoint: str | None = None
    step: int = 0

    @property
    def begun(self) -> bool:
        """Whether somebody has trained the trial before."""
        return self.attempt > 1 or self.step > 0


LASTING_S = sa.bindparam("lasting_s", type_=sa.Float(53))
"""The parameter of a statement that gives leases: the seconds they count from now on."""

UNTIL = DatabaseClock() + LASTING_S
"""The expiry of a lease that is given in a statement with that parameter."""

_COUNTS = ("step", "attempts", "paused")

lease_columns = tuple(
    sa.type_coerce(column, StoredCount()).label(column.name) if column.name in _COUNTS else column
    for column in leases.c
)
"""The columns to read of leases; a damaged count is 0, with a warning."""

_NOW = DatabaseClock().label("now")
_HAS_EXPIRED = (leases.c.expires_at < DatabaseClock()).label("expired")


def new_token() -> str:
    """Returns a token that no other lease ever had."""
    return uuid.uuid4().hex


def grant(
    connection: sa.Connection,
    study_uuid: str,
    numbers: Sequence[int],
    worker_id: str | None,
    lease_s: float,
) -> list[Lease]:
    """Adds the leases of trials that have just started.

    Args:
        connection: A transaction that may write.
        study_uuid: The study.
        numbers: The numbers of the trials.
        worker_id: The worker that holds the leases, None to leave the trials for any worker.
        lease_s: Seconds that the leases count.

    Returns:
        The leases, in the order of the numbers.
    """
    granted = [Lease(number, new_token(), 1) for number in numbers]
    rows = [
        {
            "study_uuid": study_uuid,
            "number": lease.number,
            "token": lease.token,
            "worker_id": worker_id,
            "step": 0,
            "attempts": lease.attempt,
            "checkpoint": lease.checkpoint,
            "paused": 0,
            LASTING_S.key: lease_s,
        }
        for lease in granted
    ]
    # A trial that was lost in a renaming can have left the lease of its number behind.
    ot.upsert(connection, leases, rows, ("study_uuid", "number"), {"expires_at": UNTIL})
    return granted


def release(connection: sa.Connection, study_uuid: str, held: Collection[Lease]) -> list[int]:
    """Takes the worker off leases that still count, so that any worker may take the trials.

    Returns:
        The numbers of these trials, ascending.
    """
    released = connection.execute(
        sa.update(leases)
        .where(*match_leases(study_uuid, held))
        .values(worker_id=None)
        .returning(leases.c.number)
    ).scalars()
    return sorted(released)


def match_leases(study_uuid: str, held: Collection[Lease]) -> tuple[sa.ColumnElement[bool], ...]:
    """Returns the conditions that match the rows of leases that still count, by token."""
    return (
        leases.c.study_uuid == study_uuid,
        leases.c.number.in_([lease.number for lease in held]),
        leases.c.token.in_([lease.token for lease in held]),
    )


def read_leases(connection: sa.Connection, study_uuid: str) -> list[sa.Row[Any]]:
    """Returns every lease of a study, by number.

    Returns:
        Rows with the columns of the table, ``expired``, whether the lease no longer counts, and
        ``now``, the time by the database's clock.
    """
    return list(
        connection.execute(
            sa.select(*lease_columns, _HAS_EXPIRED, _NOW)
            .where(leases.c.study_uuid == study_uuid)
            .order_by(leases.c.number)
        )
    )


def lock_leases(
    connection: sa.Connection, study_row: StudyRow, numbers: Collection[int]
) -> list[sa.Row[Any]]:
    """Locks leases until the transaction ends, so that their holders wait; lock the study first.

    Returns:
        Rows as :func:`read_leases` returns them, and ``trial_id``: the trial's id in Optuna's
        tables, or None if it does not run.
    """
    runs = sa.and_(
        ot.trials.c.study_id == study_row.study_id,
        ot.trials.c.number == leases.c.number,
        ot.trials.c.state == TrialState.RUNNING,
    )
    return list(
        connection.execute(
            sa.select(*lease_columns, _HAS_EXPIRED, _NOW, ot.trials.c.trial_id)
            .select_from(leases.outerjoin(ot.trials, runs))
            .where(leases.c.study_uuid == study_row.uuid, leases.c.number.in_(numbers))
            .order_by(leases.c.number)
            .with_for_update(of=leases)
        )
    )


@dataclass(frozen=True)
class Unfinished:
    """The trials that are not over: those that nobody trains and that are not paused are waiting.

    Attributes:
        held: The numbers of those that some worker trains.
        paused: The numbers of those that wait to be promoted.
        steps: Optimizer steps that all of them have recorded.
    """

    held: frozenset[int]
    paused: frozenset[int]
    steps: int = 0


def read_unfinished(
    database: Database, study: StudyHandle, is_dead: Callable[[str], bool]
) -> Unfinished:
    """Returns which trials some worker trains, and which are paused.

    Args:
        database: The study's database.
        study: The study.
        is_dead: Returns for a worker's id whether its process is known to have died.
    """
    with database.read() as connection:
        return find_unfinished(connection, study.uuid, is_dead)


def find_unfinished(
    connection: sa.Connection, study_uuid: str, is_dead: Callable[[str], bool]
) -> Unfinished:
    """Returns which trials some worker trains, and which are paused; see `read_unfinished`."""
    rows, is_dead = read_leases(connection, study_uuid), functools.cache(is_dead)
    paused = frozenset(row.number for row in rows if row.paused)
    held = frozenset(row.number for row in rows if not is_abandoned(row, is_dead))
    return Unfinished(held - paused, paused, sum(row.step for row in rows))


def count_leases(connection: sa.Connection, study_uuid: str, *, paused: bool = True) -> int:
    """Returns the number of trials of a study that are not finished.

    Args:
        connection: An open transaction.
        study_uuid: The study.
        paused: Whether trials that wait to be promoted count.
    """
    counted = sa.select(sa.func.count()).select_from(leases)
    counted = counted.where(leases.c.study_uuid == study_uuid)
    return connection.execute(
        counted if paused else counted.where(leases.c.paused == 0)
    ).scalar_one()


def count_unsaved(database: Database, study: StudyHandle) -> int:
    """Returns the number of unfinished trials that have been trained and have no checkpoint."""
    with database.read() as connection:
        rows = read_leases(connection, study.uuid)
    return sum(row.checkpoint is None and row.step > 0 for row in rows)


def is_abandoned(
    row: sa.Row[Any],
    is_dead: Callable[[str], bool],
    *,
    expired: bool = True,
    stopped: bool = False,
) -> bool:
    """Tells whether nobody works on a trial any more: released, expired, or its worker dead.

    A paused trial is not abandoned: it waits to be promoted, until its study is stopped.

    Args:
        row: Its lease, as :func:`read_leases` returns it.
        is_dead: Returns for a worker's id whether its process is known to have died.
        expired: Whether an expired lease counts as abandoned.
        stopped: Whether the study was stopped.
    """
    if row.paused:
        return stopped
    return row.worker_id is None or (expired and bool(row.expired)) or is_dead(row.worker_id)


def assume_alive(worker_id: str) -> bool:
    """Returns False: no worker is known to have died, so its lease has to expire."""
    return False


def detect_clock_jump(
    database: Database, study: StudyHandle, rows: Sequence[sa.Row[Any]], longest_s: float
) -> bool:
    """Tells whether the database's clock has been set: forward every lease expires, back none.

    Leases that would count for longer than any is given for are cut.

    Args:
        database: The study's database.
        study: The study.
        rows: Its leases, as :func:`read_leases` has just returned them.
        longest_s: The longest time that a lease is given for, in seconds.

    Returns:
        Whether the clock has jumped since this process last read it, so that nobody has had the
        time to renew a lease that has expired.
    """
    if any(row.expires_at - row.now > longest_s + JUMP_S for row in rows):
        with database.write() as connection:
            cut_leases(connection, study.uuid, longest_s)
    return bool(rows) and database.hear_clock(rows[0].now)


def cut_leases(connection: sa.Connection, study_uuid: str, longest_s: float) -> None:
    """Shortens leases that would count for longer than any is given for.

    Args:
        connection: A transaction that may write.
        study_uuid: The study.
        longest_s: The longest time that a lease is given for, in seconds.
    """
    until = DatabaseClock() + longest_s
    connection.execute(
        sa.update(leases)
        .where(leases.c.study_uuid == study_uuid, leases.c.expires_at > until)
        .values(expires_at=until)
    )


def find_running(
    connection: sa.Connection, study_id: int, numbers: Collection[int]
) -> dict[int, int]:
    """Returns the ids of those trials that are not finished, by number."""
    rows = connection.execute(
        sa.select(ot.trials.c.number, ot.trials.c.trial_id).where(
            ot.trials.c.study_id == study_id,
            ot.trials.c.number.in_(numbers),
            ot.trials.c.state == TrialState.RUNNING,
        )
    )
    return {row.number: row.trial_id for row in rows}
