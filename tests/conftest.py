"""What many tests start from: a database, a study, a project folder, the command line."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tuner.domain.spec import StudySpec
from tuner.domain.study_file import parse_spec
from tuner.store import Database, Studies, StudyHandle, open_database

ROOT = Path(__file__).parents[1]

MakeSpec = Callable[..., StudySpec]


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
        return parse_spec(tree | tables, origin="test").resolve()

    return make


@pytest.fixture
def database(tmp_path: Path) -> Iterator[Database]:
    """Returns an empty database."""
    opened = open_database(f"sqlite:///{tmp_path / 'tuner.db'}", create=True)
    yield opened
    opened.close()


@pytest.fixture
def study(database: Database, make_spec: MakeSpec) -> StudyHandle:
    """Returns a study that has not started."""
    return Studies(database).create(make_spec())


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Returns a user's project, the working directory: models/, studies/, no database."""
    folder = tmp_path / "project"
    folder.mkdir()
    for name in ("models", "studies"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    monkeypatch.chdir(folder)
    monkeypatch.delenv("TUNER_STORAGE", raising=False)
    monkeypatch.delenv("TUNER_HOME", raising=False)
    return folder


@pytest.fixture
def tuner(project: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Returns the command line, run as a user runs it, in the project."""

    def run(*arguments: str, timeout: float = 120) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-W", "error::DeprecationWarning:tuner", "-m", "tuner", *arguments],
            cwd=project,
            env=os.environ | {"COLUMNS": "100"},
            capture_output=True,
            text=True,
            timeout=timeout,
            check=False,
        )

    return run
