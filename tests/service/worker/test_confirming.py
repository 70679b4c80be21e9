"""Workers that run a study's finalists again on fresh seeds, on real databases."""

from __future__ import annotations

import threading
from collections import Counter
from pathlib import Path
from typing import Any

import optuna
import pytest
import torch

from tests.conftest import MakeSpec
from tests.service.worker.contexts import Counted
from tests.service.worker.test_promotion import work
from tuner.domain.confirmation import CONFIRMS, REPEAT, Confirm
from tuner.domain.states import StudyState
from tuner.domain.trials import Outcome, TrialRecord
from tuner.errors import DamageWarning, NotFoundError, SpecError
from tuner.report.conclusion import conclude
from tuner.report.verdict_words import tell_confirmed
from tuner.service.confirmation import announce, find_next, open_confirmation, prepare_confirmation
from tuner.service.interruption import Interruption
from tuner.service.summaries import read_summary
from tuner.service.warm_start import add_warm_start
from tuner.store import Database, Studies, StudyHandle, read_records
from tuner.store.companions import find_companion
from tuner.store.control import set_state
from tuner.store.events import read_events
from tuner.store.identity import CONFIRMS as CONFIRMED
from tuner.store.identity import SPEC, set_attribute
from tuner.store.leases.budget import is_done
from tuner.store.leases.reruns import rerun
from tuner.training.seeds import derive_seed

CPU = torch.device("cpu")

_ASKS = """
import torch


def loop(run):
    width = run.suggest_int("width", 1, 64)
    model = torch.nn.Linear(width, 1)
    optimizer = run.optimizer(model)
    for step in run.steps():
        optimizer.zero_grad()
        loss = (model(torch.ones(1, width)) - 1).square().mean()
        loss.backward()
        optimizer.step()
        if run.due():
            run.report(val_loss=loss)
"""


def study_of(make_spec: MakeSpec, database: Database, **tables: Any) -> StudyHandle:
    """Returns a small study that has been searched to its end."""
    spec = make_spec(
        **{
            "budget": {"trials": 6, "steps": 12, "evaluations": 3},
            "space": {"optimizers": ["adamw", "sgd"], "schedules": ["constant"], "breadth": 1},
            "search": {"sampler": "random", "pruner": "none", "portfolio": False, "seed": 3},
            "train": {"batch_size": 32, "precision": "float64"},
        }
        | tables
    )
    study = Studies(database).create(spec)
    work(database, study)
    return study


@pytest.fixture
def searched(make_spec: MakeSpec, database: Database, project: Path) -> StudyHandle:
    return study_of(make_spec, database)


_LARGER: dict[str, Any] = {
    "study": {"name": "larger", "workload": "models.parabola:Parabola"},
    "budget": {"trials": 30, "steps": 2, "evaluations": 1},
}


def confirmed(database: Database, study: StudyHandle, **confirm: Any) -> StudyHandle:
    return open_confirmation(database, study, Confirm(**confirm))


def finalists_of(companion: StudyHandle) -> list[int]:
    assert companion.spec.confirmation is not None
    return [finalist.trial for finalist in companion.spec.confirmation.finalists]


def runs_of(records: list[TrialRecord]) -> Counter[tuple[int, int]]:
    return Counter((r.attributes[CONFIRMS], r.attributes[REPEAT]) for r in records)


def test_every_finalist_trains_once_on_each_of_the_same_fresh_seeds(
    database: Database, searched: StudyHandle
) -> None:
    companion = confirmed(database, searched)
    work(database, companion)
    records = read_records(database, companion)
    finalists = finalists_of(companion)
    assert len(finalists) == 3
    assert runs_of(records) == Counter((f, k) for f in finalists for k in range(5))
    assert is_done(database, companion)
    seeds = {r.attributes[REPEAT]: set[int]() for r in records}
    for record in records:
        assert record.outcome is Outcome.COMPLETE
        seeds[record.attributes[REPEAT]].add(record.attributes["seed"])
    assert seeds == {k: {derive_seed(3, "confirm", k) % 2**32} for k in range(5)}
    summary = read_summary(database, searched)
    assert summary.confirmed is not None
    assert summary.confirmed.race.settled
    assert summary.best is not None
    assert summary.best.record.number == summary.confirmed.verdict.winner


