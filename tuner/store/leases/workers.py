"""The workers of a study: one row for each process that ever worked on it."""

from __future__ import annotations

import functools
import platform
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from tuner.domain.states import StudyState, WorkerState
from tuner.errors import StorageError
from tuner.store.connection.database import Database
from tuner.store.events import record
from tuner.store.identity import StudyHandle, look_up
from tuner.store.leases.heartbeat import Alive, touch
from tuner.store.leases.rows import assume_alive
from tuner.store.tables import DatabaseClock, events, leases, workers

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


@functools.cache
def this_machine() -> str:
    """Returns an identifier of this machine that stays the same while it is on.

    It is the boot id of the kernel where there is one, which containers share with their host, else
    the host's name.
    """
    try:
        return _BOOT_ID.read_text(encoding="ascii").strip() or platform.node()
    except OSError:
        return platform.node()


@dataclass(frozen=True)
class WorkerIdentity:
    """A worker as the database knows it.

    Attributes:
        worker_id: 32 hexadecimal digits that no other worker ever has.
        host: The name of its machine.
        pid: The id of its process.
        device: The device it trains on.
        version: The version of its tuner.
        machine: The machine, as :func:`this_machine` identifies it.
        software: The versions it computes with, such as "Python 3.12.1, torch 2.13.0".
    """

    worker_id: str
    host: str
    pid: int
    device: str
    version: str
    machine: str = field(default_factory=this_machine)
    software: str = ""


@dataclass(frozen=True)
class WorkerRow:
    """A process that works on a study, or did.

    Attributes:
        id: Its worker id.
        host: The name of its machine.
        pid: The id of its process.
        device: The device it trains on.
        version: The version of its tuner.
        software: The versions it computes with.
        started_at: Its start, in seconds since 1970 by the database's clock.
        last_seen: Its last heartbeat, by the same clock.
        seen_ago_s: Seconds since then, at least 0.
        leaving: Whether it was asked to end.
        left: Whether it recorded its own end.
        trials: The numbers of the trials it holds, ascending.
        state: Whether it works, waits, was asked to end, is silent or has left.
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
    database: Database, study: StudyHandle, is_dead: Callable[[str], bool] = assume_alive
) -> list[WorkerRow]:
    """Returns every process that ever worked on a study, in the order they came.

    Args:
        database: The study's database.
        study: The study.
        is_dead: Returns for a worker's id whether its process is known to have died. A worker that
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
        connection: A transaction that may write.
        study_uuid: The study.
        worker: The worker.
        age_s: Seconds since the worker's process started.
        derive: Returns the worker's seed for its ordinal, the number of workers before it.

    Returns:
        The worker's seed; of one that is there already, the seed it has.
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
    record(
        *(connection, study_uuid, "joined"),
        worker_id=worker.worker_id,
        detail=", ".join(filter(None, (f"tuner {worker.version}", worker.software))),
    )
    return seed


def refuse_second_machine(
    connection: sa.Connection, worker: WorkerIdentity, within_s: float
) -> None:
    """Refuses a SQLite database that another machine works on.

    The processes of a SQLite database in WAL mode share memory; from two machines they would
    overwrite each other. A machine of the same name is this one before it was started anew.

    Args:
        connection: An open transaction.
        worker: The worker that is about to start.
        within_s: Seconds for which a worker that was seen counts as working.

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
