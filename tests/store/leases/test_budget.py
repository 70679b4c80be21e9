from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

from optuna.trial import TrialState

from tests.conftest import MakeSpec
from tests.store.leases.bench import (
    Bench,
    Cohorts,
    complete,
    evaluated,
    ledger_of,
    nobody_died,
    numbers,
)
from tests.store.single_trials import SingleTrials
from tuner.domain.states import StudyState
from tuner.domain.trials import Outcome
from tuner.search import Proposer
from tuner.store import Database, Studies, open_database, read_records
from tuner.store.control import set_state
from tuner.store.events import read_events
from tuner.store.leases.budget import is_done, read_exhausted
from tuner.store.leases.workers import WorkerIdentity


def test_budget_is_exact_however_many_workers_start_trials_at_once(
    database: Database, make_spec: MakeSpec, portfolio: object
) -> None:
    budget = {"trials": 25, "steps": 20}
    study = Studies(database).create(make_spec(budget=budget))
    proposers = [Proposer(study.spec, seed=index) for index in range(6)]

    def start_all(index: int) -> list[int]:
        own = open_database(database.url)
        ledger = ledger_of(own, study, f"w{index}")
        proposer = proposers[index]
        numbers = []
        while (lease := ledger.start_one(proposer.openings(), proposer.propose())) is not None:
            numbers.append(lease.number)
            ledger.finish_one(lease, TrialState.COMPLETE, 1.0, {})
        own.close()
        return numbers

    with ThreadPoolExecutor(6) as pool:
        numbers = [number for own in pool.map(start_all, range(6)) for number in own]
    assert sorted(numbers) == list(range(25))
    records = read_records(database, study)
    assert [record.number for record in records] == list(range(25))
    started = [r.proposal.preset for r in records].count("portfolio")
    assert started == len(proposers[0].openings()) == 3


def test_many_workers_on_postgresql_share_one_budget(
    postgres_url: str, make_spec: MakeSpec
) -> None:
    database = open_database(postgres_url, create=True)
    study = Studies(database).create(make_spec(budget={"trials": 150, "steps": 20}))
    proposer = Proposer(study.spec, seed=0)
    openings, proposal = proposer.openings(), proposer.propose()
    connections = [open_database(postgres_url) for _ in range(10)]

    def work(index: int) -> list[int]:
        ledger = ledger_of(connections[index % 10], study, f"w{index}")
        numbers = []
        while (lease := ledger.start_one(openings, proposal)) is not None:
            numbers.append(lease.number)
            ledger.report_one(lease, 5, 5, 0.5)
            if index % 2 or lease.number % 7:
                ledger.finish_one(lease, TrialState.COMPLETE, 0.5, {})
            else:
                ledger.release([lease])
        while (lease := ledger.take_one(nobody_died)) is not None:
            ledger.finish_one(lease, TrialState.COMPLETE, 0.5, {})
        return numbers

    with ThreadPoolExecutor(50) as pool:
        numbers = [number for own in pool.map(work, range(100)) for number in own]
    assert sorted(numbers) == list(range(150))
    records = read_records(database, study)
    assert [record.number for record in records] == list(range(150))
    assert {record.outcome for record in records} == {Outcome.COMPLETE}
    assert is_done(database, study)
    for opened in (database, *connections):
        opened.close()


def test_study_is_done_when_nothing_is_left_to_start_or_held(bench: Bench) -> None:
    ledger = bench.ledger("a")
    leases = [bench.start(ledger) for _ in range(bench.study.spec.budget.trials)]
    assert not is_done(bench.database, bench.study)
    for lease in leases:
        ledger.finish_one(lease, TrialState.PRUNED, None, {})
    assert is_done(bench.database, bench.study)


def test_extended_budget_counts_at_once_for_a_running_worker(bench: Bench) -> None:
    ledger = bench.ledger("a")
    for _ in range(bench.study.spec.budget.trials):
        ledger.finish_one(bench.start(ledger), TrialState.PRUNED, None, {})
    assert ledger.start_one([], bench.proposer.propose()) is None
    Studies(bench.database).extend(bench.study, lambda budget: {"trials": 7})
    assert bench.start(ledger).number == 6


