"""Which code a database may have a worker run."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tuner.domain.study_file import parse_spec
from tuner.store import Studies, open_database

Tuner = Callable[..., subprocess.CompletedProcess[str]]

SMALL = ("--set", "budget.trials=2", "--set", "budget.epochs=1")


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Returns a workload of an installed package, which tells by a file that it was imported."""
    folder = tmp_path / "site-packages" / "company"
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(
        f"open({str(tmp_path / 'ran')!r}, 'a').close()\nfrom models.parabola import Parabola\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(folder.parent))
    return "company:Parabola"


@pytest.fixture
def plant(project: Path) -> Callable[[str], None]:
    """Returns what writes a study into the database as another writer of it may."""

    def plant(workload: str) -> None:
        tree = {
            "study": {"name": "planted", "workload": workload},
            "budget": {"trials": 2, "steps": 4},
            "space": {"optimizers": ["sgd"], "schedules": ["constant"]},
        }
        database = open_database(f"sqlite:///{project / 'tuner.db'}", create=True)
        Studies(database).create(parse_spec(tree, origin="test").resolve())
        database.close()

    return plant


@pytest.mark.parametrize("command", [("worker", "start"), ("study", "run")])
def test_worker_does_not_run_what_a_database_names_of_the_system(
    tuner: Tuner, plant: Callable[[str], None], command: tuple[str, str]
) -> None:
    plant("os:system")
    ended = tuner(*command, "planted")
    assert ended.returncode != 0
    assert "'os:system': os was not imported" in ended.stderr
    assert "--allow os" in ended.stderr


def test_worker_runs_an_installed_workload_once_it_is_allowed(
    tuner: Tuner, plant: Callable[[str], None], library: str, tmp_path: Path
) -> None:
    plant(library)
    refused = tuner("worker", "start", "planted")
    assert refused.returncode != 0
    assert "--allow company" in refused.stderr
    assert not (tmp_path / "ran").exists()

    ended = tuner("worker", "start", "planted", "--allow", "company")
    assert ended.returncode == 0, ended.stderr
    assert (tmp_path / "ran").exists()


@pytest.mark.slow
def test_workers_of_a_run_are_told_what_may_run(
    tuner: Tuner, plant: Callable[[str], None], library: str
) -> None:
    plant(library)
    refused = tuner("study", "run", "planted")
    assert refused.returncode != 0
    assert "--allow company" in refused.stderr
    ended = tuner("study", "run", "planted", "--allow", "company")
    assert ended.returncode == 0, ended.stderr


@pytest.mark.slow
def test_who_types_a_workload_vouches_for_it(tuner: Tuner, library: str) -> None:
    ended = tuner("run", "--workload", library, "--optimizers", "sgd", "--name", "typed", *SMALL)
    assert ended.returncode == 0, ended.stderr
    counts = json.loads(tuner("study", "report", "typed", "--json").stdout)["counts"]
    assert sum(counts.values()) == 2
    assert tuner("workloads", library).returncode == 0


def test_allow_that_names_no_package_is_refused(tuner: Tuner) -> None:
    ended = tuner("worker", "start", "any", "--allow", f"models{os.sep}digits")
    assert ended.returncode == 2
    assert "no name of a package" in ended.stderr
