"""A trial that is stopped, in whichever way, ends as one that never was."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from typing import Any

import pytest
import torch

from tests.conftest import ROOT, MakeSpec
from tests.service.worker.fated import PAUSE
from tests.training.loops import EPOCH
from tuner.domain.states import StudyState
from tuner.domain.trials import Outcome, TrialRecord
from tuner.service.interruption import Interruption
from tuner.service.worker.worker import Worker
from tuner.store import Database, Studies, StudyHandle, read_records
from tuner.store.control import set_state
from tuner.store.events import read_events

EPOCHS = 4
BUDGETS = {"steps": EPOCHS * EPOCH, "epochs": EPOCHS, "examples": EPOCHS * EPOCH * 32}

CALM = {"low": 1e-3, "high": 1e-2, "log": True}
"""Rates at which nothing diverges."""

KINDS = {
    "own loop": ("tests.training.loops:over_loader", "off", 1),
    "class": ("tests.training.trials:Droopy", "off", 1),
    "fused class": ("tests.training.trials:Line", "4", 4),
}
"""What trains, how many trials of it as one, and how many there are."""


def work(database: Database, study: StudyHandle, fuse: str, said: list[str]) -> list[TrialRecord]:
    Worker(
        database=database,
        study=study,
        device=torch.device("cpu"),
        interruption=Interruption(),
        started_at=time.monotonic(),
        log=said.append,
        fuse=fuse,
    ).run()
    return read_records(database, study)


def is_stopped(database: Database, study: StudyHandle, fuse: str, fate: str) -> list[str]:
    """Has a worker in a process of its own come to its fate; returns what it said."""
    program = (sys.executable, "-m", "tests.service.worker.fated")
    with subprocess.Popen(
        (*program, database.url, study.name, fuse, fate),
        cwd=ROOT,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout is not None
        said = []
        for line in process.stdout:
            said.append(line.rstrip())
            if fate == PAUSE and line.endswith("released\n"):
                set_state(database, study, StudyState.RUNNING)
    killed = -signal.SIGKILL if fate == "SIGKILL" else 0
    assert process.returncode == killed, said
    return said


@pytest.mark.slow
@pytest.mark.parametrize("fate", ["SIGINT", "SIGTERM", "SIGKILL", PAUSE])
@pytest.mark.parametrize("kind", list(KINDS))
@pytest.mark.parametrize("unit", list(BUDGETS))
def test_its_whole_curve_is_that_of_a_trial_that_was_never_stopped(
    database: Database,
    make_spec: MakeSpec,
    monkeypatch: pytest.MonkeyPatch,
    unit: str,
    kind: str,
    fate: str,
) -> None:
    monkeypatch.chdir(ROOT)
    workload, fuse, trials = KINDS[kind]

    def create(name: str) -> StudyHandle:
        spec: Any = make_spec(
            study={"name": name, "workload": workload},
            budget={"trials": trials, unit: BUDGETS[unit], "evaluations": 7},
            search={"sampler": "random", "pruner": "none", "portfolio": False},
            optimizer={"sgd": {"lr": CALM}, "adam": {"lr": CALM}},
            train={"batch_size": 32, "checkpoint_s": 0.1},
        )
        return Studies(database).create(spec)

    whole = work(database, create("whole"), fuse, [])
    study = create("stopped")
    said = is_stopped(database, study, fuse, fate)
    if fate != PAUSE:  # once that is over, the same worker goes on
        assert {r.outcome for r in read_records(database, study)} == {Outcome.RUNNING}
    records = work(database, study, fuse, said)

    assert [record.outcome for record in whole] == [Outcome.COMPLETE] * trials
    assert [record.outcome for record in records] == [Outcome.COMPLETE] * trials
    for record, never in zip(records, whole, strict=True):
        assert record.proposal == never.proposal
        assert len(never.evaluations) == 7
        assert record.evaluations == never.evaluations
        assert record.value == never.value
        for attribute in ("steps", "metrics"):
            assert record.attributes[attribute] == never.attributes[attribute]
        [told] = [e for e in read_events(database, study.uuid, record.number) if "cont" in e.kind]
        [step] = map(int, re.findall(r"at step (\d+)", told.detail))
        assert 0 < step < never.attributes["steps"]
        assert any(f"at step {step}" in line and "continue" in line for line in said)
    assert not any("over:" in line for line in said)
