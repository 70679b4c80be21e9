"""A project of one's own: started from the template, a training loop tuned as it is."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

import tuner as library

Tuner = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def started(typed: Tuner, tmp_path: Path) -> Path:
    ended = typed("init", str(tmp_path / "mine"))
    assert ended.returncode == 0, ended.stderr
    return tmp_path / "mine"


def test_init_writes_a_project_and_never_over_one(typed: Tuner, started: Path) -> None:
    assert (started / "README.md").exists()
    assert (started / "models" / "digits.py").exists()
    (started / "models" / "digits.py").write_text("mine")
    again = typed("init", str(started))
    assert again.returncode == 2
    assert "nothing has been written" in again.stderr
    assert (started / "models" / "digits.py").read_text() == "mine"


@pytest.mark.parametrize("obstacle", ["models", "studies"])
def test_an_init_that_fails_leaves_nothing_behind(
    typed: Tuner, tmp_path: Path, obstacle: str
) -> None:
    file = tmp_path / "half" / obstacle
    file.parent.mkdir()
    file.write_text("a file")
    ended = typed("init", "half", cwd=tmp_path)
    assert ended.returncode != 0
    assert f"{Path('half', obstacle)}: cannot be written: File exists" in ended.stderr
    assert list(file.parent.rglob("*")) == [file]


def test_an_own_loop_is_tuned_reported_and_exported(
    tuner: Tuner, typed: Tuner, started: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = ("--set", "budget.trials=5", "--set", "budget.epochs=1")
    ended = tuner("run", "studies/own_loop.toml", *settings, cwd=started)
    assert ended.returncode == 0, ended.stderr
    shown = typed("trial", "show", "own_loop", "4", "--json", cwd=started)
    described = json.loads(shown.stdout)
    assert set(described["params"]) >= {"width", "dropout", "lr"}
    assert "train_loss" in described["curves"]
    exported = typed("study", "export", "own_loop", "--format", "json", cwd=started)
    assert set(json.loads(exported.stdout)["own"]) == {"width", "dropout"}
    monkeypatch.chdir(started)
    reported = typed("study", "report", "own_loop", "--json", cwd=started)
    assert library.best("own_loop").params == json.loads(reported.stdout)["best"]["params"]


def test_a_loop_that_reports_nothing_is_refused_before_anything_is_created(
    typed: Tuner, tmp_path: Path
) -> None:
    (tmp_path / "silent.py").write_text("def train(run):\n    pass\n")
    ended = typed(
        "run", "--workload", "silent:train", "--name", "s", "--set", "budget.steps=2", cwd=tmp_path
    )
    assert ended.returncode == 2
    assert "neither reported nor returned val_loss" in ended.stderr
    assert not (tmp_path / "tuner.db").exists()
