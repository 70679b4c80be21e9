"""The origin of a database: the mark that tells it from a copy of itself."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path

import sqlalchemy as sa

from tuner.errors import DeniedError
from tuner.store.connection.database import Database
from tuner.store.connection.urls import sqlite_path
from tuner.store.identity import UUID

_HOLDS = "SELECT count(*) FROM study_user_attributes WHERE key = ? AND value_json = ?"


@dataclass(frozen=True)
class Origin:
    """A database, told from its copies by where it is.

    Attributes:
        file: A SQLite database's file, its links followed; None for PostgreSQL.
        server: What tells one cluster of PostgreSQL from all others, also once it has moved.
        oid: The database's number in its cluster, which it keeps when it is renamed.
    """

    file: Path | None = None
    server: str = ""
    oid: int = 0

    def describe(self, seen_from: Path) -> str:
        """Returns it as text, a file by its way from a folder, so that both may move together."""
        if self.file is None:
            return f"postgresql {self.server} {self.oid}"
        try:
            return f"sqlite {os.path.relpath(self.file, os.path.realpath(seen_from))}"
        except ValueError:  # on another drive
            return f"sqlite {self.file}"


def read_origin(database: Database) -> Origin:
    """Returns where a database is.

    Raises:
        UnavailableError: If it cannot be reached right now.
    """
    path = sqlite_path(database.url)
    if path is not None:
        return Origin(file=path.resolve())
    with database.read() as connection:
        oid = connection.execute(
            sa.text("SELECT oid FROM pg_database WHERE datname = current_database()")
        ).scalar_one()
    return Origin(server=_read_server(database), oid=int(oid))


def is_still_there(database: Database, study_uuid: str, described: str, seen_from: Path) -> bool:
    """Tells whether a database is where it was, and holds a study; where in doubt, it does.

    Args:
        database: The one in use, another one.
        study_uuid: The study.
        described: The one meant, as :meth:`Origin.describe` told it.
        seen_from: The folder that this was told for.
    """
    kind, _, place = described.partition(" ")
    if kind == "sqlite":
        return _holds(Path(os.path.realpath(seen_from), place), study_uuid)
    server, _, oid = place.partition(" ")
    if sqlite_path(database.url) is not None or server != _read_server(database):
        return True
    with database.read() as connection:
        found = connection.execute(
            sa.text("SELECT count(*) FROM pg_database WHERE CAST(oid AS text) = :oid"), {"oid": oid}
        )
        return bool(found.scalar_one())


def _read_server(database: Database) -> str:
    try:
        with database.read() as connection:
            told = connection.execute(sa.text("SELECT system_identifier FROM pg_control_system()"))
            return str(told.scalar_one())
    except DeniedError:  # some who offer servers keep it to themselves
        return "unknown"


def _holds(file: Path, study_uuid: str) -> bool:
    if not file.is_file():
        return False
    try:
        with contextlib.closing(
            sqlite3.connect(f"{file.resolve().as_uri()}?mode=ro", uri=True)
        ) as connection:
            [count] = connection.execute(_HOLDS, (UUID, json.dumps(study_uuid))).fetchone()
            return bool(count)
    except sqlite3.Error as error:
        return not any(sign in str(error) for sign in ("no such table", "not a database"))
