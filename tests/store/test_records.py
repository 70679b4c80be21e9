from __future__ import annotations

import optuna
from optuna.trial import TrialState

from tuner.domain.trials import Outcome
from tuner.search import Proposer
from tuner.store import Database, Ledger, RecordReader, StudyHandle, read_records
from tuner.store.workers import WorkerIdentity

_STATES = {
    TrialState.COMPLETE: Outcome.COMPLETE,
    TrialState.PRUNED: Outcome.PRUNED,
    TrialState.FAIL: Outcome.FAILED,
    TrialState.RUNNING: Outcome.RUNNING,
}


def fill(database: Database, study: StudyHandle) -> Ledger:
    proposer = Proposer(study.spec, seed=3)
    ledger = Ledger(database, study, WorkerIdentity("a", "host", 1, "cpu", "0"))
    ledger.register(0.0, lambda ordinal: ordinal)
    for state in (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL, None):
        lease = ledger.start(proposer.defaults(), proposer.propose())
        assert lease is not None
        ledger.report(lease, 5, 5, 0.5 + lease.number)
        if state is not None:
            value = None if state is TrialState.FAIL else 0.5 + lease.number
            ledger.finish(lease, state, value, {"steps": 5})
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
    assert theirs[0].distributions["optimizer"].choices == ("sgd", "adam")


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
    lease = ledger.take_over(lambda worker: True)
    assert lease is not None
    assert reader.sync() == []
    ledger.finish(lease, TrialState.COMPLETE, 0.1, {})
    [news] = reader.sync()
    assert (news.number, news.outcome, news.value) == (3, Outcome.COMPLETE, 0.1)
    assert reader.sync() == []


def test_trial_pruned_with_a_step_of_divergence_has_diverged(
    database: Database, study: StudyHandle
) -> None:
    ledger = fill(database, study)
    lease = ledger.take_over(lambda worker: True)
    assert lease is not None
    ledger.finish(lease, TrialState.PRUNED, None, {"diverged_step": 7})
    record = read_records(database, study)[lease.number]
    assert record.outcome is Outcome.DIVERGED
    assert record.value is None
