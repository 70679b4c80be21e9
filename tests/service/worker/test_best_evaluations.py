"""Trials that are ranked by their best evaluation, alone and as lanes, on real databases."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeSpec
from tests.service.worker.contexts import Bureau
from tests.service.worker.test_targets import work
from tuner.domain.states import StudyState
from tuner.domain.trials import Outcome, TrialRecord
from tuner.report.conclusion import conclude
from tuner.service.summaries import read_summary
from tuner.store import Database, Studies, StudyHandle, read_records
from tuner.store.control import set_state
from tuner.store.curves import read_curves
from tuner.training.run import Run

SWINGING = [0.5, 0.2, 0.7, 0.3]


def ranked_by_best(**section: Any) -> dict[str, Any]:
    return {"name": "small", "workload": "models.parabola:Parabola", "rank_by": "best", **section}


@pytest.mark.parametrize("fuse", ["off", "4"])
def test_every_trial_stands_by_its_best_evaluation_so_far(
    project: Path, database: Database, make_spec: MakeSpec, fuse: str
) -> None:
    spec = make_spec(
        study=ranked_by_best(),
        budget={"trials": 8, "steps": 40, "evaluations": 8},
        search={"sampler": "random", "pruner": "halving", "portfolio": False},
        space={"optimizers": ["adam", "momentum"], "schedules": ["constant"], "breadth": 1},
        optimizer={"adam": {"lr": {"low": 0.1, "high": 3.0, "log": True}}},
    )
    study = Studies(database).create(spec)
    records = work(database, study, fuse)
    swung = 0
    for record in records:
        curve = read_curves(database, study, record.number).get("val_loss", {})
        if record.outcome not in (Outcome.COMPLETE, Outcome.PRUNED) or not curve:
            continue
        check_stands_by_best(record, curve)
        swung += record.value != curve[max(curve)]
    assert swung > 0, "no trial got worse, so the test has tested nothing"
    summary = read_summary(database, study)
    assert summary.best is not None
    complete = [r.value for r in records if r.outcome is Outcome.COMPLETE and r.value is not None]
    assert summary.best.record.value == min(complete)
    assert "best val_loss" in conclude(summary)[0]


def check_stands_by_best(record: TrialRecord, curve: dict[int, float]) -> None:
    steps, values = zip(*sorted(curve.items()), strict=True)
    assert list(record.evaluations.values()) == list(itertools.accumulate(values, min))
    assert record.value == record.attributes["metrics"]["val_loss"] == min(values)
    assert record.attributes["best_step"] == steps[values.index(min(values))]


@pytest.fixture
def bureau(database: Database, make_spec: MakeSpec, tmp_path: Path) -> Bureau:
    return Bureau(
        database,
        make_spec,
        tmp_path,
        study=ranked_by_best(),
        budget={"trials": 4, "steps": 20, "evaluations": 4},
        search={"sampler": "random", "pruner": "none"},
        space={"optimizers": ["adam"], "schedules": ["constant"]},
    )


def swing(run: Run, returned: float | None = None) -> float | None:
    import torch

    optimizer = run.optimizer(torch.nn.Linear(1, 1))
    for _ in run.steps():
        optimizer.step()
        if run.due():
            at = run.evaluations.reported
            run.report(val_loss=SWINGING[at], accuracy=float(at))
    return returned


def test_other_metrics_are_those_of_the_best_evaluation(bureau: Bureau) -> None:
    record = bureau.train(swing)
    assert (record.value, record.attributes["best_step"]) == (0.2, 10)
    assert record.attributes["metrics"] == {"val_loss": 0.2, "accuracy": 1.0}
    assert any("best val_loss 0.2" in line for line in bureau.said)


@pytest.mark.parametrize(("returned", "value"), [(0.6, 0.2), (0.1, 0.1)])
def test_what_a_loop_returns_is_one_more_evaluation(
    bureau: Bureau, returned: float, value: float
) -> None:
    assert bureau.train(lambda run: swing(run, returned)).value == value


def test_resumed_trial_keeps_the_best_of_its_first_attempt(bureau: Bureau) -> None:
    assert bureau.train(swing, stop_after=13).outcome is Outcome.RUNNING
    record = bureau.train(swing)
    assert (record.outcome, record.value) == (Outcome.COMPLETE, 0.2)
    assert record.attributes["metrics"] == {"val_loss": 0.2, "accuracy": 1.0}
    assert any("continues at step" in line for line in bureau.said)


def test_trial_ended_without_a_worker_stands_by_its_best(bureau: Bureau) -> None:
    study: StudyHandle = bureau.study
    bureau.train(swing, stop_after=17)
    set_state(bureau.database, study, StudyState.STOPPED)
    [record] = read_records(bureau.database, study)
    assert (record.outcome, record.value) == (Outcome.PRUNED, 0.2)


def test_last_evaluation_counts_unless_asked(
    database: Database, make_spec: MakeSpec, tmp_path: Path
) -> None:
    usual = Bureau(
        database,
        make_spec,
        tmp_path,
        budget={"trials": 4, "steps": 20, "evaluations": 4},
        search={"sampler": "random", "pruner": "none"},
    )
    record = usual.train(swing)
    assert (record.value, record.attributes["metrics"]["accuracy"]) == (0.3, 3.0)
    assert "best_step" not in record.attributes
