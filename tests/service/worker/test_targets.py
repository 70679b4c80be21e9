"""Trials that are ranked by the steps they need to reach a target, on real databases."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import MakeSpec, forgotten
from tests.store.leases.bench import evaluated, ledger_of
from tuner.domain.catalog.dimensions import Choice
from tuner.domain.objective import UNREACHED, is_reached
from tuner.domain.states import StudyState
from tuner.domain.trials import Outcome, TrialRecord
from tuner.search import Proposer
from tuner.service.interruption import Interruption
from tuner.service.summaries import read_summary
from tuner.service.worker.worker import Worker
from tuner.store import Database, Studies, StudyHandle, read_records
from tuner.store.control import set_state
from tuner.store.events import read_events
from tuner.store.leases.reruns import rerun

LOOP = """
import torch


def train(run):
    model = torch.nn.Linear(1, 1)
    speed = run.suggest_categorical("speed", [1, 2, 3])
    optimizer = run.optimizer(model)
    for step in run.steps():
        optimizer.zero_grad()
        (model(torch.ones(1, 1)) ** 2).sum().backward()
        optimizer.step()
        if run.due():
            run.report(score=run.taken * speed)


def train_itself(run):
    model = torch.nn.Linear(1, 1)
    run.optimizer(model)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for step in run.steps():
        optimizer.step()
        run.report(score=1.0)
"""


@pytest.fixture
def loop(project: Path) -> Any:
    (project / "scored.py").write_text(LOOP)
    with forgotten("scored"):
        yield


def work(database: Database, study: StudyHandle, fuse: str = "off") -> list[TrialRecord]:
    Worker(
        database=database,
        study=study,
        device=torch.device("cpu"),
        interruption=Interruption(),
        started_at=time.monotonic(),
        fuse=fuse,
    ).run()
    return read_records(database, study)


def parabola(make_spec: MakeSpec, target: float, **tables: Any) -> Any:
    aim = {"objective": "time_to_target", "target": target}
    return make_spec(
        study={"name": "small", "workload": "models.parabola:Parabola", **aim},
        budget={"trials": 8, "steps": 40, "evaluations": 8},
        search={"sampler": "random", "pruner": "none", "portfolio": False},
        space={"optimizers": ["adam"], "schedules": ["constant"], "breadth": 1},
        optimizer={"adam": {"lr": {"low": 0.0005, "high": 0.1, "log": True}}},
        **tables,
    )


@pytest.mark.parametrize("fuse", ["off", "4"])
def test_a_trial_ends_at_the_evaluation_that_reaches_the_target(
    project: Path, database: Database, make_spec: MakeSpec, fuse: str
) -> None:
    study = Studies(database).create(parabola(make_spec, target=0.03))
    section = study.spec.study
    records = work(database, study, fuse)
    reached = [record for record in records if "reached" in record.attributes]
    assert 0 < len(reached) < len(records)
    for record in records:
        curve = list(record.evaluations.values())
        assert record.outcome is Outcome.COMPLETE
        assert record.value is not None
        assert all(metric > 0.03 for metric in curve[:-1])
        assert (curve[-1] <= 0.03) == is_reached(section, record.value) == (record in reached)
        if record in reached:
            assert record.value == max(record.evaluations)
        else:
            assert record.value >= UNREACHED
    summary = read_summary(database, study)
    assert summary.best is not None
    assert summary.best.record.value == min(record.value or 0.0 for record in records)
    assert summary.apart == ()
    [overview] = Studies(database).list()
    assert overview.best_value == summary.best.record.value
    again = rerun(database, study, summary.best.record.number, extend=True)
    assert work(database, study)[again].value == summary.best.record.value


def test_a_loop_of_ones_own_whose_metric_grows_ends_there_too(
    loop: None, database: Database, make_spec: MakeSpec
) -> None:
    spec = make_spec(
        study={
            "name": "small",
            "workload": "scored:train",
            "metric": "score",
            "direction": "maximize",
            "objective": "time_to_target",
            "target": 24,
        },
        budget={"trials": 6, "steps": 20, "evaluations": 10},
        search={"sampler": "tpe", "pruner": "halving", "portfolio": False, "spare": 0},
        space={"optimizers": ["sgd"], "schedules": ["constant"]},
    )
    study = Studies(database).create(spec)
    for record in work(database, study):
        speed = int(record.proposal.params["speed"])
        expected = {1: None, 2: 12.0, 3: 8.0}[speed]
        if record.outcome is Outcome.COMPLETE and expected is not None:
            assert record.value == expected
        else:
            assert record.value is None or record.value >= UNREACHED


def test_trial_ended_without_a_worker_has_not_reached_the_target(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(parabola(make_spec, target=0.5))
    ledger = ledger_of(database, study, "a")
    [lease] = ledger.start([], [Proposer(study.spec, seed=0).propose()])
    ledger.report(5, evaluated([lease], 5, value=0.7))
    ledger.release([lease])
    set_state(database, study, StudyState.STOPPED)
    [record] = read_records(database, study)
    assert record.outcome is Outcome.PRUNED
    assert record.value is not None
    assert record.value >= UNREACHED


def test_lane_that_has_reached_the_target_counts_at_the_later_rungs_of_its_cohort(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    spec = parabola(make_spec, target=0.05)
    rates = (0.0005, 0.0006, 0.0007, 0.0008, 0.0009, 0.001, 0.002, 0.003, 0.02)
    study = Studies(database).create(
        spec.model_copy(
            update={
                "budget": spec.budget.model_copy(
                    update={"trials": 9, "steps": 60, "evaluations": 10}
                ),
                "search": spec.search.model_copy(update={"pruner": "halving"}),
                "optimizer": {"adam": {**spec.optimizer["adam"], "lr": Choice(choices=rates)}},
            }
        )
    )
    [fast] = [r for r in work(database, study, fuse="9") if "reached" in r.attributes]
    assert fast.value == 18
    events = read_events(database, study.uuid)
    # One of three may go on from step 30, and that is the one that was there before.
    paused = [event.detail for event in events if event.kind == "paused"]
    assert (paused.count("at step 12"), paused.count("at step 30")) == (6, 2)


def test_trial_whose_optimizer_never_stepped_has_failed_though_it_reaches_the_target(
    loop: None, database: Database, make_spec: MakeSpec
) -> None:
    spec = make_spec(
        study={
            "name": "small",
            "workload": "scored:train_itself",
            "metric": "score",
            "objective": "time_to_target",
            "target": 24,
        },
        budget={"trials": 2, "steps": 20, "evaluations": 10},
    )
    for record in work(database, Studies(database).create(spec)):
        assert record.outcome is Outcome.FAILED
        assert "never stepped" in record.attributes["error"]
