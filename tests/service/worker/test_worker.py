from __future__ import annotations

import math
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import MakeSpec, forgotten
from tests.service.worker.contexts import Counted
from tests.store.single_trials import SingleTrials
from tuner.domain.states import StudyState
from tuner.domain.trials import Outcome, TrialRecord
from tuner.errors import NotFoundError, SpecError, WorkloadError
from tuner.search import Proposer
from tuner.service.folders import study_folder
from tuner.service.interruption import Interruption
from tuner.service.ownership import claim_folder
from tuner.service.worker.worker import Log, Worker
from tuner.store import (
    Database,
    Studies,
    StudyHandle,
    WorkerIdentity,
    open_database,
    read_records,
)
from tuner.store.control import set_state
from tuner.store.leases.budget import read_exhausted

# Workloads that misbehave, written into the project as a user would.
_WORKLOADS = '''
import argparse
import asyncio
import os

import torch
from models.parabola import Parabola


class Raising(Parabola):
    """Raises in every trial."""

    def loss(self, model, batch):
        if torch.is_grad_enabled() and Raising.steps > 0:
            raise ValueError("the scale is off")
        Raising.steps += 1
        return super().loss(model, batch)

    steps = 0


class Unlucky(Parabola):
    """Raises in every third trial."""

    models = 0

    def model(self):
        Unlucky.models += 1
        if Unlucky.models % 3 == 0:
            raise OSError("the lights went out")
        return super().model()


class Greedy(Parabola):
    """Runs out of memory in every trial."""

    models = 0

    def model(self):
        Greedy.models += 1
        if Greedy.models > 1:
            raise torch.OutOfMemoryError("tried to allocate 80 GiB")
        return super().model()


class Ranked(Parabola):
    """Makes its process one of two ranks, in every trial after the first look."""

    models = 0

    def model(self):
        Ranked.models += 1
        if Ranked.models > 1:
            os.environ["WORLD_SIZE"] = "2"
        return super().model()


class Quitter(Parabola):
    """Asks the interpreter to end, in every trial after the first look."""

    models = 0

    def model(self):
        Quitter.models += 1
        if Quitter.models > 1:
            raise SystemExit(0)
        return super().model()


class Own(BaseException):
    """An exception that is none of Python's."""


ODD = [SystemExit(3), GeneratorExit(), asyncio.CancelledError(), KeyboardInterrupt(), Own("mine")]


def odd(run):
    """Raises, in the first trials, what is no Exception."""
    if ODD:
        raise ODD.pop(0)
    model = torch.nn.Linear(1, 1)
    optimizer = run.optimizer(model)
    model(torch.ones(1, 1)).sum().backward()
    optimizer.step()
    return 1.0


def parsing(run):
    """Reads a command line that is not its own."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--epochs", required=True)
    return float(parser.parse_args(["small"]).epochs)


class Cliff(Parabola):
    """Its loss is no number from the seventh training step of a trial on."""

    def model(self):
        Cliff.steps = 0
        return super().model()

    def loss(self, model, batch):
        loss = super().loss(model, batch)
        if torch.is_grad_enabled():
            Cliff.steps += 1
            if Cliff.steps >= 7:
                return loss * float("nan")
        return loss
'''

_OWN_LOOP = '''
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

WIDTH = 4


def train(run):
    """Learns the sum of two numbers, in an order of its own each epoch."""
    x = torch.rand(64, 2, generator=torch.Generator().manual_seed(0))
    loader = DataLoader(TensorDataset(x, x.sum(1, keepdim=True)), run.batch_size, shuffle=True)
    dropout = run.suggest_float("dropout", 0.0, 0.3)
    model = nn.Sequential(nn.Linear(2, WIDTH), nn.Dropout(dropout), nn.Linear(WIDTH, 1))
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer, loader)
    for step, (inputs, targets) in run.steps(loader):
        loss = nn.functional.mse_loss(model(inputs), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        try:
            run.report(step, val_loss=loss)
        except Exception:  # as careless loops do
            pass
'''