def test_as_one_or_alone_finalists_reach_the_same_values(
    make_spec: MakeSpec, database: Database, searched: StudyHandle
) -> None:
    companion = confirmed(database, searched)
    work(database, companion, fuse="4")
    fused = read_summary(database, searched).confirmed
    assert fused is not None
    assert {r.attributes["lanes"] for r in read_records(database, companion)} == {3}
    Studies(database).delete(companion)
    work(database, confirmed(database, searched))
    alone = read_summary(database, searched).confirmed
    assert alone is not None
    for one, other in zip(fused.arms, alone.arms, strict=True):
        assert one.trial == other.trial
        assert one.values == pytest.approx(other.values, rel=1e-9)
        assert len(set(one.values)) == 5


@pytest.mark.parametrize("fuse", ["off", "2"])
def test_workers_that_leave_at_any_time_lose_no_run_and_train_none_twice(
    database: Database, searched: StudyHandle, fuse: str
) -> None:
    companion = confirmed(database, searched)
    for stop_after in range(1, 40, 3):
        work(database, companion, fuse, Counted(stop_after))
    work(database, companion, fuse)
    records = read_records(database, companion)
    assert set(runs_of(records).values()) == {1}
    assert len(records) == 15
    assert {r.outcome for r in records} == {Outcome.COMPLETE}


