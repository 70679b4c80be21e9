"""The status of a database: its server, the versions of its tables, its size in trials."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from tuner.store.connection import versions
from tuner.store.connection.database import check_place, translated
from tuner.store.connection.engines import engine_options, for_reading
from tuner.store.connection.urls import parse_url, redact
from tuner.store.identity import UUID
from tuner.store.optuna import tables as ot

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
    check_place(url, create=False)
    parsed = parse_url(url)
    with translated(url):
        engine = sa.create_engine(parsed, **engine_options(parsed))
        try:
            with engine.connect() as connection:
                return _read(for_reading(connection), url)
        finally:
            engine.dispose()


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
