"""Pools from the command line: workers that die, are listed, and are asked to leave."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

Tuner = Callable[..., subprocess.CompletedProcess[str]]

# The hundredth step is past what a new workload's check takes.
_WORKLOADS = '''
import os
import signal
import time
from pathlib import Path

from models.parabola import Parabola


class Mortal(Parabola):
    """Dies in its hundredth step, as if out of memory, once."""

    steps = 0

    def loss(self, model, batch):
        Mortal.steps += 1
        if Mortal.steps == 100 and not Path("died").exists():
            Path("died").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return super().loss(model, batch)


class Patient(Parabola):
    """Waits in its hundredth step until the test goes on, and is in no hurry then."""

    steps = 0

    def loss(self, model, batch):
        Patient.steps += 1
        while Patient.steps == 100 and not Path("go").exists():
            Path("training").touch()
            time.sleep(0.01)
        if 100 <= Patient.steps < 300:
            time.sleep(0.01)
        return super().loss(model, batch)
'''


@pytest.fixture
def workloads(project: Path) -> Path:
    (project / "models" / "waiting.py").write_text(_WORKLOADS)
    return project


def create(tuner: Tuner, workload: str) -> None:
    settings = ("budget.trials=2", "budget.steps=300", "train.batch_size=32")
    ended = tuner(
        *("study", "create", "--workload", workload, "--name", "small"),
        *(word for setting in settings for word in ("--set", setting)),
    )
    assert ended.returncode == 0, ended.stderr


def count(tuner: Tuner) -> dict[str, int]:
    counts: dict[str, int] = json.loads(tuner("study", "report", "small", "--json").stdout)[
        "counts"
    ]
    return counts


@pytest.mark.slow
@pytest.mark.parametrize("command", [("study", "run"), ("workers", "launch")], ids=" ".join)
def test_worker_that_was_killed_is_started_again_and_the_study_ends(
    tuner: Tuner, workloads: Path, command: tuple[str, str]
) -> None:
    create(tuner, "models.waiting:Mortal")
    ended = tuner(*command, "small")
    assert ended.returncode == 0, ended.stderr
    assert "killed by SIGKILL" in ended.stderr
    assert "started again" in ended.stderr
    assert "More: tuner study report small" in ended.stderr
    assert ("worker 0 started again: cpu" in ended.stderr) is (command[0] == "workers")
    counts = count(tuner)
    unfinished = counts["running"] + counts["waiting"]
    assert (sum(counts.values()), unfinished, counts["failed"]) == (2, 0, 0)


@pytest.mark.slow
def test_workers_are_listed_asked_to_leave_and_save(tuner: Tuner, workloads: Path) -> None:
    create(tuner, "models.waiting:Patient")
    launch = (sys.executable, "-m", "tuner", "workers", "launch", "small", "--devices", "cpu")
    with subprocess.Popen(launch, cwd=workloads, stderr=subprocess.PIPE, text=True) as process:
        while not (workloads / "training").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        [worker] = json.loads(tuner("workers", "list", "small", "--json").stdout)
        assert worker["trials"] == [0]
        assert worker["device"] == "cpu"
        assert worker["state"] == "working"
        assert worker["id"][:8] in tuner("workers", "list", "small").stdout
        asked = tuner("workers", "stop", "small", "--worker", worker["id"][:8])
        assert "Asked 1 worker" in asked.stdout
        (workloads / "go").touch()
        _, said = process.communicate()
    assert process.returncode == 130, said
    assert "worker 0 started: cpu" in said
    assert "worker 0 ended" in said
    assert "Stopped by 'tuner workers stop'; unfinished trials are saved" in said
    assert "Continue: tuner workers launch small --devices cpu\n" in said
    [worker] = json.loads(tuner("workers", "list", "small", "--json").stdout)
    assert worker["leaving"]
    assert worker["state"] == "left"
    assert tuner("workers", "stop", "small").stdout == "Nobody works on 'small'.\n"
    assert worker["trials"] == []
    assert tuner("study", "run", "small").returncode == 0
    assert sum(count(tuner).values()) == 2


@pytest.mark.slow
def test_worker_that_was_killed_is_listed_as_silent(tuner: Tuner, workloads: Path) -> None:
    create(tuner, "models.waiting:Patient")
    start = (sys.executable, "-m", "tuner", "worker", "start", "small")
    with subprocess.Popen(start, cwd=workloads, stdout=subprocess.DEVNULL) as process:
        while not (workloads / "training").exists():
            assert process.poll() is None
            time.sleep(0.05)
        assert "working" in tuner("workers", "list", "small").stdout
        process.kill()
    listed = tuner("workers", "list", "small").stdout
    assert "silent" in listed
    assert "working" not in listed
    assert tuner("workers", "stop", "small").stdout == "Nobody works on 'small'.\n"


@pytest.mark.slow
def test_launch_on_a_paused_study_says_what_it_waits_for(
    tuner: Tuner, study_in_project: None, project: Path
) -> None:
    assert tuner("study", "pause", "small").returncode == 0
    launch = (sys.executable, "-m", "tuner", "workers", "launch", "small", "--devices", "cpu")
    with subprocess.Popen(launch, cwd=project, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        waiting = "'small' is paused: waiting for 'tuner study resume small'\n"
        while process.stderr.readline() != waiting:
            assert process.poll() is None
        process.terminate()
        process.communicate()
    assert process.returncode == 130


@pytest.mark.slow
def test_everything_on_ray_may_be_sent_sigterm(tuner: Tuner, workloads: Path) -> None:
    create(tuner, "models.waiting:Patient")
    options = ("workers", "launch", "small", "--on", "ray", "--gpus-per-worker", "0")
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        subprocess.Popen(
            (sys.executable, "-m", "tuner", *options),
            cwd=workloads,
            env=os.environ | {"TMPDIR": folder},
            stderr=subprocess.PIPE,
            text=True,
        ) as process,
    ):
        while not (workloads / "training").exists():
            assert process.poll() is None, process.communicate()
            time.sleep(0.05)
        for ours in [process, *psutil.Process(process.pid).children(recursive=True)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(ours.pid, signal.SIGTERM)
        (workloads / "go").touch()
        _, said = process.communicate()
    assert process.returncode == 130, said
    assert "Stopped by SIGTERM; unfinished trials are saved" in said
    assert f"Continue: tuner {' '.join(options)}" in said
    [log] = (workloads / ".tuner").rglob("worker-0.log")
    assert "Trial 0 saved and released" in log.read_text()


@pytest.mark.slow
def test_workers_on_ray_that_no_gpu_can_take_are_refused(
    tuner: Tuner, study_in_project: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    ended = tuner("workers", "launch", "small", "--on", "ray", "--gpus-per-worker", "0.5")
    assert ended.returncode == 2
    assert "the cluster has 0: use --gpus-per-worker 0" in ended.stderr


@pytest.mark.slow
def test_workers_on_ray_save_when_the_launch_is_killed(tuner: Tuner, workloads: Path) -> None:
    create(tuner, "models.waiting:Patient")
    launch = (sys.executable, "-m", "tuner", "workers", "launch", "small", "--on", "ray")
    # Ray's sockets lie there, whose paths have to be short.
    with (
        tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
        subprocess.Popen(
            (*launch, "--gpus-per-worker", "0"),
            cwd=workloads,
            env=os.environ | {"TMPDIR": folder},
            stderr=subprocess.DEVNULL,
        ) as process,
    ):
        while not (workloads / "training").exists():
            assert process.poll() is None
            time.sleep(0.05)
        ours = psutil.Process(process.pid).children(recursive=True)
        [worker] = [child for child in ours if "--follow-stdin" in child.cmdline()]
        actor = worker.parent()
        assert actor is not None
        process.kill()
        psutil.wait_procs([actor], timeout=60)
        (workloads / "go").touch()
        psutil.wait_procs([worker], timeout=60)
        assert not worker.is_running()
        # Some of Ray's processes take a minute to notice.
        for child in ours:
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        psutil.wait_procs(ours)
    [log] = (workloads / ".tuner").rglob("worker-0.log")
    assert "Trial 0 saved and released" in log.read_text()
    assert tuner("study", "run", "small").returncode == 0
    assert sum(count(tuner).values()) == 2


@pytest.mark.parametrize(
    ("arguments", "parts"),
    [
        (("launch", "small", "--workers", "2"), ("--workers is for --on ray", "--per-device 2")),
        (("launch", "small", "--on", "ray", "--address", "x"), ("--address x", "host:6379")),
        (("launch", "small", "--on", "ray", "--devices", "cpu"), ("--devices", "--on local")),
        (("launch", "small", "--devices", "gpu"), ("--devices gpu", "all, cpu")),
        (("launch", "small", "--devices", "97"), ("--devices 97", "CUDA devices")),
        (("stop", "small", "--worker", "x"), ("--worker x", "tuner workers list")),
        (("list", "large"), ("'large'",)),
    ],
    ids=lambda value: " ".join(value)[:40],
)
def test_mistake_is_explained(
    typed: Tuner, study_in_project: None, arguments: tuple[str, ...], parts: tuple[str, ...]
) -> None:
    ended = typed("workers", *arguments)
    assert ended.returncode == 2
    assert "Traceback" not in ended.stderr
    for part in parts:
        assert part in ended.stderr


@pytest.fixture
def study_in_project(typed: Tuner) -> None:
    ended = typed(
        *("study", "create", "--workload", "models.parabola:Parabola", "--name", "small"),
        "--no-check",
    )
    assert ended.returncode == 0, ended.stderr
