"""Opening the database: connections, transactions, versions, and errors a person can act on."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import optuna
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.exc import DBAPIError, SQLAlchemyError

from tuner.errors import NotFoundError, StorageError
from tuner.store.optuna_tables import SCHEMA_REVISION, Storage
from tuner.store.tables import DatabaseClock
from tuner.store.urls import parse_url, redact, sqlite_path

_VERSION_TABLE = "tuner_alembic_version"
_HEAD = "0001"
_BUSY_TIMEOUT_S = 60
_IMMEDIATE = "tuner_immediate"


class Database:
    """A database that holds studies.

    Args:
        url: Its URL.
        storage: Optuna's storage on it.
    """

    def __init__(self, url: str, storage: Storage) -> None:
        self.url = url
        self.storage = storage
        self.engine: sa.Engine = storage.engine

    @property
    def name(self) -> str:
        """The URL without its password."""
        return redact(self.url)

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """A transaction that writes: all of it happens, or nothing.

        Raises:
            StorageError: If the database cannot be written.
        """
        with self._translated(), self.engine.connect() as plain:
            connection = plain.execution_options(**{_IMMEDIATE: True})
            with connection.begin():
                yield connection

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """A connection that sees one state of the database.

        Raises:
            StorageError: If the database cannot be read.
        """
        with self._translated(), self.engine.connect() as connection:
            yield connection

    def clock_s(self) -> float:
        """Returns seconds since 1970 by the database's clock."""
        with self.read() as connection:
            return float(connection.execute(sa.select(DatabaseClock())).scalar_one())

    def close(self) -> None:
        """Closes every connection."""
        self.storage.remove_session()
        self.engine.dispose()

    @contextlib.contextmanager
    def _translated(self) -> Iterator[None]:
        try:
            yield
        except (SQLAlchemyError, optuna.exceptions.StorageInternalError) as error:
            raise StorageError(f"{self.name}: {_explain(error)}") from error


def open_database(url: str, *, create: bool = False) -> Database:
    """Opens a database.

    Args:
        url: Its URL.
        create: Whether to make the database's tables, and for SQLite its file, where missing.

    Returns:
        The database; close it after use.

    Raises:
        SpecError: If the URL is none of ours.
        NotFoundError: If there is no database and it is not to be created.
        StorageError: If it cannot be reached, or is of another version.
    """
    parse_url(url)
    path = sqlite_path(url)
    if path is not None:
        _check_file(path, url, create)
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    try:
        storage = _open_storage(url, create)
        database = Database(url, storage)
        _check_versions(database, create)
    except ImportError as error:
        raise StorageError(
            f"{redact(url)}: its driver is not installed ({error}). PostgreSQL needs "
            "pip install 'psycopg[binary]' and a URL such as postgresql+psycopg://…"
        ) from error
    except (SQLAlchemyError, optuna.exceptions.StorageInternalError, RuntimeError) as error:
        if not create and _is_empty(error):
            raise _no_studies(redact(url)) from None
        raise StorageError(f"{redact(url)}: {_explain(error)}") from error
    return database


def _check_file(path: Path, url: str, create: bool) -> None:
    if not path.parent.is_dir():
        raise StorageError(f"{redact(url)}: the folder {path.parent} does not exist: make it.")
    if not create and not path.exists():
        raise NotFoundError(
            f"{redact(url)}: there is no database yet. Make one with 'tuner study create', "
            "or name another with --storage."
        )


def _open_storage(url: str, create: bool) -> Storage:
    # Without a transaction of its own, the sqlite3 driver leaves BEGIN to us (see _begin).
    is_sqlite = parse_url(url).get_backend_name() == "sqlite"
    connect_args: dict[str, Any] = (
        {"isolation_level": None, "timeout": _BUSY_TIMEOUT_S} if is_sqlite else {}
    )
    engine_kwargs: dict[str, Any] = {"connect_args": connect_args, "pool_pre_ping": not is_sqlite}

    def connect(*, make_tables: bool) -> Storage:
        # Versions are checked by us, for both sets of tables alike.
        return Storage(
            url,
            engine_kwargs=engine_kwargs,
            skip_compatibility_check=True,
            skip_table_creation=not make_tables,
        )

    storage = _retry_while_others_create(lambda: connect(make_tables=create))
    if is_sqlite:
        event.listen(storage.engine, "connect", _configure_sqlite)
        event.listen(storage.engine, "begin", _begin)
        storage.engine.dispose()
    return storage


