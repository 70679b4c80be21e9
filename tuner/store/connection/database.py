"""Opens the database: transactions, versions, and errors a person can act on."""

from __future__ import annotations

import contextlib
import logging
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

import optuna
import sqlalchemy as sa
from sqlalchemy.exc import SQLAlchemyError

from tuner.errors import NotFoundError, StorageError, UnavailableError
from tuner.store.connection import versions
from tuner.store.connection.engines import begin_writing, for_reading
from tuner.store.connection.errors import (
    cause_to_show,
    is_created_meanwhile,
    is_missing_table,
    translate,
)
from tuner.store.connection.file_systems import find_network_file_system
from tuner.store.connection.urls import redact, sqlite_path
from tuner.store.optuna.storage import Storage, check_optuna
from tuner.store.tables import DatabaseClock

T = TypeVar("T")

JUMP_S = 5.0
"""By how much a clock may err, in seconds, before it counts as having jumped."""

_CREATION_RETRIES = 10
_FAULTS = (SQLAlchemyError, optuna.exceptions.StorageInternalError)


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
        path = sqlite_path(url)
        self._path = None if path is None else path.absolute()
        self._file = None if path is None else _identify(path)
        self._pid = os.getpid()
        self._away_at = time.monotonic()
        self._ahead_s: float | None = None
        self._outage: tuple[float, float | None] | None = None

    def take_outage_s(self) -> float | None:
        """Returns for how many seconds it was away, once it is back; None if that was told."""
        began, ended = self._outage or (0.0, None)
        if ended is None:
            return None
        self._outage = None
        return ended - began

    @property
    def calm_s(self) -> float:
        """Seconds since this process opened it, or last found it away or its clock to jump."""
        return time.monotonic() - self._away_at

    @property
    def name(self) -> str:
        """The URL without its password."""
        return redact(self.url)

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        """Opens a transaction that writes: all of it happens, or nothing.

        Raises:
            UnavailableError: If the database cannot be reached right now. Where the connection is
                lost while it commits, all of it may have happened nevertheless.
            StorageError: If the database cannot be written.
        """
        with self._watched(), begin_writing(self.engine) as connection:
            yield connection

    @contextlib.contextmanager
    def read(self) -> Iterator[sa.Connection]:
        """Opens a connection that sees one state of the database.

        Raises:
            UnavailableError: If the database cannot be reached right now.
            StorageError: If the database cannot be read.
        """
        with self._watched(), self.engine.connect() as connection:
            yield for_reading(connection)

    def clock_s(self) -> float:
        """Returns seconds since 1970 by the database's clock."""
        with self.read() as connection:
            return float(connection.execute(sa.select(DatabaseClock())).scalar_one())

    def hear_clock(self, now_s: float) -> bool:
        """Compares the database's clock, read just now, with this process's own.

        Args:
            now_s: Seconds since 1970 by that clock.

        Returns:
            Whether it has jumped since this process last heard of it: it was set, or the machine
            has slept.
        """
        here_s = time.monotonic()
        before_s, self._ahead_s = self._ahead_s, now_s - here_s
        jumped = before_s is not None and abs(self._ahead_s - before_s) > JUMP_S
        if jumped:
            self._away_at = here_s
        return jumped

    def close(self) -> None:
        """Closes every connection."""
        self.storage.remove_session()
        self.engine.dispose()

    @contextlib.contextmanager
    def _watched(self) -> Iterator[None]:
        """Explains errors, and notes when the database is away."""
        self._refuse_fork()
        self._refuse_lost_file()
        try:
            with translated(self.url):
                yield
        except UnavailableError:
            self._away_at = time.monotonic()
            since = self._away_at if self._outage is None else self._outage[0]
            self._outage = since, None
            raise
        if self._outage is not None and self._outage[1] is None:
            self._outage = self._outage[0], time.monotonic()

    def _refuse_fork(self) -> None:
        # A connection that two processes share breaks for both.
        if os.getpid() != self._pid:
            raise StorageError(
                f"{self.name}: process {self._pid} has opened it, and process {os.getpid()} is "
                "forked from that one: open it anew there."
            )

    def _refuse_lost_file(self) -> None:
        # SQLite goes on writing into a file without a name, which nobody will ever read.
        if self._path is None or _identify(self._path) == self._file:
            return
        raise StorageError(
            f"{self.name}: the file was deleted, moved or replaced while it was in use, so "
            "whatever is written now is lost. Put it back, or create the study anew."
        )


