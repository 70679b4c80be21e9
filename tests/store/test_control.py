from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from tests.conftest import MakeSpec
from tests.store.leases.bench import Bench as Workers
from tests.store.leases.bench import nobody_died
from tests.store.single_trials import SingleTrials
from tuner.domain.states import Activity, StudyState
from tuner.domain.trials import Outcome, TrialRecord
from tuner.errors import LeaseLostError, NotFoundError, SpecError
from tuner.service.summaries import read_summary
from tuner.store import Database, Lease, Studies, StudyHandle
from tuner.store.control import Repair, ask_to_leave, read_state, repair, set_state
from tuner.store.events import read_events, record
from tuner.store.leases.budget import is_done
from tuner.store.leases.reruns import rerun
from tuner.store.leases.rows import read_unfinished
from tuner.store.leases.workers import WorkerIdentity, read_workers
from tuner.store.records import read_record
from tuner.store.tables import workers


class Bench(Workers):
    """Some workers on one study, and the records of its trials."""

    pid, software = 7, "Python 3"

    def propose(self, ledger: SingleTrials) -> Lease | None:
        return ledger.start_one(self.proposer.openings(), self.proposer.propose())

    def read(self, number: int) -> TrialRecord:
        found = read_record(self.database, self.study, number)
        assert found is not None
        return found

    def kinds(self, number: int | None = None) -> list[str]:
        return [event.kind for event in read_events(self.database, self.study.uuid, number)]


@pytest.fixture
def bench(database: Database, study: StudyHandle) -> Bench:
    return Bench(database, study)


def test_paused_study_starts_nothing_and_gives_nothing_out(bench: Bench) -> None:
    ledger = bench.ledger("a")
    released = bench.start(ledger)
    assert set_state(bench.database, bench.study, StudyState.PAUSED) is StudyState.RUNNING
    assert ledger.signals().state is StudyState.PAUSED
    ledger.report_one(released, 5, 5, 0.5)
    ledger.release([released])
    assert bench.propose(ledger) is None
    assert ledger.take_one(nobody_died) is None
    assert not is_done(bench.database, bench.study)
    assert set_state(bench.database, bench.study, StudyState.RUNNING) is StudyState.PAUSED
    assert ledger.signals().state is StudyState.RUNNING
    taken = ledger.take_one(nobody_died)
    assert taken is not None
    assert (taken.number, taken.attempt, taken.step) == (released.number, 1, 5)
    ledger.tell_one(taken, "continued", "at step 5")
    assert bench.kinds() == ["joined", "started", "paused", "released", "resumed", "continued"]
    assert read_events(bench.database, bench.study.uuid)[-1].detail == "at step 5"


def test_stopped_study_ends_with_what_it_has(bench: Bench) -> None:
    ledger = bench.ledger("a")
    held, free = bench.start(ledger), bench.start(ledger)
    ledger.report_one(free, 5, 5, 0.5)
    ledger.report_one(free, 10, 10, 0.25)
    ledger.release([free])
    set_state(bench.database, bench.study, StudyState.STOPPED)
    ended = bench.read(free.number)
    assert (ended.outcome, ended.value) == (Outcome.PRUNED, 0.25)
    assert ended.attributes["stopped_by"] == "stop"
    assert not is_done(bench.database, bench.study)
    assert ledger.signals().state is StudyState.STOPPED
    ledger.finish_one(held, TrialState.PRUNED, 0.5, {"stopped_by": "stop"})
    assert bench.propose(ledger) is None
    assert is_done(bench.database, bench.study)
    set_state(bench.database, bench.study, StudyState.RUNNING)
    assert not is_done(bench.database, bench.study)
    assert bench.start(ledger).number == 2


def test_trial_left_behind_in_a_stopped_study_ends_where_it_is_found(bench: Bench) -> None:
    lease = bench.start(bench.ledger("a"))
    set_state(bench.database, bench.study, StudyState.STOPPED)
    assert bench.ledger("b").take_one(lambda worker: worker == "a") is None
    assert bench.read(lease.number).outcome is Outcome.PRUNED
    assert is_done(bench.database, bench.study)


def test_state_is_told_again_without_effect(bench: Bench) -> None:
    assert read_state(bench.database, bench.study) is StudyState.RUNNING
    for _ in range(2):
        set_state(bench.database, bench.study, StudyState.PAUSED)
    assert bench.kinds() == ["paused"]
    [overview] = Studies(bench.database).list()
    assert overview.state is StudyState.PAUSED


