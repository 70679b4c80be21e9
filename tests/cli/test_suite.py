"""A suite runs from its file to its report; after any stop it goes on, and loses nothing."""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import copy_project, run_tuner

Tuner = Callable[..., subprocess.CompletedProcess[str]]

SUITE = """
[budget]
trials = 8
epochs = 2
evaluations = 5

[space]
optimizers = ["adam", "adamw"]
schedules = ["constant"]

[[workload]]
study = "parabola.toml"

[[workload]]
name = "second"
workload = "models.parabola:Parabola"
target = 1.0
train = { batch_size = 64 }
"""

RUN = ("suite", "run", "studies/small.toml", "--fuse", "off")

COUNTS = {
    "small.parabola": 8,
    "small.parabola.confirm": 10,
    "small.second": 8,
    "small.second.confirm": 10,
}
"""The trials of the whole suite: four and five for each of two optimizers."""


def write(project: Path, text: str = SUITE) -> None:
    (project / "studies" / "small.toml").write_text(text, encoding="utf-8")


def count(project: Path, *, state: str = "COMPLETE") -> Counter[str]:
    """Returns the trials of each study that are in a state."""
    with closing(sqlite3.connect(f"file:{project / 'tuner.db'}?mode=ro", uri=True)) as connection:
        rows = connection.execute(
            "SELECT study_name FROM studies JOIN trials USING (study_id) WHERE state = ?", (state,)
        )
        return Counter(name for (name,) in rows)


def has_begun(project: Path, study: str) -> bool:
    """Tells whether two trials of a study are complete, also before there is a database."""
    try:
        return count(project)[study] >= 2
    except sqlite3.OperationalError:
        return False


def report(typed: Tuner, name: str = "small") -> dict[str, object]:
    ended = typed("suite", "report", name, "--json")
    assert ended.returncode == 0, ended.stderr
    told: dict[str, object] = json.loads(ended.stdout)
    return told


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a project with a suite that has run."""
    folder = copy_project(tmp_path_factory.mktemp("suite") / "project")
    write(folder)
    ended = run_tuner(*RUN, cwd=folder)
    assert ended.returncode == 0, ended.stderr
    assert "adamw" in ended.stdout
    assert "Optimizers by score over 2 workloads" in ended.stdout
    return folder


@pytest.fixture
def finished(project: Path, ran: Path) -> Path:
    shutil.copytree(ran, project, dirs_exist_ok=True)
    return project


@pytest.mark.slow
def test_a_suite_runs_from_its_file_to_its_report(typed: Tuner, finished: Path) -> None:
    assert count(finished) == COUNTS
    told = report(typed)
    assert told == report(typed, "studies/small.toml")
    assert told["scored"] == 2
    workloads = told["workloads"]
    assert isinstance(workloads, list)
    assert [(w["workload"], w["study"], w["set_by"]) for w in workloads] == [
        ("parabola", "small.parabola", "adamw"),
        ("second", "small.second", None),
    ]
    for style in ("terminal", "markdown", "html"):
        file = f"report.{style}"
        for _ in range(2):
            written = typed("suite", "report", "small", "--format", style, "--output", file)
            assert written.returncode == 0, written.stderr
        assert "small.second" in (finished / file).read_text()


@pytest.mark.slow
def test_what_is_done_is_left_out(typed: Tuner, finished: Path) -> None:
    again = typed(*RUN)
    assert again.returncode == 0, again.stderr
    assert "'small.parabola' is done." in again.stderr
    assert count(finished) == COUNTS


@pytest.mark.slow
def test_another_baseline_or_target_only_scores_anew(typed: Tuner, finished: Path) -> None:
    write(finished, SUITE.replace("[budget]", '[suite]\nbaseline = "adam"\n[budget]', 1))
    assert report(typed)["baseline"] == "adamw"
    assert report(typed, "studies/small.toml")["baseline"] == "adam"
    assert typed(*RUN).returncode == 0
    assert report(typed)["baseline"] == "adam"
    assert count(finished) == COUNTS


@pytest.mark.slow
def test_a_study_that_is_deleted_is_told_and_trained_again(typed: Tuner, finished: Path) -> None:
    assert typed("study", "delete", "small.second", "--yes").returncode == 0
    told = report(typed)
    assert told["scored"] == 1
    assert "second is not scored: it has no study yet" in str(told["conclusion"])
    again = typed(*RUN)
    assert again.returncode == 0, again.stderr
    assert count(finished) == COUNTS


@pytest.mark.slow
@pytest.mark.parametrize(
    ("sign", "study"),
    [
        (signal.SIGINT, "small.parabola.confirm"),
        (signal.SIGKILL, "small.second"),
    ],
)
def test_after_a_stop_the_same_command_trains_the_rest(
    tuner: Tuner, project: Path, sign: signal.Signals, study: str
) -> None:
    write(project)
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner", *RUN],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    while not has_begun(project, study):
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    os.kill(process.pid, sign)
    output, _ = process.communicate(timeout=120)
    if sign is signal.SIGINT:
        assert process.returncode == 130, output
        assert "Continue: tuner suite run studies/small.toml" in output
    early = tuner("suite", "report", "small")
    assert early.returncode == 0, early.stderr
    assert "is not scored" in " ".join(early.stdout.split())
    again = tuner(*RUN)
    assert again.returncode == 0, again.stdout + again.stderr
    assert count(project) == COUNTS
    assert count(project, state="RUNNING") == {}


@pytest.mark.slow
def test_a_workload_that_fails_loses_no_other(tuner: Tuner, typed: Tuner, project: Path) -> None:
    broken = '[[workload]]\nname = "second"\nworkload = "models.parabola:Nothing"\n'
    head, first, _ = SUITE.split("[[workload]]")
    write(project, f"{head}{broken}\n[[workload]]{first}")
    ended = tuner(*RUN)
    assert ended.returncode == 1
    last = ended.stderr.splitlines()[-1]
    assert last.startswith("Not finished: second: study.workload = 'models.parabola:Nothing'")
    assert "second is not scored: it has no study yet" in " ".join(ended.stdout.split())
    assert count(project) == {name: n for name, n in COUNTS.items() if "parabola" in name}


def test_a_suite_file_that_breaks_a_rule_makes_no_database(typed: Tuner, project: Path) -> None:
    write(project, SUITE.replace("trials = 8", "trials = 9"))
    ended = typed(*RUN)
    assert ended.returncode == 2
    assert "studies/small.toml, workload parabola: budget.trials = 9" in ended.stderr
    assert not (project / "tuner.db").exists()


def test_an_unknown_suite_is_told(typed: Tuner, project: Path) -> None:
    created = typed("study", "create", "studies/parabola.toml", "--no-check")
    assert created.returncode == 0, created.stderr
    ended = typed("suite", "report", "small")
    assert ended.returncode == 2
    assert "has no suite 'small': it has none: start one with 'tuner suite run'" in ended.stderr
    write(project)
    early = typed("suite", "report", "studies/small.toml")
    assert early.returncode == 0, early.stderr
    assert "No workload is scored yet." in early.stdout