@contextlib.contextmanager
def translated(url: str) -> Iterator[None]:
    """Turns the errors of SQLAlchemy and Optuna into ones a person can act on.

    Raises:
        UnavailableError: If the database cannot be reached right now.
        StorageError: If anything else is wrong with it, such as a driver not installed.
    """
    try:
        yield
    except _FAULTS as error:
        raise translate(error, url) from cause_to_show(error, url)
    except ImportError as error:
        raise StorageError(
            f"{redact(url)}: its driver is not installed ({error}): "
            "pip install 'tuner[postgres]', or 'psycopg[binary]'."
        ) from error


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
        UnavailableError: If it cannot be reached right now.
        StorageError: If it is of another version, or a SQLite file on a network file system.
    """
    check_place(url, create=create)
    database = _connect(url, create=create)
    try:
        with database.read() as connection:
            revision = versions.read_revision(connection)
        if create and revision is None:
            revision = _migrate(database)
        versions.check_version(database.name, revision)
    except BaseException:
        database.close()
        raise
    return database


def upgrade_database(url: str) -> tuple[str | None, str]:
    """Brings a database's tables up to date, and makes them in an empty database.

    Args:
        url: Its URL.

    Returns:
        The version of our tables before, None if there were none, and after.

    Raises:
        SpecError: If the URL is none of ours.
        UnavailableError: If it cannot be reached right now.
        StorageError: If it was made by a newer tuner, or by another version of Optuna.
    """
    check_place(url, create=True)
    database = _connect(url, create=True)
    try:
        with database.read() as connection:
            before = versions.read_revision(connection)
        outdated = before is None or versions.is_older(before)
        versions.check_version(database.name, versions.HEAD if outdated else before)
        after = _migrate(database) if outdated else versions.HEAD
    finally:
        database.close()
    return before, after


def check_place(url: str, *, create: bool) -> None:
    """Refuses a URL whose database cannot be there.

    Args:
        url: The database's URL.
        create: Whether a SQLite file may be missing.

    Raises:
        SpecError: If the URL is none of ours.
        NotFoundError: If a SQLite file is missing and is not to be created.
        StorageError: If its folder is missing or lies on a network file system.
    """
    path = sqlite_path(url)
    if path is None:
        return
    if not path.parent.is_dir():
        raise StorageError(f"{redact(url)}: the folder {path.parent} does not exist: make it.")
    network = find_network_file_system(path)
    if network is not None:
        raise StorageError(
            f"{redact(url)}: the file lies on {network}, a network file system, where SQLite "
            "loses data. Name a file on a local disk, or use PostgreSQL: "
            "--storage postgresql+psycopg://user:password@host/database"
        )
    if not create and not path.exists():
        raise NotFoundError(
            f"{redact(url)}: there is no database yet. Make one with 'tuner study create', "
            "or name another with --storage."
        )


def _identify(path: Path) -> tuple[int, int] | None:
    """Returns the device and inode of the file at a path, None if there is none."""
    try:
        found = path.stat()
    except OSError:
        return None
    return found.st_dev, found.st_ino


def _connect(url: str, *, create: bool) -> Database:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    check_optuna()
    if create:
        _create_private(url)
    with translated(url):
        try:
            storage = _retry_while_others_create(lambda: Storage(url, create=create))
        except _FAULTS as error:
            if not create and is_missing_table(error):
                raise versions.no_studies(redact(url)) from None
            raise
    return Database(url, storage)


def _create_private(url: str) -> None:
    """Makes the file of a SQLite database for this user alone; its logs have the same rights."""
    path = sqlite_path(url)
    if path is not None:
        with contextlib.suppress(OSError):  # it is there, or SQLite tells why it cannot be
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))


def _migrate(database: Database) -> str:
    def migrate() -> str:
        with begin_writing(database.engine) as connection:
            versions.migrate(connection)
        return versions.HEAD

    with translated(database.url):
        return _retry_while_others_create(migrate)


def _retry_while_others_create(create: Callable[[], T]) -> T:
    """Creates tables again where another process has created them at the same moment."""
    for attempt in range(_CREATION_RETRIES):
        try:
            return create()
        except _FAULTS as error:
            if not is_created_meanwhile(error):
                raise
            time.sleep(0.05 * (attempt + 1))
    return create()
