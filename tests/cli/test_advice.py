"""A real study gives advice, and every command that it prints runs as it is printed."""

from __future__ import annotations

import json
import shlex
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import copy_project, run_tuner
from tuner.analysis.advice.commands import search_again
from tuner.domain.catalog.dimensions import Float
from tuner.store import Studies, open_database

Tuner = Callable[..., subprocess.CompletedProcess[str]]

# Rates so low that the best trials are at their end, and losses that still fall.
_FILE = """
[study]
name = "my study"
workload = "models.parabola:Parabola"

[budget]
trials = 48
epochs = 1
evaluations = 4

[search]
pruner = "none"
portfolio = false
sampler = "qmc"

[space]
breadth = 2
optimizers = ["sgd"]
schedules = ["constant"]

[optimizer.sgd]
lr = { low = 1e-3, high = 2e-3, log = true }
weight_decay = 0.0

[train]
batch_size = 100

[confirm]
top = 0
"""


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a project with a study whose ranges are too low and whose trials are too short."""
    folder = copy_project(tmp_path_factory.mktemp("searched") / "project")
    (folder / "low.toml").write_text(_FILE)
    ended = run_tuner("run", "low.toml", "--fuse", "off", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    assert "What next" in ended.stdout
    assert "\n    tuner study widen 'my study'\n" in ended.stdout
    return folder


@pytest.fixture
def low(project: Path, searched: Path) -> Path:
    shutil.copytree(searched, project, dirs_exist_ok=True)
    return project


def advice(typed: Tuner) -> dict[str, str]:
    report = typed("study", "report", "my study", "--json")
    assert report.returncode == 0, report.stderr
    pieces: list[dict[str, Any]] = json.loads(report.stdout)["advice"]
    return {piece["kind"]: piece["command"] for piece in pieces}


def words(command: str) -> list[str]:
    program, *rest = shlex.split(command)
    assert program == "tuner"
    return rest


def test_a_wider_study_is_written_and_runs_as_printed(
    tuner: Tuner, typed: Tuner, low: Path
) -> None:
    written = typed(*words(advice(typed)["edge"]))
    assert written.returncode == 0, written.stderr
    command = written.stdout.partition("Search on: ")[2].strip()
    assert command == "tuner run 'my study.wider.toml'"
    ended = tuner(*words(command), "--set", "budget.trials=3", "--fuse", "off")
    assert ended.returncode == 0, ended.stderr
    assert "Starts from the best of 'my study'" in ended.stderr


def test_a_file_is_written_over_only_if_that_is_asked_for(typed: Tuner, low: Path) -> None:
    assert typed("study", "widen", "my study").returncode == 0
    mine = low / "my study.wider.toml"
    mine.write_text("# mine\n" + mine.read_text())
    again = typed("study", "widen", "my study")
    assert (again.returncode, again.stdout) == (2, "")
    assert "write over it with --force" in again.stderr
    assert mine.read_text().startswith("# mine\n")
    assert typed("study", "widen", "my study", "--output", "other.toml").returncode == 0
    assert typed("study", "widen", "my study", "--force").returncode == 0
    assert not mine.read_text().startswith("# mine\n")
    database = typed("study", "widen", "my study", "--output", "tuner.db", "--force")
    assert database.returncode == 2
    assert "this file is a database" in database.stderr


def test_longer_trials_run_as_printed(tuner: Tuner, typed: Tuner, low: Path) -> None:
    command = advice(typed)["still-falling"]
    ended = tuner(*words(command), "--set", "budget.trials=2", "--fuse", "off")
    assert ended.returncode == 0, ended.stderr
    shown = json.loads(typed("study", "show", "my study.longer", "--json").stdout)
    assert shown["spec"]["budget"]["epochs"] == 2


def test_too_few_trials_are_raised_as_printed(tuner: Tuner, typed: Tuner, project: Path) -> None:
    ended = tuner("run", "--workload", "models.parabola:Parabola", "--name", "two",
                  "--optimizers", "sgd,adam", "--set", "budget.epochs=1",
                  "--set", "budget.trials=2", "--fuse", "off")  # fmt: skip
    assert ended.returncode == 0, ended.stderr
    refused = typed("study", "widen", "two")
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "No range of the study 'two' asks to be widened" in refused.stderr
    # What has run, and what is missing to five of each.
    assert "\n    tuner study run two --trials 10\n" in ended.stdout
    more = tuner("study", "run", "two", "--trials", "10", "--fuse", "off")
    assert more.returncode == 0, more.stderr
    assert "Study 'two' now has a budget of 10 trials" in more.stderr
    kept = typed("study", "run", "two", "--trials", "3")
    assert "Study 'two' stays at 10 trials." in kept.stderr


def test_a_search_with_changes_of_every_kind_runs_as_printed(
    tuner: Tuner, typed: Tuner, low: Path
) -> None:
    database = open_database(f"sqlite:///{low / 'tuner.db'}")
    spec = Studies(database).find("my study").spec
    database.close()
    changes = {
        "budget.trials": 2,
        "search.pruner": "halving",
        "train.grad_clip": 1.0,
        "train.batch_size": {"choices": [100, 200]},
    }
    axes = {("optimizer", "sgd", "lr"): Float(low=1e-3, high=0.1, log=True)}
    command = search_again(spec, "other", changes, axes=axes)
    assert command is not None
    ended = tuner(*words(command), "--fuse", "off")
    assert ended.returncode == 0, ended.stderr
    shown = json.loads(typed("study", "show", "my study.other", "--json").stdout)["spec"]
    assert shown["optimizer"]["sgd"]["lr"] == {"low": 1e-3, "high": 0.1, "log": True}
    assert shown["optimizer"]["sgd"]["weight_decay"] == 0.0
    assert shown["train"]["batch_size"] == {"choices": [100, 200]}
    assert shown["confirm"]["top"] == 0


@pytest.mark.slow
def test_more_seeds_for_a_tie_run_as_printed(tuner: Tuner, typed: Tuner, low: Path) -> None:
    confirm = ("study", "confirm", "my study", "--top", "3", "--fuse", "off")
    first = tuner(*confirm, "--seeds", "5")
    assert first.returncode == 0, first.stderr
    deleted = typed(*words("tuner study delete 'my study.confirm' --yes"))
    assert deleted.returncode == 0, deleted.stderr
    again = tuner(*confirm, "--seeds", "6", "--cost", "2")
    assert again.returncode == 0, again.stderr
    assert "3 finalists on up to 6 fresh seeds" in again.stderr
