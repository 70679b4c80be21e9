"""Studies of others in Optuna's storages, which are read and never written.

A relational database is opened with a driver that may only read, or by a transaction that may; no
table is made and no version changed there. A journal is read as the file of JSON that it is. What
Optuna pickles, such as samplers, is in neither.
"""

from __future__ import annotations

import contextlib
import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import quote

import optuna
import sqlalchemy as sa
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial

from tuner.domain.names import suggest
from tuner.domain.places import absolute
from tuner.errors import NotFoundError, SpecError, StorageError
from tuner.store.connection.urls import redact


@contextlib.contextmanager
def open_foreign(url: str) -> Iterator[BaseStorage]:
    """Opens a storage of Optuna's to read in it.

    Args:
        url: The URL of a database, or the path of a journal.

    Raises:
        NotFoundError: If there is no such file.
        SpecError: If it is neither.
        StorageError: If it cannot be read.
    """
    try:
        if "://" not in url:
            yield _open_journal(absolute(url))
            return
        storage = _open_database(url)
        try:
            yield storage
        finally:
            storage.remove_session()
            storage.engine.dispose()
    except (sa.exc.SQLAlchemyError, optuna.exceptions.StorageInternalError, ImportError) as error:
        cause = str(error.__cause__ or error).splitlines()[0]
        raise StorageError(f"{redact(url)}: cannot be read: {cause}") from error
    except RuntimeError as error:  # of another version
        raise StorageError(
            f"{redact(url)}: {error} Upgrade a copy of it: optuna storage upgrade --storage URL"
        ) from error


def _open_journal(path: Path) -> JournalStorage:
    if not path.is_file():
        raise NotFoundError(
            f"{path}: no such file. Name the URL of a database, such as sqlite:///optuna.db, or a "
            "journal's file."
        )
    with path.open("rb") as file:
        if not file.read(1) == b"{":
            raise SpecError(
                f"{path}: no journal of Optuna's. A database has a URL: sqlite:///{path.name}"
            )
    return JournalStorage(JournalFileBackend(str(path)))


def _open_database(url: str) -> RDBStorage:
    try:
        parsed = sa.make_url(url)
    except sa.exc.ArgumentError:
        raise SpecError(
            "The storage is no URL of a database: write it as Optuna takes it, such as "
            "sqlite:///optuna.db"
        ) from None
    options: dict[str, Any] = {}
    if parsed.get_backend_name() == "sqlite":
        path = absolute(str(parsed.database))
        if not path.is_file():
            raise NotFoundError(f"{redact(url)}: there is no such file.")
        file = f"file:{quote(str(path))}?mode=ro"
        options = {"creator": partial(sqlite3.connect, file, uri=True, check_same_thread=False)}
    elif parsed.get_backend_name() == "postgresql":
        options = {"connect_args": {"options": "-c default_transaction_read_only=on"}}
    plain = parsed.render_as_string(hide_password=False)
    return RDBStorage(
        plain.replace("{", "{{").replace("}", "}}"),  # Optuna formats it
        engine_kwargs=options,
        skip_table_creation=True,
    )


@dataclass(frozen=True)
class ForeignStudy:
    """A study of somebody's, as it was read.

    Attributes:
        name: Its name.
        source: Where it was read, without a password.
        maximizes: Whether a larger value is better.
        metric: The name of its value, if it has one.
        trials: Its trials, by number.
    """

    name: str
    source: str
    maximizes: bool
    metric: str | None
    trials: tuple[FrozenTrial, ...]


def read_foreign(url: str, name: str) -> ForeignStudy:
    """Reads a study of somebody's from a storage of Optuna's, which is not written.

    Args:
        url: The URL of a database, or the path of a journal.
        name: The study's name.

    Raises:
        NotFoundError: If there is no such storage, or no such study in it.
        SpecError: If it has several objectives, or the storage is none of Optuna's.
        StorageError: If it cannot be read.
    """
    source = redact(url) if "://" in url else url
    with open_foreign(url) as storage:
        names = [study.study_name for study in storage.get_all_studies()]
        if name not in names:
            raise NotFoundError(
                f"{source} has no study {name!r}"
                + (f": {suggest(name, names)}" if names else ": it has none at all.")
            )
        study_id = storage.get_study_id_from_name(name)
        directions = storage.get_study_directions(study_id)
        if len(directions) != 1:
            raise SpecError(
                f"{name!r} has {len(directions)} objectives; a study here has one. Import a study "
                "with one objective."
            )
        named = storage.get_study_system_attrs(study_id).get(_METRICS) or [None]
        trials = storage.get_all_trials(study_id, deepcopy=False)
        return ForeignStudy(
            name=name,
            source=source,
            maximizes=directions[0] is StudyDirection.MAXIMIZE,
            metric=named[0],
            trials=tuple(sorted(trials, key=lambda trial: trial.number)),
        )


_METRICS = "study:metric_names"
"""The attribute in which Optuna keeps the names of a study's values."""
