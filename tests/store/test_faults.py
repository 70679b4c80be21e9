from __future__ import annotations

import sqlite3
import threading
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.conftest import PASSWORD, away
from tuner.errors import StorageError, UnavailableError
from tuner.store import Database, engines, open_database
from tuner.store.urls import redact


def everything_said(error: BaseException) -> str:
    """Returns what a traceback shows, and the text of every error below, shown or not."""
    text = "".join(traceback.format_exception(error))
    cause: BaseException | None = error
    while cause is not None:
        text += repr(cause)
        cause = cause.__cause__
    return text


def test_statement_that_is_wrong_is_no_matter_of_waiting(database: Database) -> None:
    with pytest.raises(StorageError) as caught, database.read() as connection:
        connection.exec_driver_sql("SELECT 1 FROM nowhere")
    assert not isinstance(caught.value, UnavailableError)
    assert "nowhere" in str(caught.value)
    assert "SELECT" not in str(caught.value)


def test_row_that_is_there_already_is_no_matter_of_waiting(database: Database) -> None:
    def insert() -> None:
        with database.write() as connection:
            connection.exec_driver_sql("INSERT INTO studies (study_id, study_name) VALUES (1, 'a')")

    insert()
    with pytest.raises(StorageError) as caught:
        insert()
    assert not isinstance(caught.value, UnavailableError)


def test_locked_sqlite_database_is_away_for_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engines, "_BUSY_TIMEOUT_S", 0)
    database = open_database(f"sqlite:///{tmp_path / 'a.db'}", create=True)
    other = sqlite3.connect(tmp_path / "a.db", isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    with pytest.raises(UnavailableError, match="held the database"), database.write():
        pass
    other.execute("ROLLBACK")
    other.close()
    with database.write():
        pass
    database.close()


class TestPostgreSQL:
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url

    def test_connection_cut_between_transactions_goes_unnoticed(
        self, postgres_server: str, database: Database
    ) -> None:
        with away(postgres_server, database.url):
            pass
        assert database.clock_s() > 0

    def test_connection_cut_in_a_transaction_is_away_for_now(
        self, postgres_server: str, database: Database
    ) -> None:
        def write() -> None:
            with database.write() as connection:
                with away(postgres_server, database.url):
                    pass
                connection.exec_driver_sql("SELECT 1")

        with pytest.raises(UnavailableError):
            write()
        assert database.clock_s() > 0

    def test_database_that_takes_no_connections_is_away_for_now(
        self, postgres_server: str, database: Database
    ) -> None:
        with away(postgres_server, database.url), pytest.raises(UnavailableError):
            database.clock_s()

    def test_server_that_does_not_run_is_away_for_now(self, tmp_path: Path) -> None:
        url = f"postgresql://ann:hunter2@/tuner?host={tmp_path}"
        with pytest.raises(UnavailableError, match="is the database server running") as caught:
            open_database(url)
        assert "hunter2" not in everything_said(caught.value)

    def test_too_many_connections_are_a_matter_of_waiting(self, postgres_url: str) -> None:
        url = sa.make_url(postgres_url).set(username="crowded").render_as_string()
        with pytest.raises(UnavailableError, match="too many connections"):
            open_database(url)

    def test_deadlock_is_a_matter_of_trying_again(self, database: Database) -> None:
        with database.write() as connection:
            connection.exec_driver_sql("INSERT INTO studies VALUES (1, 'a'), (2, 'b')")
        both_hold_one = threading.Barrier(2)

        def lock(order: tuple[int, int]) -> str:
            try:
                with database.write() as connection:
                    for study_id in order:
                        connection.exec_driver_sql(
                            f"SELECT * FROM studies WHERE study_id = {study_id} FOR UPDATE"  # noqa: S608
                        )
                        if study_id == order[0]:
                            both_hold_one.wait()
            except UnavailableError as error:
                return str(error)
            return ""

        with ThreadPoolExecutor(2) as pool:
            assert "deadlock" in "".join(pool.map(lock, ((1, 2), (2, 1))))

    def test_write_about_what_was_just_deleted_is_a_matter_of_looking_again(
        self, database: Database
    ) -> None:
        with (
            pytest.raises(UnavailableError, match="foreign key"),
            database.write() as connection,
        ):
            connection.exec_driver_sql(
                "INSERT INTO study_user_attributes (study_id, key, value_json) "
                "VALUES (1, 'key', '1')"
            )

    def test_missing_database_is_told_with_the_remedy(self, postgres_server: str) -> None:
        url = sa.make_url(postgres_server).set(database="none").render_as_string()
        with pytest.raises(StorageError, match="createdb none") as caught:
            open_database(url)
        assert not isinstance(caught.value, UnavailableError)

    def test_wrong_password_is_no_matter_of_waiting_and_never_shown(
        self, postgres_url: str
    ) -> None:
        url = sa.make_url(postgres_url).set(username="locked", password=f"not {PASSWORD}")
        with pytest.raises(StorageError, match="check the name and the password") as caught:
            open_database(url.render_as_string(hide_password=False))
        assert not isinstance(caught.value, UnavailableError)
        assert PASSWORD not in everything_said(caught.value)

    @pytest.mark.parametrize(
        "tear",
        [
            lambda url: f"{url}&port=hunter2&password=hunter2",
            lambda url: f"{url}&password=hunter2&hunter2=1",
            lambda url: f"{url}&password=hunter2&options=-c%20hunter2%3D1",
        ],
        ids=["port", "option", "setting"],
    )
    def test_secret_that_the_driver_repeats_is_never_shown(
        self, postgres_url: str, tear: Callable[[str], str]
    ) -> None:
        url = tear(postgres_url)
        with pytest.raises(StorageError) as caught:
            open_database(url)
        assert "hunter2" not in everything_said(caught.value).replace(redact(url), "")