def work(
    database: Database,
    study: StudyHandle,
    interruption: Interruption | None = None,
    log: Log = lambda line: None,
    fuse: str = "auto",
) -> list[TrialRecord]:
    worker = Worker(
        database=database,
        study=study,
        device=torch.device("cpu"),
        interruption=interruption or Interruption(),
        started_at=time.monotonic(),
        log=log,
        fuse=fuse,
    )
    worker.run()
    return read_records(database, study)


@pytest.fixture
def misbehaving(project: Path) -> Iterator[None]:
    (project / "misbehaving.py").write_text(_WORKLOADS)
    with forgotten("misbehaving"):
        yield


CALM = {"sgd": {"lr": 0.01}, "adam": {"lr": 0.01}}
"""Learning rates at which the first trial, whichever it is, does not diverge."""


def of(make_spec: MakeSpec, workload: str, **tables: Any) -> Any:
    return make_spec(study={"name": "small", "workload": workload}, **tables)


def test_study_ends_with_exactly_its_budget(
    project: Path, database: Database, study: StudyHandle
) -> None:
    records = work(database, study)
    assert len(records) == study.spec.budget.trials
    assert all(r.outcome in (Outcome.COMPLETE, Outcome.PRUNED) for r in records)
    assert all(r.attributes["steps"] <= 20 for r in records)
    complete = [r for r in records if r.outcome is Outcome.COMPLETE]
    assert all(list(r.evaluations) == [5, 10, 15, 20] for r in complete)
    assert all(r.value == r.evaluations[20] for r in complete)


def test_same_spec_and_seed_give_the_same_study(
    project: Path, tmp_path: Path, make_spec: MakeSpec
) -> None:
    def outcome(name: str) -> list[tuple[Any, ...]]:
        database = open_database(f"sqlite:///{tmp_path / name}", create=True)
        spec = make_spec(budget={"trials": 14, "steps": 20, "evaluations": 4})
        records = work(database, Studies(database).create(spec))
        database.close()
        return [(r.proposal, r.outcome, r.value) for r in records]

    assert outcome("a.db") == outcome("b.db")


