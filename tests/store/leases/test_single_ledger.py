from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import FloatDistribution, IntDistribution
from optuna.trial import TrialState

from tests.conftest import MakeSpec
from tuner.domain.trials import Outcome
from tuner.errors import LeaseLostError, NotFoundError, UnavailableError
from tuner.search import Proposer
from tuner.store import Database, Lease, Ledger, Studies, StudyHandle, open_database, read_records
from tuner.store.curves import read_curves
from tuner.store.leases.single_ledger import MAX_ATTEMPTS, is_done, read_elapsed_s
from tuner.store.leases.workers import WorkerIdentity
from tuner.store.records import read_record


def nobody_died(worker_id: str) -> bool:
    return False


def everybody_died(worker_id: str) -> bool:
    return True


def ledger_of(database: Database, study: StudyHandle, name: str, lease_s: float = 60) -> Ledger:
    ledger = Ledger(database, study, WorkerIdentity(name, "host", 1, "cpu", "0"), lease_s)
    ledger.register(0.0, lambda ordinal: ordinal)
    return ledger


class Bench:
    """Some workers on one study."""

    def __init__(self, database: Database, study: StudyHandle) -> None:
        self.database = database
        self.study = study
        self.proposer = Proposer(study.spec, seed=0)

    def ledger(self, name: str, lease_s: float = 60) -> Ledger:
        return ledger_of(self.database, self.study, name, lease_s)

    def start(self, ledger: Ledger) -> Lease:
        lease = ledger.start(self.proposer.defaults(), self.proposer.propose())
        assert lease is not None
        return lease


@pytest.fixture
def bench(database: Database, study: StudyHandle) -> Bench:
    return Bench(database, study)


def test_defaults_of_every_optimizer_start_first(bench: Bench) -> None:
    ledger = bench.ledger("a")
    for _ in range(3):
        bench.start(ledger)
    records = read_records(bench.database, bench.study)
    assert [r.proposal.preset for r in records] == ["default", "default", None]
    assert [r.optimizer for r in records[:2]] == ["sgd", "adam"]


def test_budget_is_exact_however_many_workers_start_trials_at_once(
    database: Database, make_spec: MakeSpec
) -> None:
    budget = {"trials": 25, "steps": 20}
    study = Studies(database).create(make_spec(budget=budget))
    proposers = [Proposer(study.spec, seed=index) for index in range(6)]

    def start_all(index: int) -> list[int]:
        own = open_database(database.url)
        ledger = ledger_of(own, study, f"w{index}")
        proposer = proposers[index]
        numbers = []
        while (lease := ledger.start(proposer.defaults(), proposer.propose())) is not None:
            numbers.append(lease.number)
            ledger.finish(lease, TrialState.COMPLETE, 1.0, {})
        own.close()
        return numbers

    with ThreadPoolExecutor(6) as pool:
        numbers = [number for own in pool.map(start_all, range(6)) for number in own]
    assert sorted(numbers) == list(range(25))
    records = read_records(database, study)
    assert [record.number for record in records] == list(range(25))
    assert sum(record.is_default for record in records) == 2


def test_reports_and_the_end_of_a_trial_are_read_back(bench: Bench) -> None:
    ledger = bench.ledger("a")
    lease = bench.start(ledger)
    ledger.report(lease, step=5, progress=5, value=0.5)
    ledger.report(lease, step=10, progress=10, value=0.25)
    ledger.finish(lease, TrialState.COMPLETE, 0.25, {"steps": 10})
    record = read_record(bench.database, bench.study, lease.number)
    assert record is not None
    assert record.outcome is Outcome.COMPLETE
    assert record.value == 0.25
    assert record.evaluations == {5: 0.5, 10: 0.25}
    assert record.attributes["steps"] == 10


def test_trial_is_finished_once(bench: Bench) -> None:
    ledger = bench.ledger("a")
    lease = bench.start(ledger)
    ledger.finish(lease, TrialState.COMPLETE, 1.0, {})
    with pytest.raises(LeaseLostError):
        ledger.finish(lease, TrialState.FAIL, None, {"error": "late"})
    record = read_record(bench.database, bench.study, lease.number)
    assert record is not None
    assert record.outcome is Outcome.COMPLETE
    assert "error" not in record.attributes


Write = Callable[[Ledger, Lease], object]
WIDTH = IntDistribution(1, 8)