def test_workers_are_asked_to_leave_once(bench: Bench) -> None:
    ledgers = {name: bench.ledger(name) for name in "abc"}
    assert ask_to_leave(bench.database, bench.study, ["a", "of another study"]) == 1
    assert [ledger.signals().leaving for ledger in ledgers.values()] == [True, False, False]
    assert ask_to_leave(bench.database, bench.study) == 2
    assert ask_to_leave(bench.database, bench.study) == 0
    assert all(ledger.signals().leaving for ledger in ledgers.values())


def test_workers_are_listed_with_what_they_hold(bench: Bench) -> None:
    first, second = bench.ledger("a"), bench.ledger("b")
    bench.start(second)
    bench.start(second)
    first.leave("nothing left to do")
    rows = read_workers(bench.database, bench.study)
    assert [(row.id, row.trials, row.left, row.leaving) for row in rows] == [
        ("a", (), True, False),
        ("b", (0, 1), False, False),
    ]
    assert (rows[0].host, rows[0].pid, rows[0].software) == ("host", 7, "Python 3")
    assert rows[0].started_at <= rows[0].last_seen
    assert 0 <= rows[0].seen_ago_s < 60


def test_a_workers_state_tells_what_it_is_at(bench: Bench) -> None:
    for name in "abcdef":
        bench.ledger(name)
    bench.start(bench.ledger("a"))
    bench.ledger("b").leave("nothing left to do")
    ask_to_leave(bench.database, bench.study, ["c"])
    with bench.database.write() as connection:
        long_ago = workers.c.last_seen - bench.study.spec.train.stall_s - 1
        connection.execute(
            sa.update(workers).where(workers.c.worker_id == "d").values(last_seen=long_ago)
        )

    def states() -> list[str]:
        rows = read_workers(bench.database, bench.study, is_dead=lambda worker: worker in "be")
        return [row.state.value for row in rows]

    assert states() == ["working", "left", "leaving", "silent", "silent", "waiting"]
    set_state(bench.database, bench.study, StudyState.PAUSED)
    assert states() == ["working", "left", "leaving", "silent", "silent", "paused"]


def test_rerun_is_the_same_configuration_taken_by_the_next_worker(bench: Bench) -> None:
    ledger = bench.ledger("a")
    for _ in range(3):
        ledger.finish_one(bench.start(ledger), TrialState.FAIL, None, {"error": "x", "steps": 3})
    assert rerun(bench.database, bench.study, 2) == 3
    taken = ledger.take_one(nobody_died)
    assert taken is not None
    assert (taken.number, taken.attempt) == (3, 1)
    first, again = bench.read(2), bench.read(3)
    assert again.proposal == first.proposal
    assert again.attributes["rerun_of"] == 2
    assert not {"error", "steps"} & again.attributes.keys()
    assert bench.kinds(3) == ["rerun", "started"]
    assert read_events(bench.database, bench.study.uuid, 3)[-1].detail == ""


def test_rerun_of_an_opening_costs_no_other_its_turn(portfolio: object, bench: Bench) -> None:
    ledger = bench.ledger("a")
    ledger.finish_one(bench.start(ledger), TrialState.COMPLETE, 1.0, {})
    assert rerun(bench.database, bench.study, 0) == 1
    bench.start(ledger)
    assert [bench.read(number).optimizer for number in range(3)] == ["sgd", "sgd", "adam"]
    assert [bench.read(number).proposal.preset for number in range(3)] == ["portfolio"] * 3


def test_rerun_stays_within_the_budget(bench: Bench) -> None:
    ledger = bench.ledger("a")
    for _ in range(bench.study.spec.budget.trials):
        ledger.finish_one(bench.start(ledger), TrialState.COMPLETE, 1.0, {})
    with pytest.raises(SpecError, match=r"All 6 trials.*: tuner trial rerun small 0 --extend$"):
        rerun(bench.database, bench.study, 0)
    assert is_done(bench.database, bench.study)
    assert rerun(bench.database, bench.study, 0, extend=True) == 6
    assert Studies(bench.database).refresh(bench.study).spec.budget.trials == 7
    assert not is_done(bench.database, bench.study)


def test_rerun_within_the_budget_extends_nothing(bench: Bench) -> None:
    ledger = bench.ledger("a")
    ledger.finish_one(bench.start(ledger), TrialState.COMPLETE, 1.0, {})
    rerun(bench.database, bench.study, 0, extend=True)
    assert Studies(bench.database).refresh(bench.study).spec.budget.trials == 6


def test_trial_of_a_dead_worker_is_taken_over_at_another_attempt(bench: Bench) -> None:
    lease = bench.start(bench.ledger("a"))
    assert bench.ledger("b").take_one(lambda worker: worker == "a") is not None
    [_, taken] = read_events(bench.database, bench.study.uuid, lease.number)
    assert (taken.kind, taken.detail) == ("taken_over", "attempt 2, at step 0")