def test_exception_fails_its_trial_and_the_study_goes_on(
    misbehaving: None, database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(of(make_spec, "misbehaving:Unlucky"))
    records = work(database, study)
    assert len(records) == study.spec.budget.trials
    failed = [r for r in records if r.outcome is Outcome.FAILED]
    assert 0 < len(failed) < len(records)
    assert failed[0].attributes["error"] == "OSError: the lights went out"
    assert "in model" in failed[0].attributes["traceback"]


def test_study_stops_when_its_first_five_trials_fail_alike(
    misbehaving: None, database: Database, make_spec: MakeSpec
) -> None:
    spec = of(make_spec, "misbehaving:Raising", budget={"trials": 20, "steps": 20})
    study = Studies(database).create(spec)
    with pytest.raises(WorkloadError, match="the scale is off") as raised:
        work(database, study)
    assert "in loss" in str(raised.value)
    assert [r.outcome for r in read_records(database, study)] == [Outcome.FAILED] * 5


def test_out_of_memory_is_told_as_such(
    misbehaving: None, database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(of(make_spec, "misbehaving:Greedy"))
    with pytest.raises(WorkloadError):
        work(database, study)
    assert "Out of memory" in read_records(database, study)[0].attributes["error"]


def test_diverged_trial_ends_pruned_with_the_step(
    misbehaving: None, database: Database, make_spec: MakeSpec
) -> None:
    spec = of(make_spec, "misbehaving:Cliff", budget={"trials": 4, "steps": 20, "evaluations": 4})
    study = Studies(database).create(spec)
    records = work(database, study)
    assert {r.outcome for r in records} == {Outcome.DIVERGED}
    assert {r.attributes["diverged_step"] for r in records} == {7}
    assert {tuple(r.evaluations) for r in records} == {(5,)}


@pytest.mark.parametrize("fuse", ["off", "4"])
def test_study_stops_when_its_first_trials_diverge_alike_at_any_learning_rate(
    misbehaving: None, database: Database, make_spec: MakeSpec, fuse: str
) -> None:
    study = Studies(database).create(
        of(make_spec, "misbehaving:Cliff", budget={"trials": 30, "steps": 20})
    )
    with pytest.raises(WorkloadError, match=r"trials all diverged at step 7, with learning rates"):
        work(database, study, fuse=fuse)
    outcomes = [record.outcome for record in read_records(database, study)]
    assert set(outcomes) == {Outcome.DIVERGED}
    assert 5 <= len(outcomes) <= 8


def test_study_goes_on_where_trials_diverge_at_learning_rates_that_are_alike(
    misbehaving: None, database: Database, make_spec: MakeSpec
) -> None:
    spec = of(
        make_spec,
        "misbehaving:Cliff",
        budget={"trials": 7, "steps": 20},
        space={"optimizers": ["sgd"], "schedules": ["constant"]},
        optimizer={"sgd": {"lr": {"low": 0.1, "high": 0.2}}},
    )
    records = work(database, Studies(database).create(spec))
    assert len(records) == 7


def test_metric_the_workload_does_not_return_starts_no_trial(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    identity = {"name": "small", "workload": "models.parabola:Parabola", "metric": "f1"}
    study = Studies(database).create(make_spec(study=identity))
    with pytest.raises(SpecError, match="returns val_loss"):
        work(database, study)
    assert read_records(database, study) == []


@pytest.mark.parametrize("looks", [2, 6, 7, 13, 19, 40])
def test_interrupted_trial_is_continued_with_the_same_result(
    project: Path, database: Database, make_spec: MakeSpec, looks: int
) -> None:
    spec = make_spec(budget={"trials": 1, "steps": 20, "evaluations": 4})
    studies = Studies(database)
    whole = studies.create(spec)
    identity = spec.study.model_copy(update={"name": "broken"})
    broken = studies.create(spec.model_copy(update={"study": identity}))
    [expected] = work(database, whole)
    [stopped] = work(database, broken, Counted(looks))
    assert stopped.outcome is (Outcome.RUNNING if looks < 40 else Outcome.COMPLETE)
    [continued] = work(database, broken)
    assert continued.outcome is Outcome.COMPLETE
    assert continued.evaluations == expected.evaluations
    assert continued.attributes["steps"] == expected.attributes["steps"]
    assert list(study_folder(database.url, broken).rglob("*.pt")) == []


def test_damaged_checkpoint_starts_the_trial_over(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    spec = make_spec(budget={"trials": 1, "steps": 20, "evaluations": 4})
    study = Studies(database).create(spec)
    work(database, study, Counted(8))
    [path] = study_folder(database.url, study).rglob("trial-0-*.pt")
    path.write_bytes(path.read_bytes()[:100])
    [record] = work(database, study)
    assert record.outcome is Outcome.COMPLETE
    assert list(record.evaluations) == [5, 10, 15, 20]


def test_files_that_can_never_count_are_gone_when_a_worker_has_started(
    project: Path, database: Database, study: StudyHandle
) -> None:
    checkpoints = claim_folder(database, study) / "checkpoints"
    checkpoints.mkdir()
    left = [checkpoints / f"trial-99-{'0' * 32}{end}" for end in (".pt", ".1234.part")]
    for path in left:
        path.write_bytes(b"left behind")
    work(database, study, Counted(2))
    assert not any(path.exists() for path in left)


def test_files_of_a_trial_that_ends_while_nobody_holds_it_are_gone_when_workers_leave(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(make_spec(budget={"trials": 1, "steps": 20}))
    work(database, study, Counted(8))
    [path] = study_folder(database.url, study).rglob("trial-0-*.pt")
    set_state(database, study, StudyState.STOPPED)
    [record] = work(database, study)
    assert record.outcome is Outcome.PRUNED
    assert not path.exists()


def test_used_up_wall_time_ends_the_trial_in_training(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    spec = make_spec(budget={"trials": 1, "steps": 200_000, "evaluations": 200, "wall_time": 1.0})
    [record] = work(database, Studies(database).create(spec))
    assert record.outcome is Outcome.PRUNED
    assert record.attributes["stopped_by"] == "wall_time"


def test_maximised_metric_is_ranked_upwards(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    identity = {
        "name": "small",
        "workload": "models.digits:Digits",
        "metric": "val_accuracy",
        "direction": "maximize",
    }
    spec = make_spec(study=identity, budget={"trials": 3, "steps": 30})
    study = Studies(database).create(spec)
    records = work(database, study)
    best = Studies(database).list()[0].best_value
    assert best == max(r.value for r in records if r.outcome is Outcome.COMPLETE and r.value)
    assert best is not None
    assert not math.isnan(best)


def test_epochs_are_compared_by_evaluation_when_batch_sizes_differ(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    spec = make_spec(
        budget={"trials": 5, "epochs": 2, "evaluations": 4},
        train={"batch_size": {"choices": [16, 64]}},
    )
    study = Studies(database).create(spec)
    records = work(database, study)
    complete = [r for r in records if r.outcome is Outcome.COMPLETE]
    assert {tuple(r.evaluations) for r in complete} == {(1, 2, 3, 4)}
    assert {r.attributes["steps"] for r in complete} <= {100, 24}


def test_workload_that_asks_the_interpreter_to_end_fails_its_trial(
    misbehaving: None, database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(of(make_spec, "misbehaving:Quitter"))
    with pytest.raises(WorkloadError, match="SystemExit"):
        work(database, study)


def test_what_is_no_exception_fails_its_trial_and_the_worker_goes_on(
    misbehaving: None, database: Database, make_spec: MakeSpec
) -> None:
    records = work(database, Studies(database).create(of(make_spec, "misbehaving:odd")))
    assert [r.outcome for r in records] == [Outcome.FAILED] * 5 + [Outcome.COMPLETE]
    errors = [str(r.attributes["error"]) for r in records[:5]]
    assert errors == [
        "SystemExit: 3",
        "GeneratorExit: ",
        "CancelledError: ",
        "KeyboardInterrupt: ",
        "Own: mine",
    ]
    assert all("in odd" in r.attributes["traceback"] for r in records[:5])


def test_command_line_read_in_a_trial_is_told_as_such(
    misbehaving: None, database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(of(make_spec, "misbehaving:parsing", budget={"trials": 1}))
    [record] = work(database, study)
    error = str(record.attributes["error"])
    assert error.startswith("SystemExit: 2 (argparse read the arguments of the process")
    assert "call parse_args([])" in error


def test_long_intervals_between_evaluations_train_to_the_end(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    spec = make_spec(budget={"trials": 1, "steps": 5000, "evaluations": 2})
    [record] = work(database, Studies(database).create(spec))
    assert (record.outcome, list(record.evaluations)) == (Outcome.COMPLETE, [2500, 5000])


def test_worker_says_each_time_that_it_waits_for_a_paused_study(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(make_spec())
    waiting = "'small' is paused: waiting for 'tuner study resume small'"
    said: list[str] = []

    def follow(line: str) -> None:
        if line.startswith("One trial at a time"):
            return
        said.append(line)
        paused = line != waiting and said.count(waiting) < 2
        set_state(database, study, StudyState.PAUSED if paused else StudyState.RUNNING)

    set_state(database, study, StudyState.PAUSED)
    records = work(database, study, log=follow)
    assert len(records) == 6
    assert [said[0], said[2], said.count(waiting)] == [waiting, waiting, 2]


@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), ValueError("closed")])
def test_log_that_takes_nothing_costs_no_trial(
    project: Path, database: Database, study: StudyHandle, error: Exception
) -> None:
    def refuse(line: str) -> None:
        raise error

    records = work(database, study, log=refuse)
    assert len(records) == study.spec.budget.trials
    assert Outcome.FAILED not in {record.outcome for record in records}


def test_expired_lease_is_left_alone_by_a_worker_that_has_just_started(
    project: Path, database: Database, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = Studies(database).create(make_spec(budget={"trials": 1, "steps": 20}))
    holder = SingleTrials(database, study, WorkerIdentity("a", "host", 1, "cpu", "0"), lease_s=-1)
    lease = holder.start_one([], Proposer(study.spec, seed=0).propose())
    assert lease is not None
    work(database, study, Counted(3))
    holder.renew_one(lease, 5)  # it has been cut off, as everyone was
    monkeypatch.setattr("tuner.service.worker.worker._RENEWING_S", -1.0)
    [record] = work(database, study)
    assert record.outcome is Outcome.COMPLETE


def test_worker_stops_when_its_study_is_deleted(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(make_spec())
    Studies(database).delete(study)
    with pytest.raises(NotFoundError, match="deleted"):
        work(database, study)


class TestOwnLoop:
    """A training loop goes through a worker as a workload class does."""

    @pytest.fixture
    def loop(self, project: Path, monkeypatch: pytest.MonkeyPatch) -> str:
        (project / "own_training.py").write_text(_OWN_LOOP, encoding="utf-8")
        monkeypatch.delitem(sys.modules, "own_training", raising=False)
        monkeypatch.setattr(sys, "path", sys.path.copy())
        return "own_training:train"

    def test_its_study_ends_with_exactly_its_budget(
        self, loop: str, database: Database, make_spec: MakeSpec
    ) -> None:
        spec = of(make_spec, loop, budget={"trials": 12, "epochs": 4, "evaluations": 4})
        records = work(database, Studies(database).create(spec))
        assert len(records) == 12
        assert {r.outcome for r in records} <= {Outcome.COMPLETE, Outcome.PRUNED}
        complete = [r for r in records if r.outcome is Outcome.COMPLETE]
        assert {tuple(r.evaluations) for r in complete} == {(1, 2, 3, 4)}
        assert {r.attributes["steps"] for r in complete} == {8}
        assert len({r.proposal.params["dropout"] for r in records}) == 12

    @pytest.mark.parametrize("looks", [3, 6, 11])
    def test_interrupted_it_continues_with_the_same_result(
        self, loop: str, database: Database, make_spec: MakeSpec, looks: int
    ) -> None:
        budget = {"trials": 1, "steps": 20, "evaluations": 4}
        spec = of(make_spec, loop, budget=budget, optimizer=CALM)
        studies = Studies(database)
        [expected] = work(database, studies.create(spec))
        identity = spec.study.model_copy(update={"name": "broken"})
        broken = studies.create(spec.model_copy(update={"study": identity}))
        [stopped] = work(database, broken, Counted(looks))
        assert stopped.outcome is Outcome.RUNNING
        [continued] = work(database, broken)
        assert continued.evaluations == expected.evaluations
        assert continued.proposal.params == expected.proposal.params
        assert continued.attributes["steps"] == expected.attributes["steps"]

    def test_another_model_than_in_the_checkpoint_starts_the_trial_over(
        self, loop: str, database: Database, make_spec: MakeSpec
    ) -> None:
        budget = {"trials": 1, "steps": 20, "evaluations": 4}
        spec = of(make_spec, loop, budget=budget, optimizer=CALM)
        study = Studies(database).create(spec)
        work(database, study, Counted(8))
        sys.modules["own_training"].WIDTH = 5  # type: ignore[attr-defined]
        said: list[str] = []
        [record] = work(database, study, log=said.append)
        assert (record.outcome, list(record.evaluations)) == (Outcome.COMPLETE, [5, 10, 15, 20])
        assert any("starts over: The checkpoint does not fit Sequential" in line for line in said)


@pytest.mark.parametrize("fuse", ["off", "4"])
def test_a_study_ends_where_its_space_does(
    project: Path, database: Database, make_spec: MakeSpec, fuse: str
) -> None:
    spec = make_spec(
        budget={"trials": 12, "steps": 4, "evaluations": 2},
        space={"optimizers": ["sgd"], "schedules": ["constant"]},
        optimizer={"sgd": {"lr": {"choices": [0.001, 0.01]}, "weight_decay": 0.0}},
        schedule={"constant": {"warmup": 0.0}},
        train={"batch_size": {"choices": [16, 32]}},
    )
    study = Studies(database).create(spec)
    said: list[str] = []
    for _ in range(2):  # the second finds that nothing is left
        Worker(
            database=database,
            study=study,
            device=torch.device("cpu"),
            interruption=Interruption(),
            started_at=time.monotonic(),
            log=said.append,
            fuse=fuse,
        ).run()
    records = read_records(database, study)
    assert [record.outcome for record in records] == [Outcome.COMPLETE] * 4
    end = "The study has ended: all 4 configurations of the space have been tried"
    assert said.count(end) == 2


@pytest.mark.parametrize("pruner", ["none", "halving"])
def test_a_study_ends_by_itself_once_little_is_left_to_gain(
    project: Path, database: Database, make_spec: MakeSpec, pruner: str
) -> None:
    spec = make_spec(
        budget={"trials": 60, "steps": 5, "evaluations": 5, "stop": "auto"},
        space={"optimizers": ["sgd"], "schedules": ["constant"], "breadth": 1},
        optimizer={"sgd": {"lr": {"low": 1e-9, "high": 1e-8, "log": True}}},
        schedule={"constant": {"warmup": 0.0}},
        search={"sampler": "random", "pruner": pruner, "portfolio": False, "spare": 1},
    )
    study = Studies(database).create(spec)

    def run() -> list[TrialRecord]:
        return work(database, study)

    records = run()
    assert 20 <= len(records) < 30
    assert all(record.outcome.is_over for record in records)
    assert sum(record.is_default for record in records) == 1
    reason = read_exhausted(database, study)
    assert reason is not None
    assert reason.startswith("another 10 trials are expected to gain 0.00% of the best value")
    assert len(run()) == len(records)
    set_state(database, study, StudyState.RUNNING)
    assert len(records) + 10 <= len(run()) < 45


@pytest.mark.usefixtures("misbehaving")
def test_a_worker_ends_once_its_loop_has_made_it_a_rank(
    database: Database, make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "1")
    spec = make_spec(study={"name": "small", "workload": "misbehaving:Ranked"})
    study = Studies(database).create(spec)
    with pytest.raises(SpecError, match="one of 2 ranks"):
        Worker(
            database=database,
            study=study,
            device=torch.device("cpu"),
            interruption=Interruption(),
            started_at=time.monotonic(),
            fuse="off",
        ).run()
    [record] = read_records(database, study)
    assert record.outcome is Outcome.FAILED
    assert "gradients of different trials" in record.attributes["error"]


_GRID = """
import optuna

def grid(seed):
    return optuna.samplers.GridSampler({"sgd.lr": [0.002, 0.02]}, seed=0)
"""


def test_a_study_whose_sampler_is_through_ends_with_defaults_in_full(
    project: Path, database: Database, make_spec: MakeSpec
) -> None:
    (project / "own_grid.py").write_text(_GRID)
    spec = make_spec(
        budget={"trials": 12, "steps": 4, "evaluations": 2},
        space={"optimizers": ["sgd"], "schedules": ["constant"], "breadth": 1},
        search={"sampler": "own_grid:grid", "portfolio": False},
        schedule={"constant": {"warmup": 0.0}},
    )
    with forgotten("own_grid"):
        records = work(database, Studies(database).create(spec))
        again = work(database, Studies(database).get(spec.study.name) or pytest.fail("gone"))
    assert [record.proposal.preset for record in records] == [None, None, "default"]
    assert records[-1].outcome is Outcome.COMPLETE
    assert [record.number for record in again] == [0, 1, 2]