@pytest.mark.parametrize(
    "write",
    [
        lambda ledger, lease: ledger.renew(lease, 5),
        lambda ledger, lease: ledger.report(lease, 5, 5, 0.1),
        lambda ledger, lease: ledger.report(lease, 5, 5, 0.1, [(5, "loss", 0.1)]),
        lambda ledger, lease: ledger.log(lease, 5, [(5, "loss", 0.1)]),
        lambda ledger, lease: ledger.add_parameters(lease, {"width": 3}, {"width": WIDTH}),
        lambda ledger, lease: ledger.saved(lease, 5),
        lambda ledger, lease: ledger.finish(lease, TrialState.COMPLETE, 0.1, {"late": True}),
    ],
    ids=["renew", "report", "report and log", "log", "add parameters", "saved", "finish"],
)
def test_worker_that_lost_its_lease_can_write_nothing(bench: Bench, write: Write) -> None:
    hung, other = bench.ledger("hung", lease_s=-1), bench.ledger("other")
    stale = bench.start(hung)
    taken = other.take_over(nobody_died)
    assert taken is not None
    assert taken.number == stale.number
    with pytest.raises(LeaseLostError):
        write(hung, stale)
    other.report(taken, 3, 3, 0.9)
    record = read_record(bench.database, bench.study, stale.number)
    assert record is not None
    assert record.evaluations == {3: 0.9}
    assert "late" not in record.attributes
    assert "width" not in record.proposal.params
    assert read_curves(bench.database, bench.study, stale.number) == {}
    other.release(taken)
    again = other.take_over(nobody_died)
    assert again is not None
    assert (again.attempt, again.checkpoint) == (1, None)


def test_checkpoint_that_counts_is_that_of_the_last_holder_who_saved(bench: Bench) -> None:
    first, second = bench.ledger("a"), bench.ledger("b")
    lease = bench.start(first)
    assert lease.checkpoint is None
    saved = first.saved(lease, 5)
    assert saved.checkpoint == saved.token == lease.token
    first.release(saved)
    taken = second.take_over(nobody_died)
    assert taken is not None
    assert taken.checkpoint == lease.token
    assert second.saved(taken, 10).checkpoint == taken.token != lease.token


def test_many_workers_on_postgresql_share_one_budget(
    postgres_url: str, make_spec: MakeSpec
) -> None:
    database = open_database(postgres_url, create=True)
    study = Studies(database).create(make_spec(budget={"trials": 150, "steps": 20}))
    proposer = Proposer(study.spec, seed=0)
    defaults, proposal = proposer.defaults(), proposer.propose()
    connections = [open_database(postgres_url) for _ in range(10)]

    def work(index: int) -> list[int]:
        ledger = ledger_of(connections[index % 10], study, f"w{index}")
        numbers = []
        while (lease := ledger.start(defaults, proposal)) is not None:
            numbers.append(lease.number)
            ledger.report(lease, 5, 5, 0.5)
            if index % 2 or lease.number % 7:
                ledger.finish(lease, TrialState.COMPLETE, 0.5, {})
            else:
                ledger.release(lease)
        while (lease := ledger.take_over(nobody_died)) is not None:
            ledger.finish(lease, TrialState.COMPLETE, 0.5, {})
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


def test_report_costs_few_statements(bench: Bench) -> None:
    ledger = bench.ledger("a")
    lease = bench.start(ledger)
    statements: list[str] = []

    def count(*arguments: Any) -> None:
        statements.append(arguments[2])

    sa.event.listen(bench.database.engine, "before_cursor_execute", count)
    ledger.report(lease, 5, 5, 0.5, [(5, "loss", 0.5)])
    assert [s.split()[0] for s in statements if "BEGIN" not in s] == ["UPDATE", "INSERT", "INSERT"]
    statements.clear()
    ledger.orders()
    assert len([s for s in statements if "BEGIN" not in s]) == 1
    sa.event.remove(bench.database.engine, "before_cursor_execute", count)


def test_worker_that_asks_is_alive_at_that_moment(database: Database, make_spec: MakeSpec) -> None:
    study = Studies(database).create(make_spec(budget={"steps": 5, "wall_time": 100.0}))
    now = 1000.0
    identity = WorkerIdentity("a", "host", 1, "cpu", "0")
    ledger = Ledger(database, study, identity, clock=lambda: now)
    ledger.register(0.0, lambda ordinal: ordinal)
    now += 99
    ledger.touch()
    assert not ledger.orders().out_of_time
    now += 2
    assert read_elapsed_s(database, study)[0] < 100
    assert ledger.orders().out_of_time


def test_stale_worker_cannot_release_anothers_trial(bench: Bench) -> None:
    hung, other = bench.ledger("hung", lease_s=-1), bench.ledger("other")
    stale = bench.start(hung)
    taken = other.take_over(nobody_died)
    assert taken is not None
    hung.release(stale)
    other.renew(taken, 1)


def test_trial_whose_worker_lives_is_left_alone(bench: Bench) -> None:
    bench.start(bench.ledger("a"))
    assert bench.ledger("b").take_over(nobody_died) is None


def test_trial_of_a_dead_worker_is_taken_at_once(bench: Bench) -> None:
    lease = bench.start(bench.ledger("a"))
    taken = bench.ledger("b").take_over(lambda worker: worker == "a")
    assert taken is not None
    assert (taken.number, taken.attempt) == (lease.number, 2)


