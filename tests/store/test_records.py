from __future__ import annotations

from typing import Any

import optuna
import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from tests.store.single_trials import SingleTrials
from tuner.domain.trials import Outcome
from tuner.search import Proposer
from tuner.store import Database, RecordReader, StudyHandle, read_records
from tuner.store.leases.workers import WorkerIdentity

_STATES = {
    TrialState.COMPLETE: Outcome.COMPLETE,
    TrialState.PRUNED: Outcome.PRUNED,
    TrialState.FAIL: Outcome.FAILED,
    TrialState.RUNNING: Outcome.RUNNING,
}


def fill(database: Database, study: StudyHandle) -> SingleTrials:
    proposer = Proposer(study.spec, seed=3)
    ledger = SingleTrials(database, study, WorkerIdentity("a", "host", 1, "cpu", "0"))
    ledger.register(0.0, lambda ordinal: ordinal)
    for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, None):
        lease = ledger.start_one(proposer.openings(), proposer.propose())
        assert lease is not None
        ledger.report_one(lease, 5, 5, 0.5 + lease.number)
        if state is not None:
            value = None if state is TrialState.FAIL else 0.5 + lease.number
            ledger.finish_one(lease, state, value, {"steps": 5})
    return ledger


def test_optuna_reads_the_same_trials_as_its_own(database: Database, study: StudyHandle) -> None:
    fill(database, study)
    ours = read_records(database, study)
    theirs = optuna.load_study(study_name="small", storage=database.storage).trials
    assert [r.number for r in ours] == [t.number for t in theirs]
    assert [r.proposal.params for r in ours] == [t.params for t in theirs]
    assert [r.value for r in ours] == [t.value for t in theirs]
    assert [dict(r.evaluations) for r in ours] == [t.intermediate_values for t in theirs]
    assert [r.outcome for r in ours] == [_STATES[t.state] for t in theirs]
    optimizers = theirs[0].distributions["optimizer"]
    assert isinstance(optimizers, CategoricalDistribution)
    assert optimizers.choices == ("sgd", "adam")


def test_optuna_finds_the_best_trial_among_ours(database: Database, study: StudyHandle) -> None:
    fill(database, study)
    assert optuna.load_study(study_name="small", storage=database.storage).best_trial.number == 0


def test_reader_returns_only_what_started_or_finished_since(
    database: Database, study: StudyHandle
) -> None:
    reader = RecordReader(database, study)
    assert reader.sync() == []
    ledger = fill(database, study)
    assert [r.number for r in reader.sync()] == [0, 1, 2, 3]
    assert reader.sync() == []
    lease = ledger.take_one(lambda worker: True)
    assert lease is not None
    assert reader.sync() == []
    ledger.finish_one(lease, TrialState.COMPLETE, 0.1, {})
    [news] = reader.sync()
    assert (news.number, news.outcome, news.value) == (3, Outcome.COMPLETE, 0.1)
    assert reader.sync() == []


def test_trial_pruned_with_a_step_of_divergence_has_diverged(
    database: Database, study: StudyHandle
) -> None:
    ledger = fill(database, study)
    lease = ledger.take_one(lambda worker: True)
    assert lease is not None
    ledger.finish_one(lease, TrialState.PRUNED, None, {"diverged_step": 7})
    record = read_records(database, study)[lease.number]
    assert record.outcome is Outcome.DIVERGED
    assert record.value is None


def test_reader_that_follows_running_trials_returns_them_at_each_new_evaluation(
    database: Database, study: StudyHandle
) -> None:
    reader, plain = (
        RecordReader(database, study, follow_running=True),
        RecordReader(database, study),
    )
    ledger = fill(database, study)
    assert [r.number for r in reader.sync()] == [r.number for r in plain.sync()] == [0, 1, 2, 3]
    assert reader.sync() == []
    lease = ledger.take_one(lambda worker: True)
    assert lease is not None
    ledger.report_one(lease, 10, 10, 0.25)
    [news] = reader.sync()
    assert (news.number, news.outcome) == (3, Outcome.RUNNING)
    assert dict(news.evaluations) == {5: 3.5, 10: 0.25}
    assert news.proposal.params["optimizer"] in ("sgd", "adam")
    assert reader.sync() == plain.sync() == []
    ledger.report_one(lease, 10, 10, 0.125)
    [news] = reader.sync()
    assert news.evaluations[10] == 0.125
    ledger.finish_one(lease, TrialState.COMPLETE, 0.125, {})
    assert [r.outcome for r in reader.sync()] == [Outcome.COMPLETE]
    assert reader.sync() == []


def test_following_running_trials_costs_one_query(database: Database, study: StudyHandle) -> None:
    fill(database, study)
    counts = {}
    for follow in (False, True):
        reader = RecordReader(database, study, follow_running=follow)
        reader.sync()
        statements: list[str] = []
        with database.read() as connection:
            engine = connection.engine

        def count(*arguments: Any, seen: list[str] = statements) -> None:
            seen.append(arguments[2])

        sa.event.listen(engine, "before_cursor_execute", count)
        reader.sync()
        sa.event.remove(engine, "before_cursor_execute", count)
        counts[follow] = sum(statement.startswith("SELECT") for statement in statements)
    assert counts[True] == counts[False] + 1