def test_only_trials_that_somebody_trains_count_as_running(bench: Bench) -> None:
    ledger = bench.ledger("a")
    held, released, dead = bench.start(ledger), bench.start(ledger), bench.start(bench.ledger("b"))
    expired = bench.start(bench.ledger("c", lease_s=-1))
    ledger.release([released])
    assert read_unfinished(bench.database, bench.study, nobody_died).held == {
        held.number,
        dead.number,
    }
    assert read_unfinished(bench.database, bench.study, lambda w: w == "b").held == {held.number}
    [overview] = Studies(bench.database).list(lambda worker: worker == "b")
    assert (overview.started, overview.running, overview.waiting) == (4, 1, 3)
    assert bench.read(expired.number).outcome is Outcome.RUNNING  # for the search it is the same


def test_a_study_is_running_idle_paused_stopped_or_done(bench: Bench) -> None:
    def activity() -> Activity:
        listed = Studies(bench.database).list()[0].activity
        assert read_summary(bench.database, bench.study).activity is listed
        return listed

    assert activity() is Activity.IDLE
    ledger = bench.ledger("a")
    lease = bench.start(ledger)
    assert activity() is Activity.RUNNING
    set_state(bench.database, bench.study, StudyState.PAUSED)
    assert activity() is Activity.PAUSED
    ledger.finish_one(lease, TrialState.COMPLETE, 1.0, {})
    set_state(bench.database, bench.study, StudyState.STOPPED)
    assert activity() is Activity.STOPPED
    set_state(bench.database, bench.study, StudyState.RUNNING)
    for _ in range(5):
        assert activity() is Activity.IDLE
        ledger.finish_one(bench.start(ledger), TrialState.COMPLETE, 1.0, {})
    assert activity() is Activity.DONE


def test_of_many_reruns_at_once_the_budget_takes_what_fits(bench: Bench) -> None:
    ledger = bench.ledger("a")
    for _ in range(4):
        ledger.finish_one(bench.start(ledger), TrialState.COMPLETE, 1.0, {})

    def try_rerun(number: int) -> int | None:
        try:
            return rerun(bench.database, bench.study, number)
        except SpecError:
            return None

    with ThreadPoolExecutor(4) as pool:
        started = list(pool.map(try_rerun, range(4)))
    assert sorted(number for number in started if number is not None) == [4, 5]


def test_rerun_of_what_cannot_run_again_is_refused(database: Database, make_spec: MakeSpec) -> None:
    study = Studies(database).create(make_spec(budget={"steps": 5, "wall_time": 100.0}))
    bench = Bench(database, study)
    ledger = bench.ledger("a")
    with pytest.raises(NotFoundError, match="no trial 0"):
        rerun(database, study, 0)
    lease = bench.start(ledger)
    with pytest.raises(SpecError, match="not over yet"):
        rerun(database, study, 0)
    ledger.finish_one(lease, TrialState.COMPLETE, 1.0, {})
    set_state(database, study, StudyState.STOPPED)
    with pytest.raises(SpecError, match="resume it first"):
        rerun(database, study, 0)
    set_state(database, study, StudyState.RUNNING)
    late = SingleTrials(database, study, WorkerIdentity("b", "host", 1, "cpu", "0"))
    late.register(101.0, lambda ordinal: ordinal)
    with pytest.raises(SpecError, match=r"wall time.*is used up"):
        rerun(database, study, 0)


def test_repair_frees_what_dead_and_silent_workers_held(bench: Bench) -> None:
    alive, dead = bench.ledger("alive"), bench.ledger("dead")
    silent = bench.ledger("silent", lease_s=-1)
    kept, of_dead, of_silent = bench.start(alive), bench.start(dead), bench.start(silent)
    dead.report_one(of_dead, 5, 5, 0.5)
    repairs = repair(bench.database, bench.study, lambda worker: worker == "dead")
    assert repairs == [
        Repair(of_dead.number, "freed", "its worker has died, at step 5"),
        Repair(of_silent.number, "freed", "its worker was silent for too long, at step 0"),
    ]
    with pytest.raises(LeaseLostError):
        dead.report_one(of_dead, 6, 6, 0.5)
    alive.report_one(kept, 5, 5, 0.5)
    assert repair(bench.database, bench.study, nobody_died) == []
    taken = [alive.take_one(nobody_died), alive.take_one(nobody_died)]
    assert [(lease.number, lease.attempt) for lease in taken if lease] == [(1, 2), (2, 2)]