def test_expired_lease_is_left_alone_while_nobody_could_have_renewed_it(bench: Bench) -> None:
    holder, other = bench.ledger("holder", lease_s=-1), bench.ledger("other")
    lease = bench.start(holder)
    assert other.take_over(nobody_died, expired=False) is None
    holder.report(lease, 5, 5, 0.5)
    taken = other.take_over(nobody_died)
    assert taken is not None
    assert taken.number == lease.number


def test_of_two_who_take_over_one_trial_one_gets_it(bench: Bench) -> None:
    bench.start(bench.ledger("a", lease_s=-1))

    def take(index: int) -> bool:
        own = open_database(bench.database.url)
        taken = ledger_of(own, bench.study, f"t{index}").take_over(nobody_died)
        own.close()
        return taken is not None

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(take, range(4))) == 1


def test_released_trial_is_taken_without_counting_an_attempt(bench: Bench) -> None:
    first = bench.ledger("a")
    first.release(bench.start(first))
    taken = bench.ledger("b").take_over(nobody_died)
    assert taken is not None
    assert taken.attempt == 1


def test_trial_that_kills_every_worker_fails_in_the_end(bench: Bench) -> None:
    bench.start(bench.ledger("w0"))
    takers = [bench.ledger(f"w{index}") for index in range(1, MAX_ATTEMPTS + 1)]
    taken = [taker.take_over(everybody_died) for taker in takers]
    assert [lease is not None for lease in taken] == [True] * (MAX_ATTEMPTS - 1) + [False]
    record = read_record(bench.database, bench.study, 0)
    assert record is not None
    assert record.outcome is Outcome.FAILED
    assert "3 workers died" in record.attributes["error"]
    assert record.attributes["error"].count("on host, process 1, cpu") == MAX_ATTEMPTS


def test_progress_between_deaths_keeps_a_trial_alive(bench: Bench) -> None:
    bench.start(bench.ledger("w0"))
    for index in range(1, 3 * MAX_ATTEMPTS):
        ledger = bench.ledger(f"w{index}")
        lease = ledger.take_over(everybody_died)
        assert lease is not None
        ledger.report(lease, step=index, progress=index, value=1.0)


def test_failed_write_keeps_the_lease(bench: Bench) -> None:
    ledger = bench.ledger("a")
    lease = bench.start(ledger)
    with pytest.raises(TypeError):
        ledger.finish(lease, TrialState.COMPLETE, 1.0, {"not json": object()})
    record = read_record(bench.database, bench.study, lease.number)
    assert record is not None
    assert record.outcome is Outcome.RUNNING
    ledger.finish(lease, TrialState.COMPLETE, 1.0, {})


def test_study_is_done_when_nothing_is_left_to_start_or_held(bench: Bench) -> None:
    ledger = bench.ledger("a")
    leases = [bench.start(ledger) for _ in range(bench.study.spec.budget.trials)]
    assert not is_done(bench.database, bench.study)
    for lease in leases:
        ledger.finish(lease, TrialState.PRUNED, None, {})
    assert is_done(bench.database, bench.study)


def test_extended_budget_counts_at_once_for_a_running_worker(bench: Bench) -> None:
    ledger = bench.ledger("a")
    for _ in range(bench.study.spec.budget.trials):
        ledger.finish(bench.start(ledger), TrialState.PRUNED, None, {})
    assert ledger.start([], bench.proposer.propose()) is None
    Studies(bench.database).extend(bench.study, lambda budget: {"trials": 7})
    assert bench.start(ledger).number == 6


def test_used_up_wall_time_starts_nothing_more(database: Database, make_spec: MakeSpec) -> None:
    study = Studies(database).create(make_spec(budget={"steps": 5, "wall_time": 100.0}))
    bench = Bench(database, study)
    ledger = Ledger(database, study, WorkerIdentity("a", "host", 1, "cpu", "0"))
    ledger.register(99.0, lambda ordinal: ordinal)
    assert not ledger.orders().out_of_time
    bench.start(ledger)
    late = Ledger(database, study, WorkerIdentity("b", "host", 1, "cpu", "0"))
    late.register(101.0, lambda ordinal: ordinal)
    assert late.orders().out_of_time
    assert late.start([], bench.proposer.propose()) is None


def test_elapsed_time_counts_overlapping_workers_once(
    database: Database, study: StudyHandle
) -> None:
    for name in ("a", "b"):
        identity = WorkerIdentity(name, "host", 1, "cpu", "0")
        Ledger(database, study, identity).register(50.0, lambda ordinal: ordinal)
    wall_s, worker_s = read_elapsed_s(database, study)
    assert wall_s == pytest.approx(50, abs=2)
    assert worker_s == pytest.approx(100, abs=2)


