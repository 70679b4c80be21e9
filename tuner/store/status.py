"""The status of a database: its server, the versions of its tables, its size; and its health."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import sqlalchemy as sa

from tuner.store.connection import versions
from tuner.store.connection.database import check_place, translated
from tuner.store.connection.engines import engine_options, for_reading
from tuner.store.connection.urls import parse_url, redact, sqlite_path
from tuner.store.identity import UUID
from tuner.store.leases.rows import is_abandoned, read_leases
from tuner.store.optuna import tables as ot
from tuner.store.tables import DatabaseClock

_CHECKED_BYTES = 2**28
"""The largest SQLite file that is read whole to see whether it is sound."""

_BACKENDS = {"sqlite": "SQLite", "postgresql": "PostgreSQL"}


@dataclass(frozen=True)
class DatabaseStatus:
    """The status of a database, whatever its version.

    Attributes:
        storage: Its URL without its password.
        backend: "SQLite" or "PostgreSQL".
        server_version: The version of the server, or of the SQLite library.
        optuna_revision: The version of Optuna's tables, or None where there are none.
        optuna_known: The version of Optuna's tables that this tuner works with.
        revision: The version of our tables, or None where there are none.
        known: The version of our tables that this tuner works with.
        studies: The number of studies made by tuner.
        trials: The number of trials they have started.
        needs_upgrade: Whether ``tuner db upgrade`` has something to do.
        needs_newer: Whether a newer tuner made our tables, and this one does not work with them.
    """

    storage: str
    backend: str
    server_version: str
    optuna_revision: str | None
    optuna_known: str
    revision: str | None
    known: str
    studies: int
    trials: int
    needs_upgrade: bool
    needs_newer: bool


def read_status(url: str) -> DatabaseStatus:
    """Returns the status of a database, and changes nothing in it, whatever its version.

    Raises:
        SpecError: If the URL is not one of SQLite or PostgreSQL.
        NotFoundError: If there is no such SQLite file.
        UnavailableError: If it cannot be reached right now.
    """
    with _reading(url) as connection:
        return _read(connection, url)


@dataclass(frozen=True)
class DatabaseHealth:
    """What may be wrong with a database, beyond its status.

    Attributes:
        status: Its status.
        ahead_s: By how many seconds its clock is ahead of this machine's.
        journal: SQLite's journal mode, such as ``wal``; None for another server.
        fault: What is broken in a SQLite file; None if nothing is, or it was not looked for.
        others: The number of Optuna's studies that tuner did not make.
        left: The numbers of trials that their workers have left behind, by study.
    """

    status: DatabaseStatus
    ahead_s: float
    journal: str | None
    fault: str | None
    others: int
    left: dict[str, tuple[int, ...]]


def read_health(url: str, is_dead: Callable[[str], bool]) -> DatabaseHealth:
    """Returns the health of a database, and changes nothing in it, whatever its version.

    Args:
        url: Its URL.
        is_dead: Returns for a worker's id whether its process is known to have died.

    Raises:
        SpecError: If the URL is not one of SQLite or PostgreSQL.
        NotFoundError: If there is no such SQLite file.
        UnavailableError: If it cannot be reached right now.
        StorageError: If it cannot be read.
    """
    with _reading(url) as connection:
        status = _read(connection, url)
        before = time.time()
        clock = float(connection.execute(sa.select(DatabaseClock())).scalar_one())
        here = (before + time.time()) / 2
        return DatabaseHealth(
            status=status,
            ahead_s=clock - here,
            journal=_read_journal(connection),
            fault=_find_fault(connection, url),
            others=_count_others(connection, status),
            left=_find_left(connection, is_dead) if status.revision == status.known else {},
        )


@contextlib.contextmanager
def _reading(url: str) -> Iterator[sa.Connection]:
    """Opens a connection that reads, without any command that sets the database up."""
    check_place(url, create=False)
    parsed = parse_url(url)
    with translated(url):
        engine = sa.create_engine(parsed, **engine_options(parsed))
        try:
            with engine.connect() as connection:
                yield for_reading(connection)
        finally:
            engine.dispose()


def _read_journal(connection: sa.Connection) -> str | None:
    if connection.dialect.name != "sqlite":
        return None
    return str(connection.exec_driver_sql("PRAGMA journal_mode").scalar_one())


def _find_fault(connection: sa.Connection, url: str) -> str | None:
    path = sqlite_path(url)
    if path is None or path.stat().st_size > _CHECKED_BYTES:
        return None
    found = str(connection.exec_driver_sql("PRAGMA quick_check(1)").scalar_one())
    return None if found == "ok" else found


def _count_others(connection: sa.Connection, status: DatabaseStatus) -> int:
    if status.optuna_revision is None:
        return 0
    every = connection.execute(sa.select(sa.func.count()).select_from(ot.studies)).scalar_one()
    return int(every) - status.studies


def _find_left(
    connection: sa.Connection, is_dead: Callable[[str], bool]
) -> dict[str, tuple[int, ...]]:
    """Returns the trials whose leases have expired, or whose workers have died, by study."""
    ours = connection.execute(
        sa.select(ot.studies.c.study_name, ot.study_attributes.c.value_json)
        .join(ot.study_attributes, ot.study_attributes.c.study_id == ot.studies.c.study_id)
        .where(ot.study_attributes.c.key == UUID)
        .order_by(ot.studies.c.study_name)
    ).all()
    left: dict[str, tuple[int, ...]] = {}
    for name, told in ours:
        rows = read_leases(connection, str(json.loads(told)))
        numbers = [r.number for r in rows if r.worker_id is not None and is_abandoned(r, is_dead)]
        if numbers:
            left[name] = tuple(numbers)
    return left


def _read(connection: sa.Connection, url: str) -> DatabaseStatus:
    revision = versions.read_revision(connection)
    optuna_revision = versions.read_optuna_revision(connection)
    studies, trials = (0, 0) if optuna_revision is None else _count(connection)
    return DatabaseStatus(
        storage=redact(url),
        backend=_BACKENDS[connection.dialect.name],
        server_version=".".join(map(str, connection.dialect.server_version_info or ())),
        optuna_revision=optuna_revision,
        optuna_known=ot.SCHEMA_REVISION,
        revision=revision,
        known=versions.HEAD,
        studies=studies,
        trials=trials,
        needs_upgrade=revision is None or versions.is_older(revision),
        needs_newer=revision not in (None, *versions.REVISIONS),
    )


def _count(connection: sa.Connection) -> tuple[int, int]:
    ours = sa.select(ot.study_attributes.c.study_id).where(ot.study_attributes.c.key == UUID)
    count = sa.select(sa.func.count())
    return (
        connection.execute(count.select_from(ours.subquery())).scalar_one(),
        connection.execute(
            count.select_from(ot.trials).where(ot.trials.c.study_id.in_(ours))
        ).scalar_one(),
    )
