"""The worker that tries a new study's workload, before there is a study."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import pytest

Tuner = Callable[..., subprocess.CompletedProcess[str]]

_WORKLOAD = """
import os
import time
from pathlib import Path

from models.parabola import Parabola

HERE = Path(__file__).parent.parent


class Counting(Parabola):
    def data(self):
        with (HERE / "loaded").open("a") as file:
            file.write(f"{os.getpid()}\\n")
        print("loading data")
        return super().data()


class Deadly(Parabola):
    def data(self):
        os._exit(3)


class Patient(Parabola):
    def data(self):
        (HERE / "trying").write_text(str(os.getpid()))
        while not (HERE / "go").exists():
            time.sleep(0.02)
        return super().data()
"""

SMALL = ("--set", "budget.trials=2", "--set", "budget.epochs=1", "--fuse", "off")


@pytest.fixture(autouse=True)
def workload(project: Path) -> None:
    """Writes workloads into the project."""
    (project / "models" / "waiting.py").write_text(_WORKLOAD)


@pytest.fixture(autouse=True)
def heeded() -> Iterator[None]:
    """Has commands heed Ctrl-C, which a shell that starts tests in the background has ignored."""
    former = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, former)


def test_the_worker_that_tries_a_workload_trains_with_the_data_it_has_loaded(
    tuner: Tuner, project: Path
) -> None:
    done = tuner("run", "--workload", "models.waiting:Counting", *SMALL)
    assert done.returncode == 0, done.stderr
    assert len((project / "loaded").read_text().splitlines()) == 1
    # As before there were such workers, a workload's own words are on the terminal while it is
    # tried, and results alone on standard output.
    assert "loading data" in done.stderr
    assert "loading data" not in done.stdout


def test_a_workload_that_ends_its_process_is_told_and_nothing_is_created(
    tuner: Tuner, project: Path
) -> None:
    done = tuner("run", "--workload", "models.waiting:Deadly", *SMALL)
    assert done.returncode == 1
    assert "The process that tried the workload has ended (3)" in done.stderr
    assert not (project / "tuner.db").exists()


@contextmanager
def trying(project: Path) -> Iterator[tuple[subprocess.Popen[str], psutil.Process]]:
    """Runs a command whose workload is being tried; gives it and the process that tries it."""
    command = (sys.executable, "-m", "tuner", "run", "--workload", "models.waiting:Patient", *SMALL)
    with subprocess.Popen(
        command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as running:
        try:
            place = project / "trying"
            while not place.exists() or not place.read_text():
                assert running.poll() is None
                time.sleep(0.02)
            child = psutil.Process(int(place.read_text()))
            assert standing_by(project) == [child.pid]
            yield running, child
        finally:
            (project / "go").touch()
            running.kill()


def test_ctrl_c_while_a_workload_is_tried_leaves_no_process_and_no_study(project: Path) -> None:
    with trying(project) as (running, child):
        running.send_signal(signal.SIGINT)
        assert running.wait() == 1
        assert not child.is_running()
        assert standing_by(project) == []
    assert not (project / "tuner.db").exists()


def test_a_command_that_is_killed_leaves_no_process(project: Path) -> None:
    with trying(project) as (running, child):
        running.kill()
        running.wait()
        (project / "go").touch()
        child.wait()
    assert not (project / "tuner.db").exists()


def test_a_study_that_is_over_is_reported_and_leaves_no_process(
    tuner: Tuner, project: Path
) -> None:
    settings = ("run", "--workload", "models.waiting:Counting", *SMALL)
    assert tuner(*settings).returncode == 0
    again = tuner(*settings)
    assert again.returncode == 0, again.stderr
    # Its workload has not been tried again.
    assert len((project / "loaded").read_text().splitlines()) == 1
    assert standing_by(project) == []


def standing_by(project: Path) -> list[int]:
    """Returns the processes that stand by in a project."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
            if "standby" in process.cmdline() and process.cwd() == str(project):
                found.append(process.pid)
    return found