def test_deleted_study_is_told_to_its_workers(bench: Bench) -> None:
    ledger = bench.ledger("a")
    lease = bench.start(ledger)
    Studies(bench.database).delete(bench.study)
    with pytest.raises(LeaseLostError):
        ledger.report(lease, 1, 1, 1.0)
    with pytest.raises(NotFoundError, match="deleted"):
        ledger.start([], bench.proposer.propose())


def test_workers_get_seeds_by_their_order(bench: Bench) -> None:
    seeds = []
    for name in ("a", "b", "c"):
        identity = WorkerIdentity(name, "host", 1, "cpu", "0")
        ledger = Ledger(bench.database, bench.study, identity)
        seeds.append(ledger.register(0.0, lambda ordinal: 100 + ordinal))
    assert seeds == [100, 101, 102]


def test_workers_that_enter_at_once_get_different_seeds(bench: Bench) -> None:
    def enter(index: int) -> int:
        own = open_database(bench.database.url)
        identity = WorkerIdentity(f"w{index}", "host", 1, "cpu", "0")
        seed = Ledger(own, bench.study, identity).register(0.0, lambda ordinal: ordinal)
        own.close()
        return seed

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(enter, range(6))) == list(range(6))


def test_worker_that_enters_again_keeps_its_seed(bench: Bench) -> None:
    ledger = bench.ledger("a")
    bench.ledger("b")
    assert ledger.register(0.0, lambda ordinal: 100 + ordinal) == 0


def test_evaluation_reported_again_replaces_the_former(bench: Bench) -> None:
    ledger = bench.ledger("a")
    lease = bench.start(ledger)
    ledger.report(lease, 5, 5, 0.5, [(4, "loss", 2.0), (5, "loss", 1.0)])
    ledger.report(lease, 5, 5, 0.25, [(5, "loss", 0.75)])
    record = read_record(bench.database, bench.study, lease.number)
    assert record is not None
    assert record.evaluations == {5: 0.25}
    assert read_curves(bench.database, bench.study, lease.number) == {"loss": {4: 2.0, 5: 0.75}}


def test_parameters_added_in_training_stay_as_they_were_first(bench: Bench) -> None:
    ledger = bench.ledger("a")
    lease = bench.start(ledger)
    rate = FloatDistribution(0.0, 1.0)
    ledger.add_parameters(lease, {"width": 3}, {"width": WIDTH})
    ledger.add_parameters(lease, {"width": 5, "drop": 0.5}, {"width": WIDTH, "drop": rate})
    ledger.add_parameters(lease, {}, {})
    added = {"width": 3, "drop": 0.5}
    record = read_record(bench.database, bench.study, lease.number)
    assert record is not None
    assert added.items() <= record.proposal.params.items()
    [trial] = optuna.load_study(study_name="small", storage=bench.database.storage).trials
    assert added.items() <= trial.params.items()
    assert trial.distributions["width"] == WIDTH


class Interrupted(Database):
    """A database whose answer to the next write that happened is lost on the way."""

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        with super().write() as connection:
            yield connection
        raise UnavailableError("the connection was lost")


def test_start_that_was_not_heard_of_is_taken_by_the_same_worker(bench: Bench) -> None:
    ledger = bench.ledger("a")
    held = bench.start(ledger)
    ledger._database = Interrupted(bench.database.url, bench.database.storage)
    with pytest.raises(UnavailableError):
        bench.start(ledger)
    ledger._database = bench.database
    assert bench.ledger("b").take_over(nobody_died) is None
    taken = ledger.take_over(nobody_died)
    assert taken is not None
    assert (taken.number, taken.attempt) == (held.number + 1, 1)
    assert ledger.take_over(nobody_died) is None


def test_worker_of_a_deleted_study_leaves_the_next_one_alone(
    bench: Bench, make_spec: MakeSpec
) -> None:
    ledger = bench.ledger("a")
    Studies(bench.database).delete(bench.study)
    following = Studies(bench.database).create(make_spec())
    if bench.database.engine.dialect.name == "sqlite":
        assert following.study_id == bench.study.study_id
    with pytest.raises(NotFoundError, match="deleted"):
        ledger.start([], bench.proposer.propose())
    with pytest.raises(NotFoundError, match="deleted"):
        is_done(bench.database, bench.study)
    assert read_records(bench.database, following) == []


def test_extended_wall_time_counts_at_once_for_a_running_worker(
    database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(make_spec(budget={"steps": 5, "wall_time": 100.0}))
    ledger = Ledger(database, study, WorkerIdentity("a", "host", 1, "cpu", "0"))
    ledger.register(101.0, lambda ordinal: ordinal)
    assert ledger.orders().out_of_time
    Studies(database).extend(study, lambda budget: {"wall_time": 500.0})
    assert not ledger.orders().out_of_time
