from __future__ import annotations

import sqlite3
import threading
import time
import traceback
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from queue import Queue

import pytest
import sqlalchemy as sa

from tests.conftest import PASSWORD, away, run_on
from tuner.errors import StorageError, UnavailableError
from tuner.store import Database, open_database
from tuner.store.connection import engines
from tuner.store.connection.urls import redact

CODES = """
03000 08000 08001 08003 08004 08006 08007 08P01 09000 0A000 0B000 0F000 0L000 0P000 20000 21000
22000 22003 22012 22P02 23000 23502 23503 23505 23514 24000 25000 25001 25006 25P01 25P02 25P03
25P04 26000 27000 28000 28P01 2B000 2D000 2F000 34000 38000 39000 3B000 3D000 3F000 40000 40001
40002 40003 40P01 42000 42601 42703 42804 42P01 42P05 44000 53000 53100 53200 53300 53400 54000
54001 55000 55006 55P02 55P03 57000 57014 57P01 57P02 57P03 57P04 57P05 58000 58030 58P01 58P02
72000 F0000 HV000 P0000 P0001 XX000 XX001 XX002
"""
"""Of each class in PostgreSQL's Appendix A, the codes that a statement of ours might meet."""

PASSING = """
08000 08001 08003 08004 08006 08007 08P01 23503 25006 25P03 25P04 26000 40000 40001 40002 40003
40P01 53000 53200 53300 53400 55006 55P03 57000 57014 57P01 57P02 57P03 57P05 58000 58030 72000
XX000
"""


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
                            f"SELECT * FROM studies WHERE study_id = {study_id} FOR UPDATE"
                        )
                        if study_id == order[0]:
                            both_hold_one.wait()
            except UnavailableError as error:
                return str(error)
            return ""

        with ThreadPoolExecutor(2) as pool:
            assert "deadlock" in "".join(pool.map(lock, ((1, 2), (2, 1))))

    def test_conflict_between_transactions_is_a_matter_of_trying_again(
        self, database: Database
    ) -> None:
        def rename(name: str) -> str:
            return f"UPDATE studies SET study_name = '{name}'"

        def lose() -> None:
            with database.write() as connection:
                connection.exec_driver_sql("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
                connection.exec_driver_sql("SELECT * FROM studies")
                with database.write() as other:
                    other.exec_driver_sql(rename("b"))
                connection.exec_driver_sql(rename("c"))

        with database.write() as connection:
            connection.exec_driver_sql("INSERT INTO studies VALUES (1, 'a')")
        with pytest.raises(UnavailableError, match="concurrent update"):
            lose()

    def test_statement_that_takes_too_long_is_tried_again(self, database: Database) -> None:
        def sleep() -> None:
            with database.write() as connection:
                connection.exec_driver_sql("SET LOCAL statement_timeout = '50ms'")
                connection.exec_driver_sql("SELECT pg_sleep(60)")

        with pytest.raises(UnavailableError, match="longer than the server's statement_timeout"):
            sleep()
        assert database.clock_s() > 0

    def test_statement_that_an_operator_cancels_is_tried_again(self, database: Database) -> None:
        pids: Queue[int] = Queue()

        def sleep() -> None:
            with database.write() as connection:
                pids.put(connection.exec_driver_sql("SELECT pg_backend_pid()").scalar_one())
                connection.exec_driver_sql("SELECT pg_sleep(60)")

        with ThreadPoolExecutor(1) as pool:
            asleep = pool.submit(sleep)
            cancel = f"SELECT pg_cancel_backend({pids.get(timeout=60)})"
            while not asleep.done():
                run_on(database.url, cancel)
                time.sleep(0.01)
            with pytest.raises(UnavailableError, match="somebody has cancelled the statement"):
                asleep.result()
        assert database.clock_s() > 0

    def test_timeout_that_is_taken_back_counts_no_more(
        self, postgres_server: str, database: Database
    ) -> None:
        def sleep() -> None:
            with database.write() as connection:
                connection.exec_driver_sql("SELECT pg_sleep(0.5)")

        name = sa.make_url(database.url).database
        run_on(postgres_server, f"ALTER DATABASE {name} SET statement_timeout = '100ms'")
        database.engine.dispose()  # connections keep what they started with
        with pytest.raises(UnavailableError, match="longer than the server's statement_timeout"):
            sleep()
        run_on(postgres_server, f"ALTER DATABASE {name} RESET statement_timeout")
        sleep()

    def test_transaction_that_idled_for_too_long_is_tried_again(self, database: Database) -> None:
        def idle() -> None:
            with database.write() as connection:
                connection.exec_driver_sql("SET LOCAL idle_in_transaction_session_timeout = '20ms'")
                time.sleep(0.2)
                connection.exec_driver_sql("SELECT 1")

        with pytest.raises(UnavailableError):
            idle()
        assert database.clock_s() > 0

    def test_server_that_takes_no_writes_for_a_while_is_connected_to_anew(
        self, postgres_server: str, database: Database
    ) -> None:
        name = sa.make_url(database.url).database
        run_on(postgres_server, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
        database.engine.dispose()  # as a failover does
        with (
            pytest.raises(UnavailableError, match="a standby, or a failover is under way"),
            database.write() as connection,
        ):
            connection.exec_driver_sql("INSERT INTO studies VALUES (1, 'a')")
        run_on(postgres_server, f"ALTER DATABASE {name} RESET default_transaction_read_only")
        with database.write() as connection:
            connection.exec_driver_sql("INSERT INTO studies VALUES (1, 'a')")

    def test_every_class_of_codes_is_either_a_matter_of_waiting_or_not(
        self, database: Database
    ) -> None:
        def pass_(code: str) -> bool:
            raising = f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$"
            with pytest.raises(StorageError) as caught, database.write() as connection:
                connection.exec_driver_sql(raising)
            return isinstance(caught.value, UnavailableError)

        passing = [code for code in CODES.split() if pass_(code)]
        assert passing == PASSING.split()

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