def _retry_while_others_create(open_storage: Callable[[], Storage]) -> Storage:
    """Opens a database that another process may be creating at this moment."""
    for attempt in range(_CREATION_RETRIES):
        try:
            return open_storage()
        except (DBAPIError, optuna.exceptions.StorageInternalError) as error:
            text = f"{error} {error.__cause__}"
            if not any(sign in text for sign in _SIGNS_OF_CREATION):
                raise
            time.sleep(0.05 * (attempt + 1))
    return open_storage()


_CREATION_RETRIES = 10
_SIGNS_OF_CREATION = (
    "already exists",
    "UNIQUE constraint failed: alembic_version",
    "UNIQUE constraint failed: version_info",
    "database is locked",
)


def _configure_sqlite(connection: Any, _record: Any) -> None:
    cursor = connection.cursor()
    cursor.execute("PRAGMA journal_mode=WAL")
    cursor.execute("PRAGMA synchronous=NORMAL")
    cursor.close()


def _begin(connection: sa.Connection) -> None:
    # A transaction that starts by reading and then writes can be refused at once by SQLite when
    # another has written in between; one that takes the write lock first waits its turn.
    immediate = connection.get_execution_options().get(_IMMEDIATE, False)
    connection.exec_driver_sql("BEGIN IMMEDIATE" if immediate else "BEGIN")


def _check_versions(database: Database, create: bool) -> None:
    revision = database.storage.get_current_version()
    if revision != SCHEMA_REVISION:
        raise StorageError(
            f"{database.name}: Optuna's tables are of version {revision}, this tuner knows "
            f"{SCHEMA_REVISION}. Install the versions of tuner and Optuna that made them."
        )
    with database.read() as connection:
        ours = _our_revision(connection)
    if ours is None and create:
        with database.write() as connection:
            if _our_revision(connection) is None:
                _migrate(connection)
        ours = _HEAD
    if ours is None:
        raise _no_studies(database.name)
    if ours != _HEAD:
        raise StorageError(
            f"{database.name}: tuner's tables are of version {ours}, this tuner knows {_HEAD}. "
            "Install the newer tuner that made them."
        )


def _no_studies(name: str) -> NotFoundError:
    return NotFoundError(
        f"{name}: a database without studies of tuner. Make one with 'tuner study create'."
    )


def _is_empty(error: Exception) -> bool:
    cause = error.__cause__ or error
    return "version_info" in str(cause) and any(
        sign in str(cause) for sign in ("no such table", "does not exist")
    )


def _our_revision(connection: sa.Connection) -> str | None:
    if not sa.inspect(connection).has_table(_VERSION_TABLE):
        return None
    return connection.execute(
        sa.select(sa.column("version_num")).select_from(sa.table(_VERSION_TABLE))
    ).scalar_one_or_none()


def _migrate(connection: sa.Connection) -> None:
    from alembic import command  # noqa: PLC0415 (slow to import, seldom needed)
    from alembic.config import Config  # noqa: PLC0415

    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations"))
    config.attributes["connection"] = connection
    config.attributes["version_table"] = _VERSION_TABLE
    command.upgrade(config, "head")


def _explain(error: Exception) -> str:
    """Returns a database error without the statement and parameters around it."""
    cause: BaseException = error
    while isinstance(cause, optuna.exceptions.StorageInternalError) and cause.__cause__:
        cause = cause.__cause__
    text = str(cause.orig if isinstance(cause, DBAPIError) and cause.orig else cause).strip()
    first = text.splitlines()[0] if text else type(cause).__name__
    for sign, meaning in _MEANINGS.items():
        if sign in text:
            return f"{meaning} ({first})."
    return f"{first}."


_MEANINGS = {
    "file is not a database": "the file is something else than a SQLite database",
    "unable to open database file": "the file cannot be opened: check its folder and your rights",
    "readonly database": "the database is read-only: check your rights on the file",
    "database is locked": "another process has held the database for too long",
    "disk is full": "the disk is full: free some space; what was written so far is safe",
    "refused": "nothing listens there: is the database server running?",
}
