"""Workers that pause trials at rungs and promote the best of them, on real databases."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import MakeSpec, forgotten
from tests.service.worker.contexts import Counted
from tuner.domain.spec import StudySpec
from tuner.domain.states import StudyState
from tuner.domain.trials import Outcome, TrialRecord
from tuner.errors import StorageError
from tuner.search.promotion import PromotionPruner, pausing_rungs
from tuner.service.folders import study_folder
from tuner.service.interruption import Interruption
from tuner.service.worker.checkpoints import Checkpoints
from tuner.service.worker.worker import Worker
from tuner.store import Database, Studies, StudyHandle, read_records
from tuner.store.control import set_state
from tuner.store.events import Event, read_events
from tuner.store.leases.budget import is_done

pytestmark = pytest.mark.usefixtures("short_trials")

CPU = torch.device("cpu")
PLAIN = {"name": "plain", "workload": "models.parabola:Parabola"}
RUNGS = pausing_rungs(9)


_CLOSING = """
import torch


def loop(run):
    optimizer = run.optimizer(torch.nn.Linear(1, 1))
    try:
        for step in run.steps():
            optimizer.step()
            run.report(val_loss=float(step))
    finally:
        if run.taken < run.total_steps and run.state.evaluated:
            raise ValueError("the logger is closed")
"""


@pytest.fixture
def even_the_best_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Has a trial pause although it is the best of the few that have come to its rung."""
    monkeypatch.setattr(PromotionPruner, "_least", 0)


@pytest.fixture
def spec(make_spec: MakeSpec, project: Path) -> StudySpec:
    return make_spec(**halving())


