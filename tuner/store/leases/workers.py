"""Who works on a study, and for how long: one row a process that ever did."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa

from tuner.domain.states import StudyState, WorkerState
from tuner.errors import StorageError
from tuner.store.connection.database import Database
from tuner.store.identity import StudyHandle, look_up
from tuner.store.leases.machine import this_machine
from tuner.store.leases.rows import none_is
from tuner.store.tables import DatabaseClock, events, leases, workers

_LONGEST_S = 1e10


@dataclass(frozen=True)
class WorkerIdentity:
    """A worker as the database knows it.

    Attributes:
        worker_id: Unique for all time.
        host: Its machine's name.
        pid: Its process.
        device: Where it trains.
        version: Its tuner's version.
        machine: Its machine, as :func:`tuner.store.leases.machine.this_machine` tells it.
        software: The versions of what it computes with, such as "Python 3.12.1, torch 2.13.0".
    """

    worker_id: str
    host: str
    pid: int
    device: str
    version: str
    machine: str = field(default_factory=this_machine)
    software: str = ""


@dataclass(frozen=True)
class Alive:
    """A worker that lives at this moment.

    Attributes:
        worker_id: The worker.
        age_s: Seconds for which it has lived, by a clock that only grows: clocks that tell the
            time of day are set, and go on while a machine sleeps.
    """

    worker_id: str
    age_s: float


@dataclass(frozen=True)
class WorkerRow:
    """A process that works on a study, or did.

    Attributes:
        id: Its worker id.
        host: Its machine's name.
        pid: Its process.
        device: Where it trains.
        version: Its tuner's version.
        software: The versions of what it computes with.
        started_at: When it started, seconds since 1970 by the database's clock.
        last_seen: When it last wrote, by the same clock.
        seen_ago_s: Seconds since then.
        leaving: Whether it was asked to end.
        left: Whether it said that it ends.
        trials: The trials it holds, by number.
        state: What it is at.
    """

    id: str
    host: str
    pid: int
    device: str
    version: str
    software: str
    started_at: float
    last_seen: float
    seen_ago_s: float
    leaving: bool
    left: bool
    trials: tuple[int, ...]
    state: WorkerState


def read_workers(
    database: Database, study: StudyHandle, is_dead: Callable[[str], bool] = none_is
) -> list[WorkerRow]:
    """Returns every process that ever worked on a study, in the order they came.

    Args:
        database: Where the study is.
        study: The study.
        is_dead: Tells of a worker's id whether its process is known to have died. A worker that
            was not seen for as long as its leases last, ``stall_s``, is silent even so.

    Raises:
        NotFoundError: If the study has been deleted.
    """
    left = sa.exists().where(events.c.worker_id == workers.c.worker_id, events.c.kind == "left")
    ago = DatabaseClock() - workers.c.last_seen
    with database.read() as connection:
        paused = look_up(connection, study).state is StudyState.PAUSED
        rows = connection.execute(
            sa.select(workers, ago.label("ago"), left.label("left"))
            .where(workers.c.study_uuid == study.uuid)
            .order_by(workers.c.ordinal)
        ).all()
        holdings = connection.execute(
            sa.select(leases.c.worker_id, leases.c.number)
            .where(leases.c.study_uuid == study.uuid)
            .order_by(leases.c.number)
        ).all()
    held: dict[str, list[int]] = {}
    for worker_id, number in holdings:
        held.setdefault(worker_id, []).append(number)
    return [
        WorkerRow(
            id=row.worker_id,
            host=row.host,
            pid=row.pid,
            device=row.device,
            version=row.version,
            software=row.software,
            started_at=row.started_at,
            last_seen=row.last_seen,
            seen_ago_s=max(0.0, row.ago),
            leaving=bool(row.leaving),
            left=bool(row.left),
            trials=tuple(held.get(row.worker_id, ())),
            state=_state_of(
                row,
                # Seen in the future: the clock has been set back since.
                silent=abs(row.ago) > study.spec.train.stall_s or is_dead(row.worker_id),
                paused=paused,
                holds=row.worker_id in held,
            ),
        )
        for row in rows
    ]


def _larger(one: Any, other: Any) -> sa.ColumnElement[float]:
    return sa.case((one > other, one), else_=other)


def _study_clock() -> sa.ColumnElement[float]:
    """Returns for how long a worker's study has been worked on, now that the worker is alive.

    That is as long as when the worker was last seen and since then, or as long as when anyone was
    last seen and since then: for that the database's clock is asked, and believed as far as the
    worker has lived. So whatever that clock does, it adds no more than a worker has lived, and
    takes nothing.
    """
    last = workers.alias()
    lived_s = _larger(_AGE_S - workers.c.worked_s, 0.0)
    since_s = _larger(DatabaseClock() - last.c.last_seen, 0.0)
    by_all = (
        sa.select(last.c.study_s + sa.case((since_s < lived_s, since_s), else_=lived_s))
        .where(last.c.study_uuid == workers.c.study_uuid)
        .order_by(last.c.study_s.desc(), last.c.last_seen.desc())
        .limit(1)
        .correlate(workers)
        .scalar_subquery()
    )
    return _larger(workers.c.study_s + lived_s, by_all)


_AGE_S = sa.bindparam("age_s", type_=sa.Float(53))
_STUDY_S = _study_clock()
_SEEN = (
    sa.update(workers)
    .where(workers.c.worker_id == sa.bindparam("alive_id"))
    .values(
        last_seen=DatabaseClock(),
        worked_s=_larger(_AGE_S, workers.c.worked_s),
        study_s=_STUDY_S,
    )
    .returning(workers.c.last_seen)
)


def _state_of(row: sa.Row[Any], *, silent: bool, paused: bool, holds: bool) -> WorkerState:
    if row.left:
        return WorkerState.LEFT
    if silent:
        return WorkerState.SILENT
    if row.leaving:
        return WorkerState.LEAVING
    if holds:
        return WorkerState.WORKING
    return WorkerState.PAUSED if paused else WorkerState.WAITING


def enter(
    connection: sa.Connection,
    study_uuid: str,
    worker: WorkerIdentity,
    age_s: float,
    derive: Callable[[int], int],
) -> int:
    """Enters a worker, unless it is there already; the study must be locked.

    Args:
        connection: In a transaction.
        study_uuid: The study.
        worker: The worker.
        age_s: Seconds since the worker's process started.
        derive: Gives the worker's seed from its ordinal, the number of workers before it.

    Returns:
        The seed.
    """
    known = connection.execute(
        sa.select(workers.c.seed).where(workers.c.worker_id == worker.worker_id)
    ).scalar_one_or_none()
    if known is not None:
        return int(known)
    ordinal = connection.execute(
        sa.select(sa.func.count()).select_from(workers).where(workers.c.study_uuid == study_uuid)
    ).scalar_one()
    seed = derive(ordinal)
    connection.execute(
        sa.insert(workers).values(
            worker_id=worker.worker_id,
            study_uuid=study_uuid,
            ordinal=ordinal,
            host=worker.host,
            pid=worker.pid,
            device=worker.device,
            version=worker.version,
            machine=worker.machine,
            software=worker.software,
            seed=str(seed),
            started_at=DatabaseClock() - age_s,
            last_seen=DatabaseClock(),
        )
    )
    touch(connection, Alive(worker.worker_id, age_s))
    return seed


def touch(connection: sa.Connection, alive: Alive) -> float | None:
    """Says that a worker is alive.

    Returns:
        Seconds since 1970 by the database's clock, None of a worker that has not entered.
    """
    seen = connection.execute(_SEEN, {"alive_id": alive.worker_id, _AGE_S.key: alive.age_s})
    now_s: float | None = seen.scalar_one_or_none()
    return now_s


def refuse_second_machine(
    connection: sa.Connection, worker: WorkerIdentity, within_s: float
) -> None:
    """Refuses a SQLite database that another machine works on.

    The processes of a SQLite database in WAL mode share memory; from two machines they would
    overwrite each other. A machine of the same name is this one before it was started anew.

    Args:
        connection: In a transaction.
        worker: Who is about to work.
        within_s: Seconds for which a worker seen counts as working.

    Raises:
        StorageError: If a worker of another machine was seen, with the remedy.
    """
    if connection.dialect.name != "sqlite":
        return
    other = connection.execute(
        sa.select(workers.c.host)
        .where(
            workers.c.machine.not_in([worker.machine, ""]),
            workers.c.host != worker.host,
            workers.c.last_seen.between(DatabaseClock() - within_s, DatabaseClock() + within_s),
        )
        .limit(1)
    ).scalar_one_or_none()
    if other is not None:
        raise StorageError(
            f"{other} works on this SQLite database, and {worker.host} cannot at the same time: "
            "a SQLite file cannot be shared between machines. Use PostgreSQL for that "
            "(--storage postgresql+psycopg://user:password@host/database); if no worker is left "
            f"there, wait {within_s:.0f} s."
        )


def elapsed_s(
    connection: sa.Connection, study_uuid: str, alive: Alive | None = None
) -> tuple[float, float]:
    """Returns how long a study has been worked on.

    Args:
        connection: Where to ask.
        study_uuid: The study.
        alive: A worker that lives at this moment.

    Returns:
        Seconds during which at least one worker lived, and the seconds of all workers added up.
    """
    of_study = workers.c.study_uuid == study_uuid
    wall_s, worker_s = connection.execute(
        sa.select(
            sa.func.coalesce(sa.func.max(workers.c.study_s), 0.0),
            sa.func.coalesce(sa.func.sum(workers.c.worked_s), 0.0),
        ).where(
            # What is none is greater than any, or less.
            of_study,
            workers.c.study_s.between(0.0, _LONGEST_S),
            workers.c.worked_s.between(0.0, _LONGEST_S),
        )
    ).one()
    if alive is not None:
        now = sa.select(_STUDY_S).where(workers.c.worker_id == sa.bindparam("alive_id"))
        values = {"alive_id": alive.worker_id, _AGE_S.key: alive.age_s}
        wall_s = max(wall_s, connection.execute(now, values).scalar_one_or_none() or 0.0)
    return float(wall_s), float(worker_s)