def test_repair_fails_what_was_tried_three_times_and_tells_its_history(bench: Bench) -> None:
    names = ["a", "b", "c"]
    bench.start(bench.ledger(names[0]))
    for name in names[1:]:
        ledger = bench.ledger(name)
        lease = ledger.take_one(lambda worker: True)
        assert lease is not None
    [repaired] = repair(bench.database, bench.study, lambda worker: True)
    assert (repaired.number, repaired.action) == (0, "failed")
    failed = bench.read(0)
    assert failed.outcome is Outcome.FAILED
    first, *history, remedy = failed.attributes["error"].splitlines()
    assert first == "WorkerDied: 3 workers died or hung on it; none got past step 0."
    assert ["host, process 7, cpu" in line for line in history] == [True] * 3
    assert "started on" in history[0]
    assert history[2].endswith("attempt 3, at step 0")
    assert "call run.alive() there now and then, or raise train.stall_s" in remedy
    assert bench.kinds(0)[-2:] == ["failed_attempts", "repaired"]


def test_repair_ends_what_runs_without_a_lease_and_forgets_leases_of_what_is_over(
    bench: Bench,
) -> None:
    ledger = bench.ledger("a")
    over = bench.start(ledger)
    optuna_study = optuna.load_study(study_name="small", storage=bench.database.storage)
    optuna_study.tell(over.number, state=TrialState.FAIL)
    foreign = optuna_study.ask()
    repairs = repair(bench.database, bench.study, nobody_died)
    assert [(done.number, done.action) for done in repairs] == [
        (over.number, "forgotten"),
        (foreign.number, "failed"),
    ]
    trials = optuna_study.get_trials()
    assert [trial.state for trial in trials] == [TrialState.FAIL] * 2
    assert "nobody had a lease" in trials[1].user_attrs["error"]
    assert repair(bench.database, bench.study, nobody_died) == []


def test_repair_of_a_stopped_study_ends_what_is_left(bench: Bench) -> None:
    lease = bench.start(bench.ledger("a"))
    set_state(bench.database, bench.study, StudyState.STOPPED)
    [done] = repair(bench.database, bench.study, lambda worker: True)
    assert (done.number, done.action) == (lease.number, "ended")
    assert is_done(bench.database, bench.study)


def test_events_go_with_their_study(bench: Bench, database: Database) -> None:
    bench.start(bench.ledger("a"))
    Studies(database).delete(bench.study)
    assert read_events(database, bench.study.uuid) == []
    for steer in (
        lambda: set_state(database, bench.study, StudyState.PAUSED),
        lambda: repair(database, bench.study, nobody_died),
        lambda: read_state(database, bench.study),
    ):
        with pytest.raises(NotFoundError, match="deleted"):
            steer()


def test_event_of_an_unknown_kind_is_refused(bench: Bench, database: Database) -> None:
    with (
        pytest.raises(ValueError, match="no kind of event"),
        database.write() as connection,
    ):
        record(connection, bench.study.uuid, "exploded")


def test_event_tells_when_where_and_what(bench: Bench, database: Database) -> None:
    ledger = bench.ledger("a")
    ledger.release([bench.start(ledger)])
    with database.write() as connection:
        connection.execute(sa.text("UPDATE tuner_events SET at = 0"))
    started, _ = read_events(database, bench.study.uuid, 0)
    assert str(started) == "1970-01-01 00:00:00 UTC started on host, process 7, cpu"


def test_a_study_with_nothing_left_to_try_is_done_until_it_is_resumed(bench: Bench) -> None:
    ledger = bench.ledger("a")
    lease = bench.start(ledger)
    ledger.exhaust("all tried")
    ledger.exhaust("all tried")
    assert bench.kinds().count("exhausted") == 1
    assert bench.propose(ledger) is None
    assert not is_done(bench.database, bench.study)  # one trains yet
    ledger.finish_one(lease, TrialState.COMPLETE, 1.0, {})
    assert is_done(bench.database, bench.study)
    [overview] = Studies(bench.database).list()
    assert overview.activity is Activity.DONE

    assert set_state(bench.database, bench.study, StudyState.RUNNING) is StudyState.STOPPED
    assert not is_done(bench.database, bench.study)
    assert bench.propose(ledger) is not None


def test_a_trial_left_behind_is_finished_where_nothing_is_left_to_try(bench: Bench) -> None:
    ledger = bench.ledger("a")
    ledger.release([bench.start(ledger)])
    ledger.exhaust("all tried")
    assert not is_done(bench.database, bench.study)
    taken = ledger.take_one(nobody_died)
    assert taken is not None
