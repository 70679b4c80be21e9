"""Workloads as objects: which are named, and how others reach the processes of a script."""

from __future__ import annotations

import functools
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import FORKS
from tuner.domain.passed import Passed, refuse_passed
from tuner.errors import SpecError
from tuner.service.passing import pack, take_workload, unpack

SCRIPT = """
import importlib.util
import sys

import torch
import tuner

find = importlib.util.find_spec
importlib.util.find_spec = lambda name, *rest: None if name == "cloudpickle" else find(name, *rest)
target = 2.0


def train(run):
    model = torch.nn.Linear(1, 1)
    optimizer = run.optimizer(model)
    for _ in run.steps():
        loss = (model(torch.ones(1, 1)) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if run.due():
            run.report(val_loss=loss.item())


def main():
    study = tuner.tune(train, optimizers=["sgd"], trials=2, steps=20, workers=2, device="cpu")
    print(study.state)


"""


def run_script(folder: Path, last: str) -> subprocess.CompletedProcess[str]:
    """Runs a script that finds no cloudpickle."""
    script = folder / "script.py"
    script.write_text(f"{SCRIPT}{last}\n")
    return subprocess.run(
        [sys.executable, str(script)],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@FORKS
@pytest.mark.slow
def test_a_script_is_loaded_again_where_cloudpickle_is_not(project: Path) -> None:
    ended = run_script(project, 'if __name__ == "__main__":\n    main()')
    assert ended.returncode == 0, ended.stderr
    assert ended.stdout == "done\n"


@FORKS
@pytest.mark.slow
def test_a_script_that_tunes_as_it_is_loaded_is_told_how_to_guard_it(project: Path) -> None:
    ended = run_script(project, "main()")
    assert ended.returncode == 1
    assert 'put the call below if __name__ == "__main__":' in ended.stderr


def test_a_lambda_and_a_partial_have_names(project: Path) -> None:
    taken = take_workload(lambda run: None)
    assert taken.passed is not None
    assert taken.name.endswith(":train")
    assert taken.passed.file is not None
    assert taken.passed.file.endswith("test_passing.py")
    assert take_workload(functools.partial(run_script, project)).name.endswith(":run_script")


def test_what_is_installed_is_named() -> None:
    import torch

    assert take_workload(torch.nn.Linear).name == "torch.nn.modules.linear:Linear"
    assert take_workload(torch.nn.Linear).target is None


def test_an_object_comes_out_as_it_went_in() -> None:
    number = 41
    assert unpack(pack(lambda: number + 1))() == 42


def test_what_cannot_be_pickled_is_told(project: Path) -> None:
    file = (project / "open.txt").open("w")
    with file, pytest.raises(SpecError, match=r"cannot be passed to other processes: .*one worker"):
        pack(lambda: file.name)


def test_a_parcel_that_does_not_load_here_is_told() -> None:
    import base64
    import pickle

    parcel = base64.b64encode(pickle.dumps(([], None, b"cnowhere\nnothing\n."))).decode()
    with pytest.raises(SpecError, match=r"cannot be loaded in another process: .*nowhere"):
        unpack(parcel)


def test_a_study_says_what_it_lacks() -> None:
    refuse_passed(None, "digits")
    with pytest.raises(SpecError, match=r"the function train of the module __main__, without a fi"):
        refuse_passed(Passed(module="__main__", qualname="train"), "digits")
    with pytest.raises(SpecError, match=r"workload=\.\.\.\)\.run\(\)"):
        refuse_passed(Passed(module="m", qualname="f.<locals>.<lambda>"), "digits")
