"""The examples of a command and of DDP, run as their READMEs say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow


def run(folder: Path, *words: str) -> str:
    """Runs a command of tuner as a user of this Python would, and returns what it prints."""
    environment = {name: value for name, value in os.environ.items() if name[:6] != "TUNER_"}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    environment["OMP_NUM_THREADS"] = "1"
    done = subprocess.run(
        words, cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr + done.stdout
    return done.stdout


def copy(name: str, folder: Path) -> Path:
    return Path(shutil.copytree(ROOT / "examples" / name, folder / name))


def test_a_script_is_tuned_and_its_winner_gives_the_trials_value(tmp_path: Path) -> None:
    folder = copy("command", tmp_path)
    assert "tuner" not in (folder / "train.py").read_text().partition('"""')[2].partition('"""')[2]
    run(folder, "tuner", "run", "study.toml", "--set", "budget.trials=2")
    script = run(folder, "tuner", "study", "export", "command", "--format", "command")
    value = re.search(r"trial \d+, ([\d.e-]+)\.\n", script)
    assert value is not None
    # The line as it was printed, by hand.
    lines = run(folder, "sh", "-c", script).splitlines()
    assert lines[-1] == f"step=200 val_loss={float(value[1]):.17g}"


def test_each_trial_trains_on_two_processes(tmp_path: Path) -> None:
    folder = copy("ddp", tmp_path)
    run(folder, "tuner", "run", "study.toml", "--processes", "2", "--set", "budget.trials=1")
    shown = run(folder, "tuner", "trial", "show", "ddp", "0")
    assert "complete" in shown
    logs = sorted(path.name for path in (folder / ".tuner").rglob("rank-*.log"))
    assert logs == ["rank-0.log", "rank-1.log"]