def test_used_up_wall_time_starts_nothing_more(database: Database, make_spec: MakeSpec) -> None:
    study = Studies(database).create(make_spec(budget={"steps": 5, "wall_time": 100.0}))
    bench = Bench(database, study)
    ledger = SingleTrials(database, study, WorkerIdentity("a", "host", 1, "cpu", "0"))
    ledger.register(99.0, lambda ordinal: ordinal)
    assert not ledger.signals().out_of_time
    bench.start(ledger)
    late = SingleTrials(database, study, WorkerIdentity("b", "host", 1, "cpu", "0"))
    late.register(101.0, lambda ordinal: ordinal)
    assert late.signals().out_of_time
    assert late.start_one([], bench.proposer.propose()) is None


def test_extended_wall_time_counts_at_once_for_a_running_worker(
    database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(make_spec(budget={"steps": 5, "wall_time": 100.0}))
    ledger = SingleTrials(database, study, WorkerIdentity("a", "host", 1, "cpu", "0"))
    ledger.register(101.0, lambda ordinal: ordinal)
    assert ledger.signals().out_of_time
    Studies(database).extend(study, lambda budget: {"wall_time": 500.0})
    assert not ledger.signals().out_of_time


def test_group_takes_what_is_left_of_the_budget(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    sizes = [len(cohorts.start_some(ledger, 5)) for _ in range(4)]
    assert sizes == [5, 5, 2, 0]
    assert [r.number for r in read_records(cohorts.database, cohorts.study)] == list(range(12))


def test_budget_is_exact_when_many_workers_start_groups_at_once(
    database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(make_spec(budget={"trials": 50, "steps": 20}))
    proposer = Proposer(study.spec, seed=0)
    openings, proposals = proposer.openings(), [proposer.propose() for _ in range(7)]

    def start_all(index: int) -> list[int]:
        own = open_database(database.url)
        ledger = ledger_of(own, study, f"w{index}")
        started = []
        while leases := ledger.start(openings, proposals):
            started += numbers(leases)
            assert ledger.report(5, evaluated(leases, 5)) == {}
            assert ledger.finish(complete(leases)) == {}
        own.close()
        return started

    with ThreadPoolExecutor(6) as pool:
        started = [number for own in pool.map(start_all, range(6)) for number in own]
    assert sorted(started) == list(range(50))
    records = read_records(database, study)
    assert [record.number for record in records] == list(range(50))
    assert {record.outcome for record in records} == {Outcome.COMPLETE}
    assert is_done(database, study)


def test_nothing_starts_in_a_paused_or_stopped_study(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    for state in (StudyState.PAUSED, StudyState.STOPPED):
        set_state(cohorts.database, cohorts.study, state)
        assert cohorts.start_some(ledger, 3) == []
    set_state(cohorts.database, cohorts.study, StudyState.RUNNING)
    assert len(cohorts.start_some(ledger, 3)) == 3


def test_worker_that_started_before_a_study_was_told_to_go_on_does_not_end_it(
    bench: Bench,
) -> None:
    studies, ledger = Studies(bench.database), bench.ledger("a")
    studies.extend(bench.study, lambda budget: {"stop": "auto"})
    studies.extend(bench.study, lambda budget: {"stop": "never"})
    assert not ledger.end_early("little is left", after=2)
    assert read_exhausted(bench.database, bench.study) is None


def test_study_that_was_resumed_ends_early_only_after_more_trials(bench: Bench) -> None:
    Studies(bench.database).extend(bench.study, lambda budget: {"stop": "auto"})
    ledger = bench.ledger("a")
    assert ledger.end_early("little is left", after=2)
    ledger.end_early("little is left", after=2)
    assert is_done(bench.database, bench.study)
    assert ledger.start_one([], bench.proposer.propose()) is None
    assert set_state(bench.database, bench.study, StudyState.RUNNING) is StudyState.STOPPED
    assert not ledger.end_early("little is left", after=2)
    for _ in range(2):
        assert not is_done(bench.database, bench.study)
        ledger.finish_one(bench.start(ledger), TrialState.COMPLETE, 0.5, {})
    assert ledger.end_early("little is left", after=2)
    assert read_exhausted(bench.database, bench.study) == "little is left"
    kinds = [event.kind for event in read_events(bench.database, bench.study.uuid)]
    assert kinds.count("exhausted") == 2
