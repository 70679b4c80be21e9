from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from tests.conftest import PASSWORD, MakeSpec, away, run_on
from tuner.errors import NotFoundError, StorageError, UnavailableError
from tuner.store import Database, Studies, open_database
from tuner.store.connection import file_systems
from tuner.store.connection.database import upgrade_database
from tuner.store.connection.urls import sqlite_path
from tuner.store.optuna.tables import studies
from tuner.store.tables import metadata


def url_of(path: Path) -> str:
    return f"sqlite:///{path}"


def test_new_sqlite_database_is_in_wal_mode(tmp_path: Path) -> None:
    database = open_database(url_of(tmp_path / "a.db"), create=True)
    with database.read() as connection:
        assert connection.exec_driver_sql("PRAGMA journal_mode").scalar() == "wal"
    database.close()


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
def test_database_of_a_newer_version_is_refused(database: Database, table: str) -> None:
    with database.write() as connection:
        connection.exec_driver_sql(f"UPDATE {table} SET version_num = '9999'")
    for create in (False, True):
        with pytest.raises(StorageError, match="9999"):
            open_database(database.url, create=create)
    with pytest.raises(StorageError, match="9999"):
        upgrade_database(database.url)


def test_database_of_optuna_alone_has_no_studies_of_ours_until_one_is_created(
    database_url: str,
) -> None:
    storage = optuna.storages.RDBStorage(database_url)
    optuna.create_study(study_name="theirs", storage=storage)
    storage.remove_session()
    storage.engine.dispose()
    with pytest.raises(NotFoundError, match="without studies of tuner"):
        open_database(database_url)
    database = open_database(database_url, create=True)
    with database.read() as connection:
        assert sa.inspect(connection).has_table("tuner_leases")
    assert optuna.load_study(study_name="theirs", storage=database.storage).trials == []
    database.close()


def test_empty_database_is_a_database_to_be(database_url: str) -> None:
    path = sqlite_path(database_url)
    if path is not None:
        path.touch()
    with pytest.raises(NotFoundError, match="without studies of tuner"):
        open_database(database_url)
    open_database(database_url, create=True).close()
    open_database(database_url).close()


def test_failed_write_leaves_nothing_behind(database: Database) -> None:
    def write_and_fail() -> None:
        with database.write() as connection:
            connection.exec_driver_sql(
                "INSERT INTO tuner_leases VALUES ('u', 1, 't', NULL, 0, 0, 0, NULL, 0)"
            )
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        write_and_fail()
    with database.read() as connection:
        assert connection.exec_driver_sql("SELECT count(*) FROM tuner_leases").scalar() == 0


@pytest.mark.parametrize("fate", ["deleted", "replaced"])
def test_file_lost_while_it_is_in_use_is_told(tmp_path: Path, fate: str) -> None:
    path = tmp_path / "a.db"
    database = open_database(url_of(path), create=True)
    path.rename(tmp_path / "elsewhere.db")
    if fate == "replaced":
        open_database(url_of(path), create=True).close()
    for use in (database.read, database.write):
        with pytest.raises(StorageError, match="deleted, moved or replaced"), use():
            pass
    (tmp_path / "elsewhere.db").replace(path)
    assert database.clock_s() > 0
    database.close()


def test_file_of_a_relative_path_is_found_from_another_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    database = open_database("sqlite:///a.db", create=True)
    monkeypatch.chdir("/")
    assert database.clock_s() > 0
    database.close()


def test_calm_counts_from_when_it_was_opened_or_last_found_away(
    postgres_server: str, postgres_url: str
) -> None:
    begun = time.monotonic()
    database = open_database(postgres_url, create=True)
    assert 0 <= database.calm_s <= time.monotonic() - begun
    begun = time.monotonic()
    with away(postgres_server, postgres_url), pytest.raises(UnavailableError):
        database.clock_s()
    assert database.calm_s <= time.monotonic() - begun
    database.close()


def test_clock_of_the_database_runs_in_seconds_since_1970(database: Database) -> None:
    first = database.clock_s()
    assert first > 1.7e9
    assert database.clock_s() >= first


def test_one_state_of_the_database_is_read(database: Database, make_spec: MakeSpec) -> None:
    count = sa.select(sa.func.count()).select_from(studies)
    with database.read() as connection:
        before = connection.execute(count).scalar()
        Studies(database).create(make_spec())
        assert connection.execute(count).scalar() == before
    with database.read() as connection:
        assert connection.execute(count).scalar() == 1


def test_password_of_any_characters_opens_a_database(
    postgres_server: str, postgres_url: str
) -> None:
    url = sa.make_url(postgres_url).set(username="locked", password=PASSWORD)
    run_on(postgres_server, f"ALTER DATABASE {url.database} OWNER TO locked")
    database = open_database(url.render_as_string(hide_password=False), create=True)
    assert PASSWORD not in database.name
    assert database.clock_s() > 0
    database.close()


def test_path_of_any_characters_opens_a_database(tmp_path: Path) -> None:
    open_database(url_of(tmp_path / "my {study} 50%.db"), create=True).close()
    assert (tmp_path / "my {study} 50%.db").exists()


@pytest.mark.parametrize("scheme", ["postgres", "postgresql", "postgresql+psycopg"])
def test_postgresql_is_reached_by_every_spelling(postgres_url: str, scheme: str) -> None:
    database = open_database(f"{scheme}://{postgres_url.partition('://')[2]}", create=True)
    with database.read() as connection:
        name = connection.exec_driver_sql("SHOW application_name").scalar()
        idle = connection.exec_driver_sql("SHOW idle_in_transaction_session_timeout").scalar()
    assert (name, idle) == ("tuner", "1min")
    database.close()


def test_options_in_the_url_come_before_ours(postgres_url: str) -> None:
    database = open_database(f"{postgres_url}&application_name=mine", create=True)
    with database.read() as connection:
        assert connection.exec_driver_sql("SHOW application_name").scalar() == "mine"
    database.close()


def test_sqlite_file_on_a_network_file_system_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mounts = tmp_path / "mountinfo"
    mounts.write_text(f"1 0 0:1 / {tmp_path} rw - nfs4 server:/data rw\n")
    monkeypatch.setattr(file_systems, "_MOUNTS", mounts)
    with pytest.raises(StorageError, match=r"nfs4.*use PostgreSQL"):
        open_database(url_of(tmp_path / "a.db"), create=True)
    assert not (tmp_path / "a.db").exists()


_CREATE = """
import sys
from tuner.store import open_database
sys.stdin.readline()
open_database(sys.argv[1], create=True).close()
"""


def test_processes_that_create_one_database_at_once_all_succeed(database_url: str) -> None:
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _CREATE, database_url],
            stdin=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for process in processes:
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    assert [process.communicate(timeout=60)[1] for process in processes] == [""] * 4
