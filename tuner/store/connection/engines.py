"""Sets up connections: the options of each driver and pool, and first commands."""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import sqlalchemy as sa
from sqlalchemy import event

from tuner.store.connection.errors import is_outlived

IMMEDIATE = "tuner_immediate"
"""The execution option of a transaction that is going to write."""

_READING = "tuner_reading"
_NO_WRITES = ("SELECT", "PRAGMA", "BEGIN")

_BUSY_TIMEOUT_S = 60
_IDLE_IN_TRANSACTION_S = 60

_POSTGRESQL: dict[str, Any] = {
    "connect_timeout": 5,  # seconds, for each address of the host
    "keepalives": 1,  # without them a server that vanished is waited for for hours:
    "keepalives_idle": 30,  # seconds of silence before the first question
    "keepalives_interval": 10,  # seconds between questions
    "keepalives_count": 3,  # questions before the connection is given up
    "tcp_user_timeout": 30_000,  # milliseconds that something sent may stay unacknowledged
    "application_name": "tuner",  # in pg_stat_activity
}
_POSTGRESQL_POOL: dict[str, Any] = {
    "pool_size": 1,  # a worker does one thing at a time, and servers take a hundred connections
    "max_overflow": 4,  # the dashboard's threads; closed as soon as they are given back
    "pool_pre_ping": True,  # a server that was restarted costs a round trip, not an error
    "pool_recycle": 1800,  # seconds; firewalls and proxies drop what is older without a word
}


def engine_options(url: sa.URL) -> dict[str, Any]:
    """Returns SQLAlchemy's arguments for an engine; options in the URL come before ours."""
    if url.get_backend_name() == "sqlite":
        # Without a transaction of its own, the driver leaves BEGIN to us (see _begin).
        ours = {"isolation_level": None, "timeout": _BUSY_TIMEOUT_S}
        path = Path(str(url.database))
        if not _is_still(path):
            return {"connect_args": ours}
        uri = f"file:{quote(str(path))}?immutable=1"
        return {"creator": partial(sqlite3.connect, uri, uri=True, check_same_thread=False, **ours)}
    ours = {key: value for key, value in _POSTGRESQL.items() if key not in url.query}
    return {"connect_args": ours, **_POSTGRESQL_POOL}


def configure(engine: sa.Engine) -> None:
    """Sets up every connection that an engine opens from now on, and closes its earlier ones."""
    if engine.dialect.name == "sqlite":
        event.listen(engine, "connect", _configure_sqlite)
        event.listen(engine, "begin", _begin)
        event.listen(engine, "before_cursor_execute", _begin_late)
    else:
        event.listen(engine, "connect", _configure_postgresql)
        event.listen(engine, "handle_error", _leave)
    engine.dispose()


def _is_still(path: Path) -> bool:
    """Tells whether a SQLite file lies where nothing can be written, and nobody has it open.

    SQLite cannot even read it then, for want of a place for its locks, unless it is told so.
    """
    locks = path.with_name(f"{path.name}-wal")
    return path.is_file() and not locks.exists() and not os.access(path.parent, os.W_OK)


@contextlib.contextmanager
def begin_writing(engine: sa.Engine) -> Iterator[sa.Connection]:
    """Opens a transaction that writes: all of it happens, or nothing."""
    with engine.connect() as plain:
        connection = plain.execution_options(**{IMMEDIATE: True})
        with connection.begin():
            yield connection


def for_reading(connection: sa.Connection) -> sa.Connection:
    """Returns a connection whose statements all see one state of the database."""
    if connection.dialect.name == "postgresql":
        return connection.execution_options(isolation_level="REPEATABLE READ")
    return connection.execution_options(**{_READING: True})


def _configure_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _configure_postgresql(connection: Any, _record: Any) -> None:
    # A process that is stopped in the middle of a transaction holds its locks until this has
    # passed. Set by a statement: as an option of the connection, poolers refuse it.
    with connection.cursor() as cursor:
        cursor.execute(f"SET idle_in_transaction_session_timeout = '{_IDLE_IN_TRANSACTION_S}s'")
    connection.commit()


def _leave(context: Any) -> None:
    # Tried again over the same connection, it would only meet the same server and its settings.
    if is_outlived(context.original_exception):
        context.is_disconnect = True


def _begin(connection: sa.Connection) -> None:
    # A transaction that starts by reading and then writes is refused at once by SQLite when
    # another has written in between; one that takes the write lock first waits its turn.
    options = connection.get_execution_options()
    if options.get(IMMEDIATE):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
    elif options.get(_READING):
        connection.exec_driver_sql("BEGIN")


def _begin_late(connection: sa.Connection, cursor: Any, statement: str, *_: Any) -> None:
    # Optuna's own sessions do not say which they are: theirs begin where they first write, as
    # SQLite's driver has it by default, and then wait their turn as well.
    if not cursor.connection.in_transaction and not statement.lstrip().startswith(_NO_WRITES):
        cursor.execute("BEGIN IMMEDIATE")
