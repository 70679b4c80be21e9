from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.conftest import PASSWORD, run_on
from tuner.store.connection.versions import HEAD, VERSION_TABLE, migrate
from tuner.store.optuna.tables import SCHEMA_REVISION
from tuner.store.tables import metadata

Tuner = Callable[..., subprocess.CompletedProcess[str]]


def test_status_of_a_missing_database_creates_nothing(typed: Tuner, project: Path) -> None:
    ended = typed("db", "status")
    assert ended.returncode == 2
    assert "there is no database yet" in ended.stderr
    assert not (project / "tuner.db").exists()


def test_database_is_made_then_up_to_date(typed: Tuner, project: Path) -> None:
    made = typed("db", "upgrade")
    assert made.stdout == f"sqlite:///tuner.db has its tables now, of version {HEAD}.\n"
    again = typed("db", "upgrade")
    assert again.stdout == f"sqlite:///tuner.db is at version {HEAD} already.\n"
    shown = typed("db", "status").stdout
    assert "SQLite 3" in shown
    assert "0 with 0 trials" in shown
    assert "not needed" in shown


def test_outdated_database_is_refused_until_it_is_upgraded(
    tuner: Tuner, typed: Tuner, project: Path
) -> None:
    typed("db", "upgrade")
    engine = sa.create_engine("sqlite:///tuner.db", poolclass=sa.NullPool)
    with engine.begin() as connection:
        metadata.drop_all(connection)
        connection.exec_driver_sql(f"DROP TABLE {VERSION_TABLE}")
        migrate(connection, "0001")
    commands = (("study", "list"), ("trial", "show", "small", "0"))
    for ended in (*(typed(*command) for command in commands), tuner("worker", "start", "a")):
        assert ended.returncode == 1
        assert "run 'tuner db upgrade'" in ended.stderr
    assert "run 'tuner db upgrade'" in typed("db", "status").stdout
    assert (
        typed("db", "upgrade").stdout == f"sqlite:///tuner.db went from version 0001 to {HEAD}.\n"
    )
    assert typed("study", "list").returncode == 0


def test_status_of_postgresql_is_told_without_the_password(
    typed: Tuner, postgres_server: str, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = sa.make_url(postgres_url).set(username="locked", password=PASSWORD)
    run_on(postgres_server, f"ALTER DATABASE {url.database} OWNER TO locked")
    monkeypatch.setenv("TUNER_STORAGE", url.render_as_string(hide_password=False))
    assert typed("db", "upgrade").returncode == 0
    ended = typed("db", "status", "--json")
    status = json.loads(ended.stdout)
    assert status["backend"] == "PostgreSQL"
    assert status["storage"].startswith("postgresql+psycopg://locked:***@/")
    assert (status["revision"], status["optuna_revision"]) == (HEAD, SCHEMA_REVISION)
    assert (status["studies"], status["trials"], status["needs_upgrade"]) == (0, 0, False)


@pytest.mark.parametrize("debug", [(), ("--debug",)], ids=["told", "traced"])
def test_wrong_password_is_not_repeated(
    tuner: Tuner, postgres_url: str, debug: tuple[str, ...]
) -> None:
    url = sa.make_url(postgres_url).set(username="locked", password="hunter2")  # noqa: S106
    ended = tuner(*debug, "db", "status", "--storage", url.render_as_string(hide_password=False))
    assert ended.returncode == 1
    assert "check the name and the password" in ended.stderr
    assert "hunter2" not in ended.stdout + ended.stderr
