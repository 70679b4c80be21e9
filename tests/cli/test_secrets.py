"""A password planted in the database's URL comes out nowhere."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from tests.conftest import PASSWORD, away, run_on
from tuner.cli.main import UNAVAILABLE, cli

Tuner = Callable[..., subprocess.CompletedProcess[str]]

# A piece of the password, plain and as URLs spell it.
PIECES = ("{ter}2", "%7bter%7d2")

SMALL = ("--set", "budget.trials=2", "--set", "budget.epochs=1")
FAILING = '''
import os


def train(run):
    """Fails as a library does that shows what it was given."""
    try:
        raise OSError(f"cannot reach {os.environ['TUNER_STORAGE']}")
    except OSError as error:
        raise RuntimeError(f"no data in {dict(os.environ)}") from error
'''


@pytest.fixture
def secret_url(postgres_server: str, postgres_url: str) -> str:
    """Returns the URL of a database whose owner logs in with a password."""
    url = sa.make_url(postgres_url).set(username="locked", password=PASSWORD)
    run_on(postgres_server, f"ALTER DATABASE {url.database} OWNER TO locked")
    return url.render_as_string(hide_password=False)


def leaks(text: str) -> bool:
    return any(piece in text.lower() for piece in PIECES)


class Watch:
    """Looks at the arguments of every process on this machine, again and again.

    Attributes:
        workers: How often it saw a process that works on a study.
        leaks: Arguments with a piece of the password.
    """

    def __init__(self) -> None:
        self.workers = 0
        self.leaks: set[str] = set()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._over.wait(0.1):
            for path in Path("/proc").glob("[0-9]*/cmdline"):
                try:
                    line = path.read_text(errors="replace").replace("\0", " ")
                except OSError:
                    continue  # it has ended
                self.workers += "worker start" in line
                if leaks(line):
                    self.leaks.add(line)


def stored(url: str) -> dict[str, str]:
    """Returns everything in a database, by table."""
    engine = sa.create_engine(url, poolclass=sa.NullPool)
    with engine.connect() as connection:
        tables = sa.inspect(connection).get_table_names()
        return {
            table: "\n".join(
                connection.exec_driver_sql(f'SELECT t::text FROM "{table}" t').scalars()
            )
            for table in tables
        }


def say_while_waiting(*arguments: str) -> str:
    """Returns what a worker says that waits for its database and is then asked to end."""
    command = [sys.executable, "-m", "tuner", *arguments]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as worker:
        assert worker.stdout is not None
        said = next(line for line in worker.stdout if "tried again" in line)
        worker.terminate()
        return said + worker.stdout.read()


@pytest.mark.slow
def test_password_in_the_url_comes_out_nowhere(
    tuner: Tuner,
    project: Path,
    tmp_path: Path,
    secret_url: str,
    postgres_server: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    said: dict[tuple[str, ...], str] = {}

    def say(*arguments: str, code: int = 0) -> str:
        ended = tuner(*arguments)
        said[arguments] = ended.stdout + ended.stderr
        assert ended.returncode == code, said[arguments]
        return said[arguments]

    def say_here(*arguments: str, code: int = 0) -> str:
        ended = CliRunner().invoke(cli, arguments)  # without the seconds that a process takes
        said[arguments] = ended.output
        assert ended.exit_code == code, said[arguments]
        return said[arguments]

    (project / "models" / "failing.py").write_text(FAILING)
    monkeypatch.setenv("TUNER_STORAGE", secret_url)
    say_here("study", "create", "studies/parabola.toml", *SMALL)
    failing = ("study", "create", "--workload", "models.failing:train", "--name", "failing")
    say(*failing, *SMALL, "--no-check")
    say(*failing, *SMALL, "--name", "checked", code=1)
    monkeypatch.delenv("TUNER_STORAGE")
    file = tmp_path / "url"
    file.write_text(f"{secret_url}\n")
    monkeypatch.setenv("TUNER_STORAGE_FILE", str(file))

    with Watch() as watch:
        say("run", "studies/parabola.toml", *SMALL, "--workers", "2")
        say("study", "run", "failing", code=1)
    assert watch.workers
    assert not watch.leaks

    for style in ("terminal", "json", "markdown", "html"):
        say_here("study", "report", "parabola", "--format", style, "--output", f"report.{style}")
        say_here("study", "report", "failing", "--format", style)
    for style in ("python", "toml", "json"):
        say_here("study", "export", "parabola", "--format", style, "--output", f"winner.{style}")
    for arguments in (("study", "show", "failing"), ("study", "list"), ("db", "status")):
        say_here(*arguments, "--json")
    assert "no data in" in say_here("trial", "show", "failing", "0")
    assert "Warning: --storage holds a password" in say_here(
        "study", "list", "--storage", secret_url
    )
    with away(postgres_server, secret_url):
        say_here("study", "list", code=UNAVAILABLE)
        say("--debug", "study", "show", "parabola", code=1)
        said["worker", "waiting"] = say_while_waiting("--debug", "worker", "start", "parabola")

    assert not [arguments for arguments, text in said.items() if leaks(text)]
    written = [path for path in project.rglob("*") if path.is_file()]
    assert any(path.name == "worker-1.log" for path in written)
    assert not [path for path in written if leaks(path.read_bytes().decode("latin-1"))]
    rows = stored(secret_url)
    assert "no data in" in rows["trial_user_attributes"]
    assert not [table for table, text in rows.items() if leaks(text)]


def test_password_on_the_command_line_is_warned_of_once(tuner: Tuner, tmp_path: Path) -> None:
    url = "postgresql://ann:hunter2@nowhere.invalid/tuner"
    warned = tuner("study", "list", "--storage", url).stderr
    assert warned.count("Warning: --storage holds a password") == 1
    assert "TUNER_STORAGE_FILE" in warned
    assert "hunter2" not in warned
    quiet = tuner("study", "list", "--storage", "sqlite:///tuner.db")
    assert "Warning" not in quiet.stderr


def test_dashboard_of_a_database_that_asks_for_a_password_does_not_show_it(
    tuner: Tuner, project: Path, secret_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_STORAGE", secret_url)
    assert tuner("db", "upgrade").returncode == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner", "dashboard", "--port", "0"],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
    finally:
        process.terminate()
        out, err = process.communicate(timeout=30)
    assert "locked:***@" in line
    assert not leaks(line + out + err)
