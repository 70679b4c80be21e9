"""Workloads that fork: no child goes on as the worker, and none is left behind."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tests.conftest import FORKS

pytestmark = [FORKS, pytest.mark.slow]

Tuner = Callable[..., subprocess.CompletedProcess[str]]

_LOOP = '''
import multiprocessing
import os
import sys
import time
from pathlib import Path

import torch

HERE = Path(__file__).parent.parent


def note(what):
    with (HERE / "notes").open("a") as file:
        file.write(f"{what}\\n")


def fork(act):
    """Has a child act, and returns its exit code; a child whose act returns goes on training."""
    child = os.fork()
    if child == 0:
        act()
        return "went on"
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def leave():
    sys.exit(3)


def stumble():
    raise ValueError("the child stumbles")


def train(run):
    model = torch.nn.Linear(1, 1)
    optimizer = run.optimizer(model)

    def step():
        model(torch.ones(1, 1)).sum().backward()
        optimizer.step()

    def report():
        step()
        run.report(val_loss=-1e9)

    def suggest():
        run.suggest_float("other", 0.0, 1.0)

    for index in run.steps():
        step()
        if index == 2:
            for act in (leave, stumble, report, suggest):
                status = fork(act)
                if status == "went on":
                    break
                note(f"{act.__name__} {status}")
            if status == "went on":
                continue
            if os.fork() == 0:
                return 0.0
            linger = multiprocessing.get_context("fork").Process(target=time.sleep, args=(600,))
            linger.start()
            linger.terminate()
            linger.join(60)
            note(f"terminated {linger.exitcode}")
            if os.fork() == 0:
                note(f"lingers {os.getpid()}")
                time.sleep(600)
        if run.due():
            run.report(val_loss=1.0 / (1 + index))
'''


def test_a_workload_that_forks_has_the_trials_it_would_have_without(
    project: Path, tuner: Tuner
) -> None:
    (project / "models" / "forking.py").write_text(_LOOP)
    settings = ("budget.trials=3", "budget.steps=40", 'space.optimizers=["sgd"]')
    ended = tuner(
        *("run", "--workload", "models.forking:train", "--name", "forking"),
        *(word for setting in settings for word in ("--set", setting)),
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    report = json.loads(tuner("study", "report", "forking", "--json").stdout)
    assert report["counts"]["complete"] + report["counts"]["pruned"] == 3
    notes = (project / "notes").read_text().splitlines()
    told = ["leave 3", "stumble 1", "report 1", "suggest 1", "terminated -15"]
    assert [line for line in notes if not line.startswith("lingers")] == 3 * told
    lingering = [int(line.split()[1]) for line in notes if line.startswith("lingers")]
    assert len(lingering) == 3
    for number in range(3):
        shown = tuner("trial", "show", "forking", str(number)).stdout
        assert "started" in shown
        assert "taken" not in shown
    _, alive = psutil.wait_procs(
        [psutil.Process(pid) for pid in lingering if psutil.pid_exists(pid)], timeout=20
    )
    assert not alive
    [log] = project.rglob("worker-0.log")
    assert "forked by the workload, uses the run of process" in log.read_text()


_LOADING = """
import time
from pathlib import Path

import torch
from torch.utils.data import DataLoader, TensorDataset

HERE = Path(__file__).parent.parent


def train(run):
    model = torch.nn.Linear(1, 1)
    optimizer = run.optimizer(model)
    data = TensorDataset(torch.ones(64, 1))
    loader = DataLoader(data, 4, num_workers=2, multiprocessing_context="fork")
    for index, (x,) in zip(run.steps(), (batch for _ in iter(int, 1) for batch in loader)):
        optimizer.zero_grad()
        model(x).mean().backward()
        optimizer.step()
        if index == 10 and not (HERE / "asked").exists():
            (HERE / "training").touch()
            time.sleep(0.02)
        while (HERE / "training").exists() and not (HERE / "asked").exists():
            time.sleep(0.01)
        if run.due():
            run.report(val_loss=1.0 / (1 + index))
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_for_all_processes_of_a_loader_fails_no_trial(
    project: Path, tuner: Tuner, number: signal.Signals
) -> None:
    (project / "models" / "loading.py").write_text(_LOADING)
    settings = ("budget.trials=2", "budget.steps=40", 'space.optimizers=["sgd"]')
    created = tuner(
        *("study", "create", "--workload", "models.loading:train", "--name", "loading"),
        *(word for setting in settings for word in ("--set", setting)),
    )
    assert created.returncode == 0, created.stderr
    command = [sys.executable, "-m", "tuner", "worker", "start", "loading"]
    with subprocess.Popen(command, cwd=project, start_new_session=True) as worker:
        while not (project / "training").exists():
            assert worker.poll() is None
            time.sleep(0.02)
        os.killpg(worker.pid, number)
        (project / "asked").touch()
        assert worker.wait(60) == 130
    ended = tuner("worker", "start", "loading")
    assert ended.returncode == 0, ended.stderr
    report = json.loads(tuner("study", "report", "loading", "--json").stdout)
    assert report["counts"]["failed"] == 0
    assert report["counts"]["complete"] + report["counts"]["pruned"] == 2
