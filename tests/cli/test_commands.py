"""Studies that train by a command, as a person runs and reads them."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Tuner = Callable[..., subprocess.CompletedProcess[str]]

_SCRIPT = """
import sys
for epoch in range(1, 4):
    print(f"Epoch [{epoch}/3] val_loss: {float(sys.argv[1]) / epoch}")
"""


@pytest.fixture
def run(tuner: Tuner, project: Path) -> Callable[..., subprocess.CompletedProcess[str]]:
    """Returns what runs a study of two trials of a script."""

    def run(*options: str, script: str = _SCRIPT) -> subprocess.CompletedProcess[str]:
        (project / "script.py").write_text(script)
        command = shlex.join([sys.executable, "script.py", "{lr}"])
        small = ("--set", "budget.trials=2", "--set", "budget.epochs=3")
        named = ("--command", command, "--name", "script", "--optimizers", "adam")
        return tuner("run", *named, *small, *options)

    return run


def test_a_trial_names_its_folder_and_its_output(tuner: Tuner, run: Tuner) -> None:
    ended = run()
    assert ended.returncode == 0, ended.stderr
    assert "can be pruned" not in ended.stdout + ended.stderr
    told = json.loads(tuner("trial", "show", "script", "1", "--json").stdout)
    folder, output = Path(told["folder"]), Path(told["output"])
    assert (folder.name, output.parent) == ("1", folder)
    assert output.read_text().startswith("Epoch [1/3] val_loss: ")
    shown = tuner("trial", "show", "script", "1").stdout.splitlines()
    assert {f"folder: {folder}", f"output: {output}"} <= set(shown)
    output.unlink()
    gone = json.loads(tuner("trial", "show", "script", "1", "--json").stdout)
    assert (gone["folder"], gone["output"]) == (str(folder), None)


@pytest.mark.parametrize("activated", [False, True])
def test_a_check_says_which_program_of_two_has_run(
    tuner: Tuner, project: Path, monkeypatch: pytest.MonkeyPatch, activated: bool
) -> None:
    other = project / "bin" / "python"
    other.parent.mkdir()
    other.symlink_to(getattr(sys, "_base_executable", sys.executable))
    own = Path(sys.executable).parent
    folders = [str(own), str(other.parent)] if activated else [str(other.parent), str(own)]
    monkeypatch.setenv("PATH", os.pathsep.join([*folders, os.environ["PATH"]]))
    (project / "script.py").write_text("import no_such_module_at_all")
    ended = tuner("run", "--command", "python script.py {lr}", "--optimizers", "adam")
    assert ended.returncode != 0
    assert "ModuleNotFoundError: No module named 'no_such_module_at_all'" in ended.stderr
    assert (f"'python' is {other}, found on PATH" in ended.stderr) is not activated
    assert (f"write {own / 'python'} in the command" in ended.stderr) is not activated