def test_workers_side_by_side_start_each_run_once(
    database: Database, searched: StudyHandle
) -> None:
    companion = confirmed(database, searched)
    both = [
        threading.Thread(target=work, args=(database, companion, "off", Interruption()))
        for _ in range(2)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    records = read_records(database, companion)
    assert set(runs_of(records).values()) == {1}
    assert len(records) == 15


def test_hyperparameters_that_a_loop_asks_for_are_those_of_the_finalists(
    make_spec: MakeSpec, database: Database, project: Path
) -> None:
    (project / "asks.py").write_text(_ASKS)
    study = study_of(make_spec, database, study={"name": "asks", "workload": "asks:loop"})
    own = {r.number: r.proposal.params["width"] for r in read_records(database, study)}
    companion = confirmed(database, study)
    work(database, companion)
    for record in read_records(database, companion):
        trial = record.attributes[CONFIRMS]
        if trial >= 0:
            assert record.proposal.params["width"] == own[trial]
    defaults = {
        r.proposal.params["width"]
        for r in read_records(database, companion)
        if r.attributes[CONFIRMS] < 0
    }
    assert defaults == {own[finalists_of(companion)[0]]}


def test_another_trial_of_the_usual_choice_keeps_its_own_values_beside_the_defaults(
    make_spec: MakeSpec, database: Database, project: Path
) -> None:
    (project / "asks_again.py").write_text(_ASKS)
    study = study_of(
        make_spec,
        database,
        study={"name": "asks", "workload": "asks_again:loop"},
        space={"optimizers": ["adamw"], "schedules": ["constant"], "breadth": 1},
    )
    own = {r.number: r.proposal.params["width"] for r in read_records(database, study)}
    companion = confirmed(database, study, cost=10, top=6)
    assert len(finalists_of(companion)) > 4
    work(database, companion)
    widths = {
        (r.attributes[CONFIRMS], r.proposal.params["width"])
        for r in read_records(database, companion)
        if r.attributes[CONFIRMS] >= 0
    }
    assert widths == {(trial, own[trial]) for trial in finalists_of(companion) if trial >= 0}


def test_a_study_is_confirmed_once_also_under_another_name(
    database: Database, searched: StudyHandle
) -> None:
    first = open_confirmation(database, searched, Confirm())
    again = open_confirmation(database, searched, Confirm(seeds=20))
    assert again.uuid == first.uuid
    assert first.name == "small.confirm"
    assert announce(database, first) == (
        "Confirming 'small': 3 finalists on up to 5 fresh seeds each, at most 15 full trials."
    )
    optuna.study.create_study(study_name="other", storage=database.storage)
    found = find_companion(database, searched)
    assert found is not None
    assert found.uuid == first.uuid


def test_what_is_not_over_or_confirms_itself_is_not_confirmed(
    make_spec: MakeSpec, database: Database, project: Path
) -> None:
    study = Studies(database).create(make_spec())
    with pytest.raises(NotFoundError, match="nothing to confirm"):
        open_confirmation(database, study, Confirm())
    while not any(r.outcome is Outcome.COMPLETE for r in read_records(database, study)):
        work(database, study, interruption=Counted(1))
    # Also where no trial is in training now.
    with pytest.raises(SpecError, match=r"not over yet.*tuner study stop small"):
        open_confirmation(database, study, Confirm())
    work(database, study)
    with pytest.raises(SpecError, match="--top 3"):
        open_confirmation(database, study, Confirm(top=0))
    companion = confirmed(database, study)
    with pytest.raises(SpecError, match="confirms another one"):
        open_confirmation(database, companion, Confirm())


def test_only_a_study_of_thirty_trials_is_confirmed_without_being_asked_for(
    make_spec: MakeSpec, database: Database, searched: StudyHandle
) -> None:
    assert prepare_confirmation(database, searched) is None
    assert find_next(database, searched) is None
    larger = study_of(make_spec, database, **_LARGER)
    assert prepare_confirmation(database, larger, Confirm(top=0)) is None
    companion = prepare_confirmation(database, larger)
    assert companion is not None
    assert prepare_confirmation(database, larger, Confirm(top=0)) is not None
    assert find_next(database, larger) is None
    assert prepare_confirmation(database, larger, Confirm(top=1)) is not None
    begun = find_next(database, larger)
    assert begun is not None
    assert begun.uuid == companion.uuid
    assert not begun.waits


def test_workers_go_on_with_the_confirmation_and_begin_it_once(
    make_spec: MakeSpec, database: Database, project: Path
) -> None:
    study = Studies(database).create(make_spec(**_LARGER))
    companion = prepare_confirmation(database, study)
    assert companion is not None
    said: list[list[str]] = []
    both = [
        threading.Thread(
            target=lambda: said.append(work(database, study, interruption=Interruption()))
        )
        for _ in range(2)
    ]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(read_records(database, study)) == 30
    runs = read_records(database, companion)
    assert set(runs_of(runs).values()) == {1}
    assert len(runs) == 15
    announced = "Confirming 'larger': 3 finalists on up to 5 fresh seeds each, at most 15"
    assert any(line.startswith(announced) for lines in said for line in lines)
    kinds = [event.kind for event in read_events(database, companion.uuid)]
    assert kinds.count("planned") == 1
    assert find_next(database, study) is None


@pytest.mark.parametrize("stop_after", [1, 31, 40])
def test_a_worker_that_is_stopped_leaves_the_rest_to_the_next_which_joins_the_confirmation(
    make_spec: MakeSpec, database: Database, project: Path, stop_after: int
) -> None:
    study = Studies(database).create(make_spec(**_LARGER))
    companion = prepare_confirmation(database, study)
    assert companion is not None
    work(database, study, interruption=Counted(stop_after))
    work(database, study)
    runs = read_records(database, companion)
    assert set(runs_of(runs).values()) == {1}
    assert len(runs) == 15


def test_a_search_that_was_stopped_is_not_confirmed_until_somebody_asks(
    make_spec: MakeSpec, database: Database, project: Path
) -> None:
    study = Studies(database).create(make_spec(**_LARGER))
    companion = prepare_confirmation(database, study)
    assert companion is not None
    while not any(r.outcome is Outcome.COMPLETE for r in read_records(database, study)):
        work(database, study, interruption=Counted(1))
    set_state(database, study, StudyState.STOPPED)
    work(database, study)
    assert Studies(database).refresh(companion).waits
    with pytest.raises(SpecError, match="waits for the search of 'larger': train that one"):
        work(database, companion)
    asked = confirmed(database, study)
    assert asked.uuid == companion.uuid
    work(database, study)
    runs = read_records(database, companion)
    assert is_done(database, asked)
    assert runs_of(runs) == Counter((f, k) for f in finalists_of(asked) for k in range(5))


def test_a_confirmation_that_cannot_be_read_is_left_out_with_a_warning(
    database: Database, searched: StudyHandle
) -> None:
    companion = confirmed(database, searched)
    with database.write() as connection:
        set_attribute(connection, companion.study_id, SPEC, {"confirmation": 7})
    with pytest.warns(DamageWarning, match="The confirmation of 'small' is left out"):
        summary = read_summary(database, searched)
    assert summary.confirmed is None


def test_no_study_starts_from_one_that_confirms(
    make_spec: MakeSpec, database: Database, searched: StudyHandle
) -> None:
    work(database, confirmed(database, searched))
    Studies(database).delete(searched)
    later = make_spec(study={"name": "later", "workload": "models.parabola:Parabola"})
    search = later.search.model_copy(update={"warm_start": "auto"})
    taken = add_warm_start(later.model_copy(update={"search": search}), database)
    assert taken.warm_start is None


def test_where_its_usual_name_is_taken_it_has_another(
    make_spec: MakeSpec, database: Database, searched: StudyHandle
) -> None:
    taken = make_spec(study={"name": "small.confirm", "workload": "models.parabola:Parabola"})
    Studies(database).create(taken)
    companion = confirmed(database, searched)
    assert companion.name == f"confirm-{searched.uuid}"
    found = find_companion(database, searched)
    assert found is not None
    assert found.uuid == companion.uuid


def test_a_study_that_only_says_that_it_confirms_is_none(
    make_spec: MakeSpec, database: Database, searched: StudyHandle
) -> None:
    other = Studies(database).create(
        make_spec(study={"name": "other", "workload": "models.parabola:Parabola"})
    )
    with database.write() as connection:
        set_attribute(connection, other.study_id, CONFIRMED, searched.uuid)
    assert find_companion(database, searched) is None


@pytest.mark.parametrize("key", [CONFIRMS, REPEAT])
@pytest.mark.filterwarnings("ignore::tuner.errors.DamageWarning")
def test_runs_whose_finalist_or_seed_is_damaged_keep_the_race_from_nothing(
    database: Database, searched: StudyHandle, key: str
) -> None:
    companion = confirmed(database, searched)
    while len(read_records(database, companion)) < 4:
        work(database, companion, interruption=Counted(5))
    assert len(read_records(database, companion)) < 15
    with database.write() as connection:
        connection.exec_driver_sql(
            f"UPDATE trial_user_attributes SET value_json = 'x' WHERE key = '{key}' AND trial_id IN"
            f" (SELECT trial_id FROM trials WHERE study_id = {companion.study_id} AND number < 2)"
        )
    work(database, companion)
    summary = read_summary(database, searched)
    assert summary.confirmed is not None
    assert summary.confirmed.race.settled
    assert [len(arm.values) for arm in summary.confirmed.arms] == [5, 5, 5]
    assert len(read_records(database, companion)) == 15


_CRASHES = """
import torch
from pathlib import Path


def loop(run):
    model = torch.nn.Linear(4, 1)
    optimizer = run.optimizer(model)
    if Path("crash").exists() and run.seed % 2:
        raise OSError("disk full")
    for step in run.steps():
        optimizer.zero_grad()
        loss = (model(torch.ones(1, 4)) - 1).square().mean()
        loss.backward()
        optimizer.step()
        if run.due():
            run.report(val_loss=loss)
"""


def test_a_run_that_failed_is_told_and_its_rerun_takes_its_place(
    make_spec: MakeSpec, database: Database, project: Path
) -> None:
    (project / "crashes.py").write_text(_CRASHES)
    study = study_of(make_spec, database, study={"name": "c", "workload": "crashes:loop"})
    companion = confirmed(database, study)
    (project / "crash").touch()
    work(database, companion)
    (project / "crash").unlink()
    before = read_summary(database, study).confirmed
    assert before is not None
    failed = [n for numbers in before.failed.values() for n in numbers]
    assert failed
    assert any("failed runs, which count as if" in sentence for sentence in tell_confirmed(before))
    for number in failed:
        rerun(database, companion, number, extend=True)
    work(database, Studies(database).refresh(companion))
    after = read_summary(database, study).confirmed
    assert after is not None
    assert not after.failed
    assert after.runs == sum(len(arm.values) for arm in after.arms)
    assert all(None not in arm.values for arm in after.arms)


def test_trials_that_come_after_the_verdict_are_told_of(
    database: Database, searched: StudyHandle
) -> None:
    work(database, confirmed(database, searched))
    assert "newer than this verdict" not in " ".join(conclude(read_summary(database, searched)))
    longer = Studies(database).extend(searched, lambda budget: {"trials": budget.trials + 2})
    work(database, longer)
    told = " ".join(conclude(read_summary(database, longer)))
    assert "2 trials are newer than this verdict" in told
    assert "tuner study delete small.confirm" in told
