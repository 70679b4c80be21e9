"""Ownership of a study's folder, which a copy of the database must not share.

A folder records which database claimed it: by the relative path to a SQLite file, or by the number
of the database in its PostgreSQL cluster. It belongs to that database as long as the database is
there and holds the study. Once it is gone, for example moved, the next database takes the folder
over. A copy that is used while it is there claims a folder of its own beside it, ``UUID-2`` and so
on. It may continue from checkpoints in the others, without ever changing them.
"""

from __future__ import annotations

import contextlib
import enum
import os
import uuid
from collections.abc import Iterator
from pathlib import Path

from tuner.domain.places import make_private
from tuner.errors import StorageError
from tuner.service.folders import study_folder
from tuner.store import Database, StudyHandle
from tuner.store.origin import is_still_there, read_origin

MARK = "database"
"""The file in a study's folder that names the database that owns the folder."""

Mark = str | None


class Owner(enum.Enum):
    """The owner of a study's folder, as the mark in the folder tells."""

    THIS = "this database"
    OTHER = "another database, which holds the study"
    GONE = "another database, which is gone or holds the study no longer"
    NOBODY = "no database: none has claimed it"


def claim_folder(database: Database, study: StudyHandle) -> Path:
    """Returns the folder of a study's files, claimed for this database alone and made if missing.

    Raises:
        UnavailableError: If the database is away.
    """
    while True:
        folder, mark = _choose(database, study)
        wanted = read_origin(database).describe(folder)
        if mark == wanted:
            return folder
        # A disk that takes no mark takes no checkpoint, and work goes on without.
        with contextlib.suppress(OSError, StorageError):
            make_private(folder)
            if not _write_mark(folder, wanted, instead=mark is not None):
                continue  # another database was faster
        return folder


def find_folder(database: Database, study: StudyHandle) -> tuple[Path, bool]:
    """Returns the folder that :func:`claim_folder` would, and whether this database owns it."""
    folder, mark = _choose(database, study)
    return folder, mark == read_origin(database).describe(folder)


def find_owner(database: Database, folder: Path, study_uuid: str) -> Owner:
    """Returns whose a study's folder is, whether or not its study is still there."""
    mark = _read_mark(folder)
    if mark is None:
        return Owner.NOBODY
    if mark == read_origin(database).describe(folder):
        return Owner.THIS
    return Owner.OTHER if is_still_there(database, study_uuid, mark, folder) else Owner.GONE


def claimed_at(folder: Path) -> float | None:
    """Returns the time at which a folder was claimed, in seconds since 1970, or None."""
    try:
        return (folder / MARK).stat().st_mtime
    except OSError:
        return None


def _choose(database: Database, study: StudyHandle) -> tuple[Path, Mark]:
    """Returns the folder to use, and its mark: the database that owns it, if any."""
    origin = read_origin(database)
    free: tuple[Path, Mark] | None = None
    for folder in _candidates(study_folder(database.url, study)):
        if not os.path.exists(folder):  # noqa: PTH110 - it fails nowhere, below a file or a loop
            return free or (folder, None)
        mark = _read_mark(folder)
        if mark == origin.describe(folder):
            return folder, mark
        if free is None and (
            mark is None or not is_still_there(database, study.uuid, mark, folder)
        ):
            free = folder, mark
    raise RuntimeError("The candidates have no end.")


def _candidates(first: Path) -> Iterator[Path]:
    yield first
    number = 2
    while True:
        yield first.with_name(f"{first.name}-{number}")
        number += 1


def _read_mark(folder: Path) -> Mark:
    try:
        return (folder / MARK).read_text(encoding="utf-8").strip()
    except FileNotFoundError:
        return None
    except (OSError, UnicodeDecodeError):
        return "unreadable"


def _write_mark(folder: Path, text: str, *, instead: bool) -> bool:
    """Writes the mark of a folder's owner; returns False if another one was first."""
    if not instead:
        try:
            with (folder / MARK).open("x", encoding="utf-8") as file:
                file.write(f"{text}\n")
        except FileExistsError:
            return False
        return True
    beside = folder / f"{MARK}.{uuid.uuid4().hex}"
    beside.write_text(f"{text}\n", encoding="utf-8")
    beside.replace(folder / MARK)
    return True
