from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tuner.errors import NotFoundError, SpecError, StorageError
from tuner.store import Database, open_database
from tuner.store.tables import metadata
from tuner.store.urls import redact


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def test_new_database_is_in_wal_mode(database: Database) -> None:
    with database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"


def test_migrations_make_exactly_the_tables_the_code_declares(database: Database) -> None:
    with database.read() as connection:
        context = MigrationContext.configure(
            connection,
            opts={
                "version_table": "tuner_alembic_version",
                "include_name": lambda name, kind, _: kind != "table" or name in metadata.tables,
            },
        )
        assert compare_metadata(context, metadata) == []


def test_opening_a_database_that_does_not_exist_creates_no_file(tmp_path: Path) -> None:
    path = tmp_path / "none.db"
    with pytest.raises(NotFoundError, match="tuner study create"):
        open_database(url_of(path))
    assert not path.exists()


def test_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="missing"):
        open_database(url_of(tmp_path / "missing" / "a.db"), create=True)


def test_file_that_is_no_database_is_refused_and_kept(tmp_path: Path) -> None:
    path = tmp_path / "notes.db"
    path.write_text("these are my notes, not a database, and I would like to keep them\n" * 20)
    before = path.read_bytes()
    with pytest.raises(StorageError, match="something else than a SQLite database"):
        open_database(url_of(path), create=True)
    assert path.read_bytes() == before


@pytest.mark.parametrize("table", ["tuner_alembic_version", "alembic_version"])
def test_database_of_a_newer_version_is_refused(tmp_path: Path, table: str) -> None:
    path = tmp_path / "newer.db"
    open_database(url_of(path), create=True).close()
    with sqlite3.connect(path) as connection:
        connection.execute(f"UPDATE {table} SET version_num = '9999'")  # noqa: S608 (a constant)
    connection.close()
    with pytest.raises(StorageError, match="9999"):
        open_database(url_of(path))


def test_database_of_optuna_alone_has_no_studies_of_ours_until_one_is_created(
    tmp_path: Path,
) -> None:
    path = tmp_path / "optuna.db"
    storage = optuna.storages.RDBStorage(url_of(path))
    optuna.create_study(study_name="theirs", storage=storage)
    storage.remove_session()
    storage.engine.dispose()
    with pytest.raises(NotFoundError, match="without studies of tuner"):
        open_database(url_of(path))
    database = open_database(url_of(path), create=True)
    with database.read() as connection:
        assert sa.inspect(connection).has_table("tuner_leases")
    assert optuna.load_study(study_name="theirs", storage=database.storage).trials == []
    database.close()


def test_empty_file_is_a_database_to_be(tmp_path: Path) -> None:
    path = tmp_path / "empty.db"
    path.touch()
    with pytest.raises(NotFoundError, match="without studies of tuner"):
        open_database(url_of(path))
    open_database(url_of(path), create=True).close()
    open_database(url_of(path)).close()


def test_failed_write_leaves_nothing_behind(database: Database) -> None:
    def write_and_fail() -> None:
        with database.write() as connection:
            connection.exec_driver_sql(
                "INSERT INTO tuner_leases VALUES ('u', 1, 't', NULL, 0, 0, 0)"
            )
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM tuner_leases").scalar() == 0


def test_clock_of_the_database_runs_in_seconds_since_1970(database: Database) -> None:
    first = database.clock_s()
    assert first > 1.7e9
    assert database.clock_s() >= first


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("tuner.db", "sqlite:///tuner.db"),
        ("mysql://root@localhost/x", "not on mysql"),
        ("sqlite://", "cannot share memory"),
        ("", "sqlite:///tuner.db"),
        ("sqlite:///a.db?mode=ro&uri=true", "takes no options"),
        ("postgresql://ann:p/w@host:port/db", "no database URL"),
    ],
)
def test_url_that_is_none_of_ours_is_refused_with_the_remedy(url: str, message: str) -> None:
    with pytest.raises(SpecError, match=message):
        open_database(url)


def test_password_is_never_shown() -> None:
    assert "hunter2" not in redact("postgresql+psycopg://ann:hunter2@db.example/tuner")
    assert "hunter2" not in redact("not a url with hunter2")
    assert "hunter2" not in redact("postgresql://db/tuner?user=ann&password=hunter2")
    assert "hunter2" not in redact("postgresql://ann:hunter2@db:port/tuner")


_CREATE = """
import sys
from tuner.store import open_database
sys.stdin.readline()
open_database(sys.argv[1], create=True).close()
"""


def test_processes_that_create_one_database_at_once_all_succeed(tmp_path: Path) -> None:
    for attempt in range(2):
        command = [sys.executable, "-c", _CREATE, url_of(tmp_path / f"{attempt}.db")]
        processes = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
            for _ in range(4)
        ]
        for process in processes:
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [process.communicate(timeout=60)[1] for process in processes] == [""] * 4
