from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.script import ScriptDirectory

from tests.conftest import MakeSpec
from tuner.errors import StorageError
from tuner.store import Database, Studies, open_database
from tuner.store.connection import versions
from tuner.store.connection.database import upgrade_database
from tuner.store.status import read_status
from tuner.store.tables import metadata

MIGRATIONS = Path(versions.__file__).parents[1] / "migrations"
OLD_WORKER: dict[str, Any] = {
    "worker_id": "w",
    "ordinal": 0,
    "host": "host",
    "pid": 1,
    "device": "cpu",
    "version": "0.1.0",
    "seed": "7",
    "started_at": 1.0,
    "last_seen": 2.5,
}


OLD_LEASE: dict[str, Any] = {
    "number": 0,
    "token": "t",
    "worker_id": None,
    "expires_at": 1.0,
    "step": 5,
    "attempts": 1,
}


@pytest.fixture
def first(database: Database, make_spec: MakeSpec) -> str:
    """Returns the URL of a database as the first version of our tables left it, with a study."""
    study = Studies(database).create(make_spec())
    with database.write() as connection:
        metadata.drop_all(connection)
        connection.exec_driver_sql(f"DROP TABLE {versions.VERSION_TABLE}")
        versions.migrate(connection, "0001")
        for name, row in (("tuner_workers", OLD_WORKER), ("tuner_leases", OLD_LEASE)):
            columns: list[sa.ColumnClause[Any]] = [
                sa.column(column) for column in (*row, "study_uuid")
            ]
            connection.execute(
                sa.insert(sa.table(name, *columns)).values(**row, study_uuid=study.uuid)
            )
    return database.url


def test_versions_are_those_of_the_migrations() -> None:
    scripts = ScriptDirectory(MIGRATIONS)
    found = [script.revision for script in scripts.walk_revisions()]
    assert list(versions.REVISIONS) == found[::-1]


def test_database_of_an_older_version_says_what_to_run(first: str) -> None:
    for create in (False, True):
        with pytest.raises(StorageError, match=r"version 0001.*run 'tuner db upgrade'"):
            open_database(first, create=create)


def test_status_tells_of_an_older_version_and_changes_nothing(first: str) -> None:
    status = read_status(first)
    assert status.needs_upgrade
    assert (status.revision, status.known) == ("0001", versions.HEAD)
    assert (status.studies, status.trials) == (1, 0)
    assert read_status(first) == status


def test_upgrade_keeps_what_was_recorded(first: str) -> None:
    assert upgrade_database(first) == ("0001", versions.HEAD)
    database = open_database(first)
    study = Studies(database).find("small")
    with database.read() as connection:
        [worker] = connection.execute(sa.select(metadata.tables["tuner_workers"])).all()
        [lease] = connection.execute(sa.select(metadata.tables["tuner_leases"])).all()
    assert worker._asdict() == OLD_WORKER | {
        "study_uuid": study.uuid,
        "machine": "",
        "software": "",
        "leaving": 0,
        "worked_s": 1.5,
        "study_s": 1.5,
    }
    assert lease._asdict() == OLD_LEASE | {
        "study_uuid": study.uuid,
        "checkpoint": None,
        "paused": 0,
    }
    database.close()
    assert upgrade_database(first) == (versions.HEAD, versions.HEAD)
    assert not read_status(first).needs_upgrade


def test_upgrade_of_an_empty_database_makes_its_tables(database_url: str) -> None:
    assert upgrade_database(database_url) == (None, versions.HEAD)
    open_database(database_url).close()


def test_status_of_an_empty_database_makes_no_tables(postgres_url: str) -> None:
    status = read_status(postgres_url)
    assert status.backend == "PostgreSQL"
    assert (status.revision, status.optuna_revision, status.needs_upgrade) == (None, None, True)
    assert read_status(postgres_url) == status
