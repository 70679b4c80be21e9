"""What changes a study at the same moment: nothing that one has written is lost to another."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from optuna.trial import TrialState

from tests.store.single_trials import SingleTrials
from tuner.domain.fuse_plan import FusePlan
from tuner.domain.states import StudyState
from tuner.search import Proposer
from tuner.store import Database, Studies, StudyHandle, open_database
from tuner.store.control import read_state, repair, set_state
from tuner.store.leases.reruns import rerun
from tuner.store.leases.rows import assume_alive
from tuner.store.leases.workers import WorkerIdentity, read_workers
from tuner.store.plans import keep_plan, read_plans
from tuner.store.records import read_records

TIMES = 6

Change = Callable[[Database, int], object]


def race(url: str, *changes: Change) -> None:
    """Makes each of some changes several times, in order, all of them beside each other."""
    ready = threading.Barrier(len(changes))

    def make(change: Change) -> None:
        own = open_database(url)
        try:
            ready.wait(timeout=60)
            for turn in range(TIMES):
                change(own, turn)
        finally:
            own.close()

    with ThreadPoolExecutor(len(changes)) as pool:
        list(pool.map(make, changes))


@pytest.fixture
def done(database: Database, study: StudyHandle) -> StudyHandle:
    """Returns a study whose budget is used up."""
    ledger = SingleTrials(database, study, WorkerIdentity("w", "host", 1, "cpu", "0"))
    ledger.register(0.0, lambda ordinal: ordinal)
    proposals = [Proposer(study.spec, seed=0).propose() for _ in range(6)]
    for lease in ledger.start([], proposals):
        ledger.finish_one(lease, TrialState.COMPLETE, 1.0, {})
    return study


def test_budget_that_grows_by_reruns_is_not_set_back_by_a_change_of_another_limit(
    database: Database, done: StudyHandle
) -> None:
    race(
        database.url,
        lambda own, turn: rerun(own, done, 0, extend=True),
        lambda own, turn: Studies(own).extend(done, lambda _: {"wall_time": 100.0 + turn}),
    )
    budget = Studies(database).find(done.name).spec.budget
    assert (budget.trials, budget.wall_time) == (6 + TIMES, 99.0 + TIMES)
    assert len(read_records(database, done)) == budget.trials


def test_limits_are_raised_from_what_they_are_not_from_what_was_read_before(
    database: Database, study: StudyHandle
) -> None:
    def one_more(own: Database, turn: int) -> None:
        Studies(own).extend(study, lambda budget: {"trials": budget.trials + 1})

    race(database.url, one_more, one_more, one_more)
    assert Studies(database).find(study.name).spec.budget.trials == 6 + 3 * TIMES


def test_whatever_else_changes_a_study_leaves_the_rest_as_it_is(
    database: Database, done: StudyHandle
) -> None:
    plans = [FusePlan(1, reason=f"turn {turn}", trials=6) for turn in range(TIMES)]

    def enter(own: Database, turn: int) -> None:
        worker = WorkerIdentity(f"w{turn}", "host", 1, "cpu", "0")
        SingleTrials(own, done, worker).register(0.0, lambda ordinal: ordinal)

    states = (StudyState.PAUSED, StudyState.RUNNING)
    race(
        database.url,
        lambda own, turn: set_state(own, done, states[turn % 2]),
        lambda own, turn: Studies(own).extend(done, lambda _: {"wall_time": 100.0 + turn}),
        lambda own, turn: keep_plan(own, done, "here", plans[turn]),
        lambda own, turn: repair(own, done, assume_alive),
        enter,
    )
    found = Studies(database).find(done.name)
    assert read_state(database, done) is states[(TIMES - 1) % 2]
    assert found.spec.budget.wall_time == 99.0 + TIMES
    assert read_plans(database, done) == {"here": plans[0]}
    assert len(read_workers(database, done)) == 1 + TIMES
