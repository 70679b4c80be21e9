"""Workers that pause trials at rungs and promote the best of them, on real databases."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import MakeSpec
from tests.service.worker.contexts import Counted
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, TrialRecord
from tuner.search.halving import rungs
from tuner.service.folders import study_folder
from tuner.service.interruption import Interruption
from tuner.service.worker.worker import Worker
from tuner.store import Database, Studies, StudyHandle, read_records
from tuner.store.events import Event, read_events
from tuner.store.leases.budget import is_done

CPU = torch.device("cpu")
RUNGS = (1, 3)
"""Of nine evaluations."""


@pytest.fixture
def spec(make_spec: MakeSpec, project: Path) -> StudySpec:
    return make_spec(**halving())


def halving(trials: int = 12, pruner: str = "halving") -> dict[str, Any]:
    return {
        "budget": {"trials": trials, "steps": 18, "evaluations": 9},
        "space": {"optimizers": ["sgd"], "schedules": ["constant"], "breadth": 3},
        "search": {"sampler": "random", "pruner": pruner, "portfolio": False},
        "train": {"batch_size": 32, "precision": "float64"},
    }


def work(
    database: Database,
    study: StudyHandle,
    fuse: str = "off",
    interruption: Interruption | None = None,
) -> list[str]:
    said: list[str] = []
    worker = Worker(
        database=database,
        study=study,
        device=CPU,
        interruption=interruption or Interruption(),
        started_at=time.monotonic(),
        log=said.append,
        fuse=fuse,
    )
    worker.run()
    return said


def events_of(database: Database, study: StudyHandle, kind: str) -> list[Event]:
    found = read_events(database, study.uuid)
    return [event for event in found if event.kind == kind and event.number is not None]


def check_ends(database: Database, study: StudyHandle) -> list[TrialRecord]:
    """Checks what holds of every study that has been halved to its end; returns its trials."""
    records = read_records(database, study)
    assert rungs(9) == RUNGS
    assert len(records) == study.spec.budget.trials
    assert is_done(database, study)
    assert {record.outcome for record in records} <= {Outcome.COMPLETE, Outcome.PRUNED}
    for record in records:
        lengths = (9,) if record.outcome is Outcome.COMPLETE else RUNGS
        assert len(record.evaluations) in lengths
        assert record.value == record.evaluations[max(record.evaluations)]
        assert record.attributes["steps"] == max(record.evaluations)
        assert "train_s" in record.attributes
    for rung in RUNGS:
        came = [r for r in records if len(r.evaluations) >= rung]
        values = {r.number: list(r.evaluations.values())[rung - 1] for r in came}
        on = [r.number for r in came if len(r.evaluations) > rung]
        left = [r.number for r in came if len(r.evaluations) == rung]
        best = sorted(values, key=values.__getitem__)[: len(came) // 3]
        assert set(best) <= set(on)
        assert not set(best) & set(left)
    assert not list(study_folder(database.url, study).rglob("*.pt"))
    return records


def curves_of(records: list[TrialRecord]) -> dict[int, Mapping[int, float]]:
    return {record.number: record.evaluations for record in records}


@pytest.mark.parametrize("fuse", ["off", "4"])
def test_trials_pause_and_the_best_third_is_promoted(
    database: Database, spec: StudySpec, fuse: str
) -> None:
    study = Studies(database).create(spec)
    work(database, study, fuse)
    check_ends(database, study)
    assert events_of(database, study, "promoted")
    assert events_of(database, study, "paused")
    assert events_of(database, study, "ended")