def halving(trials: int = 12, pruner: str = "halving") -> dict[str, Any]:
    return {
        "budget": {"trials": trials, "steps": 18, "evaluations": 9},
        "space": {"optimizers": ["sgd"], "schedules": ["constant"], "breadth": 3},
        "search": {"sampler": "random", "pruner": pruner, "portfolio": False, "seed": 1},
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
    assert pausing_rungs(9) == RUNGS
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
        best = sorted(values, key=values.__getitem__)[: max(1, len(came) // 3)]
        assert set(best) <= set(on)
        assert not set(best) & set(left)
    assert not list(study_folder(database.url, study).rglob("*.pt"))
    return records


def values_of(record: TrialRecord, points: int = 9) -> list[float]:
    return list(record.evaluations.values())[:points]


@pytest.mark.usefixtures("even_the_best_waits")
@pytest.mark.parametrize("fuse", ["off", "3"])
def test_trials_pause_at_rungs_and_the_best_third_goes_on(
    database: Database, spec: StudySpec, fuse: str
) -> None:
    study = Studies(database).create(spec)

    said = work(database, study, fuse)

    records = check_ends(database, study)
    promoted = {event.number for event in events_of(database, study, "promoted")}
    assert promoted
    assert any(len(records[number or 0].evaluations) == 9 for number in promoted)
    for number in promoted:
        kinds = [event.kind for event in read_events(database, study.uuid, number)]
        assert kinds[:4] == ["started", "paused", "promoted", "continued"]
        assert any(line.startswith(f"Trial {number} continues at step") for line in said)
    unpromoted = {r.number for r in records if r.outcome is Outcome.PRUNED}
    assert {event.number for event in events_of(database, study, "ended")} == unpromoted
    for number in unpromoted:
        assert f"Trial {number} paused: val_loss {records[number].value:.6g}" in said


@pytest.mark.parametrize("fuse", ["off", "3"])
def test_a_promoted_trial_comes_to_what_it_comes_to_without_a_pause(
    database: Database, make_spec: MakeSpec, project: Path, fuse: str
) -> None:
    study = Studies(database).create(make_spec(**halving()))
    other = make_spec(**halving(pruner="none"), study=PLAIN)
    plain = Studies(database).create(other)

    work(database, study, fuse)
    work(database, plain, fuse)

    uninterrupted = read_records(database, plain)
    for record in check_ends(database, study):
        expected = values_of(uninterrupted[record.number], len(record.evaluations))
        # Cohorts of other sizes round otherwise.
        near: Any = pytest.approx(expected, rel=1e-12)
        assert values_of(record) == (expected if fuse == "off" else near)


@pytest.mark.parametrize("fuse", ["off", "3"])
@pytest.mark.parametrize("looks", [15, 60])
def test_workers_that_leave_at_any_time_lose_nothing(
    database: Database, make_spec: MakeSpec, project: Path, fuse: str, looks: int
) -> None:
    study = Studies(database).create(make_spec(**halving()))
    for _ in range(40):
        work(database, study, fuse, Counted(looks))
        if is_done(database, study):
            break
    records = check_ends(database, study)
    assert not events_of(database, study, "started_over")
    assert all(record.attributes["steps"] == max(record.evaluations) for record in records)


def check_crew(database: Database, study: StudyHandle) -> None:
    """Has several workers halve a study at once, and checks that each trial has ended once."""
    workers = [threading.Thread(target=work, args=(database, study)) for _ in range(3)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    records = read_records(database, study)
    assert {record.outcome for record in records} == {Outcome.COMPLETE, Outcome.PRUNED}
    assert len(records) == study.spec.budget.trials
    assert is_done(database, study)
    ends = [event.number or 0 for event in events_of(database, study, "ended")]
    assert sorted(ends) == [r.number for r in records if r.outcome is Outcome.PRUNED]


def test_several_workers_halve_one_study(database: Database, spec: StudySpec) -> None:
    check_crew(database, Studies(database).create(spec))


class TestOnPostgreSQL:
    @pytest.fixture
    def database_url(self, postgres_url: str) -> str:
        return postgres_url

    def test_several_workers_halve_one_study(self, database: Database, spec: StudySpec) -> None:
        check_crew(database, Studies(database).create(spec))


@pytest.mark.parametrize("fuse", ["off", "3"])
def test_a_trial_that_cannot_be_saved_is_pruned_and_others_beside_it_pause(
    database: Database, spec: StudySpec, fuse: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    save = Checkpoints.save

    def refuse(self: Checkpoints, state: Mapping[str, Any]) -> None:
        if self._number in (1, 2):
            raise StorageError("no space left on device")
        save(self, state)

    monkeypatch.setattr(Checkpoints, "save", refuse)
    study = Studies(database).create(spec)
    said = work(database, study, fuse)
    records = check_ends(database, study)
    refused = [number for number in (1, 2) if records[number].outcome is Outcome.PRUNED]
    assert refused
    for number in refused:
        assert f"Trial {number} cannot be saved, so it is pruned instead of paused" in said
        kinds = [event.kind for event in read_events(database, study.uuid, number)]
        assert kinds == ["started", "finished"]
    assert events_of(database, study, "promoted")


@pytest.mark.usefixtures("even_the_best_waits")
def test_a_loop_that_raises_as_it_pauses_leaves_its_trial_paused(
    database: Database, make_spec: MakeSpec, project: Path
) -> None:
    (project / "closing.py").write_text(_CLOSING)
    with forgotten("closing"):
        tables = halving(3) | {"study": {"name": "small", "workload": "closing:loop"}}
        study = Studies(database).create(make_spec(**tables))
        said = work(database, study)
    records = read_records(database, study)
    assert Outcome.FAILED not in {record.outcome for record in records}
    assert "Trial 0, as it paused, raised ValueError: the logger is closed" in said
    assert is_done(database, study)


@pytest.mark.usefixtures("even_the_best_waits")
def test_a_study_that_is_stopped_ends_its_paused_trials(
    database: Database, make_spec: MakeSpec, project: Path
) -> None:
    study = Studies(database).create(make_spec(**halving()))
    work(database, study, interruption=Counted(30))
    assert not is_done(database, study)
    [overview] = Studies(database).list()
    assert overview.paused > 1
    set_state(database, study, StudyState.STOPPED)
    assert is_done(database, study)
    assert all(record.outcome.is_over for record in read_records(database, study))
    work(database, study)


def test_a_study_whose_configurations_have_all_been_tried_ends_its_paused_trials(
    database: Database, make_spec: MakeSpec, project: Path
) -> None:
    tables = halving(40)
    tables["space"] = {"optimizers": ["sgd"], "schedules": ["constant"]}
    tables["optimizer"] = {
        "sgd": {"lr": {"choices": [0.01, 0.02, 0.04, 0.08]}, "weight_decay": 0.0}
    }
    tables["schedule"] = {"constant": {"warmup": 0.0}}
    study = Studies(database).create(make_spec(**tables))
    said = work(database, study)
    assert said[-1].startswith("The study has ended")
    assert is_done(database, study)
    assert all(record.outcome.is_over for record in read_records(database, study))


@pytest.mark.parametrize("fuse", ["off", "3"])
def test_a_study_closes_once_each_optimizer_has_been_completed(
    database: Database, make_spec: MakeSpec, project: Path, fuse: str
) -> None:
    tables = halving(16)
    tables["space"] = {"optimizers": ["sgd", "adam", "rmsprop"], "schedules": ["constant"]}
    tables["search"] |= {"spare": 1}
    study = Studies(database).create(make_spec(**tables))
    work(database, study, fuse)
    *others, closing = read_records(database, study)
    assert [record.number for record in others if record.is_default] == []
    assert closing.is_default
    complete = [r for r in others if r.outcome is Outcome.COMPLETE and r.value is not None]
    assert {record.optimizer for record in complete} == set(study.spec.space.optimizers)
    assert closing.optimizer == min(complete, key=lambda record: record.value or 0.0).optimizer
    events = read_events(database, study.uuid)
    places = [place for place, event in enumerate(events) if event.number == closing.number]
    promoted = [p for p, event in enumerate(events) if event.kind == "promoted"]
    assert promoted
    assert max(promoted) < places[0]
