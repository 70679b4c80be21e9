"""``--fuse`` as it is typed, in processes that are killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.conftest import ON_DEVICES, MakeSpec
from tuner.domain.trials import Outcome
from tuner.service.folders import study_folder
from tuner.store import Database, Studies, StudyHandle, read_records
from tuner.store.events import read_events

Tuner = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.mark.parametrize("text", ["many", "0", "513", "-3"])
def test_nonsense_is_refused_before_anything_is_created(
    tuner: Tuner, project: Path, text: str
) -> None:
    done = tuner("run", "studies/parabola.toml", "--fuse", text)
    assert done.returncode == 2
    assert f"--fuse '{text}': auto, off, or how many trials train as one" in done.stderr
    assert not (project / "tuner.db").exists()


def test_the_report_of_a_run_says_that_trials_trained_as_one(tuner: Tuner) -> None:
    settings = ("--set", "budget.trials=12", "--set", "budget.epochs=1")
    done = tuner("run", "studies/parabola.toml", "--fuse", "4", *settings)
    assert done.returncode == 0, done.stderr
    assert "trained as one" in done.stdout
    assert "up to 4 at once" in done.stdout


@ON_DEVICES
@pytest.mark.slow
def test_two_workers_share_a_device(tuner: Tuner, database: Database, device: str) -> None:
    settings = ("--set", "budget.trials=24", "--set", "budget.epochs=3", "--fuse", "4")
    url = ("--storage", database.url)
    done = tuner(
        *("run", "studies/parabola.toml", "--workers", "2", "--device", device, *settings, *url)
    )
    assert done.returncode == 0, done.stderr
    study = Studies(database).find("parabola")
    records = read_records(database, study)
    assert len(records) == 24
    ended = {Outcome.COMPLETE, Outcome.PRUNED, Outcome.DIVERGED}
    assert {record.outcome for record in records} <= ended


@pytest.fixture
def long(database: Database, make_spec: MakeSpec) -> StudyHandle:
    """Returns a study of trials that train for some seconds, often saved."""
    return Studies(database).create(
        make_spec(
            budget={"trials": 8, "steps": 6000, "evaluations": 20},
            search={"sampler": "random", "pruner": "none"},
            train={"batch_size": 32, "checkpoint_s": 0.2, "stall_s": 60},
        )
    )


@pytest.mark.slow
def test_lanes_of_a_killed_worker_are_taken_over(
    project: Path, database: Database, long: StudyHandle
) -> None:
    command = [sys.executable, "-m", "tuner", "worker", "start", long.name, "--fuse", "8"]
    environment = {**os.environ, "TUNER_STORAGE": database.url, "OMP_NUM_THREADS": "1"}
    folder = study_folder(database.url, long) / "checkpoints"
    with subprocess.Popen(command, cwd=project, env=environment, stdout=subprocess.PIPE) as first:
        while len(list(folder.glob("trial-*.pt"))) < 8 or not _has_reported(database, long):
            assert first.poll() is None
            time.sleep(0.02)
        first.kill()
    assert first.returncode == -signal.SIGKILL

    second = subprocess.run(
        command, cwd=project, env=environment, capture_output=True, text=True, check=False
    )

    assert second.returncode == 0, second.stdout + second.stderr
    assert "continue as one at step" in second.stdout
    records = read_records(database, long)
    assert [record.outcome for record in records] == [Outcome.COMPLETE] * 8
    assert all(len(record.evaluations) == 20 for record in records)
    kinds = [event.kind for event in read_events(database, long.uuid)]
    assert (kinds.count("started"), kinds.count("taken_over")) == (8, 8)
    assert list(folder.glob("*")) == []


def _has_reported(database: Database, study: StudyHandle) -> bool:
    return any(record.evaluations for record in read_records(database, study))
