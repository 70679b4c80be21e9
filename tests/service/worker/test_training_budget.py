"""Workers on a study whose training is bounded, in full trials, on real databases."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import torch

from tests.conftest import MakeSpec
from tests.store.leases.bench import evaluated, ledger_of
from tuner.domain.lengths import share_trained
from tuner.domain.trials import Outcome, TrialRecord
from tuner.search import Proposer
from tuner.service.interruption import Interruption
from tuner.service.worker.worker import Worker
from tuner.store import Database, Studies, StudyHandle, open_database, read_records
from tuner.store.leases.budget import is_done
from tuner.store.leases.charges import read_used

FULL = 20


@pytest.fixture
def make_study(project: Path, database: Database, make_spec: MakeSpec) -> Any:
    """Returns a study of short trials, by its budget of full trials and its pruner."""

    def make(full_trials: float, pruner: str = "halving") -> StudyHandle:
        spec = make_spec(
            budget={"full_trials": full_trials, "steps": FULL, "evaluations": 10},
            search={"sampler": "random", "pruner": pruner, "portfolio": False, "spare": 1},
            optimizer={"sgd": {"lr": 0.01}, "adam": {"lr": 0.01}},
            space={"optimizers": ["sgd", "adam"], "schedules": ["constant"], "breadth": 3},
        )
        return Studies(database).create(spec)

    return make


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


def check(database: Database, study: StudyHandle, records: list[TrialRecord]) -> float:
    """Checks that what is charged was trained; returns it."""
    used = read_used(database, study)
    assert used is not None
    assert used == pytest.approx(sum(share_trained(record.attributes) for record in records))
    assert all(record.outcome.is_over for record in records)
    assert is_done(database, study)
    return used


@pytest.mark.parametrize("fuse", ["off", "4"])
@pytest.mark.parametrize("pruner", ["halving", "none"])
def test_training_is_bounded_and_the_last_trials_fit_in(
    database: Database, make_study: Any, pruner: str, fuse: str
) -> None:
    study = make_study(10.5, pruner)
    records = work(database, study, fuse)
    assert 9.5 < check(database, study, records) <= 10.5
    assert sum(record.is_default for record in records) == 1
    complete = {r.optimizer for r in records if r.outcome is Outcome.COMPLETE}
    assert complete == {"sgd", "adam"}
    assert len(records) == 10 if pruner == "none" else len(records) > 10


def test_several_workers_share_one_bound(database: Database, make_study: Any) -> None:
    study = make_study(10.5)

    def start(index: int) -> None:
        own = open_database(database.url)
        work(own, study)
        own.close()

    with ThreadPoolExecutor(2) as pool:
        list(pool.map(start, range(2)))
    records = read_records(database, study)
    assert 9.5 < check(database, study, records) <= 10.5
    assert sum(record.is_default for record in records) == 1


def test_a_larger_bound_goes_on(database: Database, make_study: Any) -> None:
    study = make_study(2.0, "none")
    assert len(work(database, study)) == 2
    study = Studies(database).extend(study, lambda budget: {"full_trials": 4.5})
    assert len(work(database, study)) == 4


def leave_begun(database: Database, study: StudyHandle) -> None:
    """Starts a trial and gives it back after two of ten evaluations, without a checkpoint."""
    ledger, proposer = ledger_of(database, study, "gone"), Proposer(study.spec, seed=0)
    lease = ledger.start_one([], proposer.propose())
    assert lease is not None
    for step in (2, 4):
        ledger.report(step, evaluated([lease], step))
    ledger.release([lease])


def test_what_was_lost_counts(database: Database, make_study: Any) -> None:
    study = make_study(2.3, "none")
    leave_begun(database, study)
    records = work(database, study)
    assert [record.outcome for record in records] == [Outcome.COMPLETE] * 2
    assert read_used(database, study) == pytest.approx(2.2)


def test_a_trial_that_has_lost_more_than_is_left_ends(database: Database, make_study: Any) -> None:
    study = make_study(1.1, "none")
    leave_begun(database, study)
    [record] = work(database, study)
    assert (record.outcome, len(record.evaluations)) == (Outcome.PRUNED, 2)
    assert read_used(database, study) == pytest.approx(0.2)
    assert is_done(database, study)
