from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.store.leases.bench import (
    Bench,
    Cohorts,
    Interrupted,
    complete,
    evaluated,
    everybody_died,
    ledger_of,
    nobody_died,
    numbers,
    reasons,
)
from tuner.domain.states import StudyState
from tuner.domain.trials import Outcome
from tuner.errors import UnavailableError
from tuner.store import open_database, read_records
from tuner.store.control import set_state
from tuner.store.events import read_events
from tuner.store.leases.budget import is_done
from tuner.store.leases.reruns import rerun
from tuner.store.leases.takeover import MAX_ATTEMPTS
from tuner.store.records import read_record


def test_trial_whose_worker_lives_is_left_alone(bench: Bench) -> None:
    bench.start(bench.ledger("a"))
    assert bench.ledger("b").take_one(nobody_died) is None


def test_trial_of_a_dead_worker_is_taken_at_once(bench: Bench) -> None:
    lease = bench.start(bench.ledger("a"))
    taken = bench.ledger("b").take_one(lambda worker: worker == "a")
    assert taken is not None
    assert (taken.number, taken.attempt) == (lease.number, 2)


def test_worker_that_died_with_trials_is_recorded_as_lost_once(bench: Bench) -> None:
    holder, other = bench.ledger("a"), bench.ledger("b")
    numbers = {bench.start(holder).number, bench.start(holder).number}
    taken = {lease.number for lease in other.take_over(everybody_died, at_most=1)}
    taken |= {lease.number for lease in other.take_over(lambda worker: worker == "a", at_most=1)}
    assert taken == numbers
    events = read_events(bench.database, bench.study.uuid)
    [lost] = [event for event in events if event.kind == "lost"]
    assert (lost.worker_id, lost.number, lost.host) == ("a", None, "host")
    assert lost.detail.startswith("died or fell silent with trials in training: ")
    assert [event.worker_id for event in events if event.kind == "joined"] == ["a", "b"]


def test_worker_that_left_is_not_lost(bench: Bench) -> None:
    holder = bench.ledger("a")
    bench.start(holder)
    holder.leave("interrupted")
    assert bench.ledger("b").take_one(everybody_died) is not None
    kinds = [event.kind for event in read_events(bench.database, bench.study.uuid)]
    assert kinds == ["joined", "started", "left", "joined", "taken_over"]


def test_expired_lease_is_left_alone_while_nobody_could_have_renewed_it(bench: Bench) -> None:
    holder, other = bench.ledger("holder", lease_s=-1), bench.ledger("other")
    lease = bench.start(holder)
    assert other.take_one(nobody_died, expired=False) is None
    holder.report_one(lease, 5, 5, 0.5)
    taken = other.take_one(nobody_died)
    assert taken is not None
    assert taken.number == lease.number


def test_of_two_who_take_over_one_trial_one_gets_it(bench: Bench) -> None:
    bench.start(bench.ledger("a", lease_s=-1))

    def take(index: int) -> bool:
        own = open_database(bench.database.url)
        taken = ledger_of(own, bench.study, f"t{index}").take_one(nobody_died)
        own.close()
        return taken is not None

    with ThreadPoolExecutor(4) as pool:
        assert sum(pool.map(take, range(4))) == 1


def test_released_trial_is_taken_without_counting_an_attempt(bench: Bench) -> None:
    first = bench.ledger("a")
    first.release([bench.start(first)])
    taken = bench.ledger("b").take_one(nobody_died)
    assert taken is not None
    assert taken.attempt == 1


def test_trial_that_kills_every_worker_fails_in_the_end(bench: Bench) -> None:
    bench.start(bench.ledger("w0"))
    takers = [bench.ledger(f"w{index}") for index in range(1, MAX_ATTEMPTS + 1)]
    taken = [taker.take_one(everybody_died) for taker in takers]
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
        lease = ledger.take_one(everybody_died)
        assert lease is not None
        ledger.report_one(lease, step=index, progress=index, value=1.0)


def test_start_that_was_not_heard_of_is_taken_by_the_same_worker(bench: Bench) -> None:
    ledger = bench.ledger("a")
    held = bench.start(ledger)
    ledger._database = Interrupted(bench.database.url, bench.database.storage)
    with pytest.raises(UnavailableError):
        bench.start(ledger)
    ledger._database = bench.database
    assert bench.ledger("b").take_one(nobody_died) is None
    taken = ledger.take_one(nobody_died)
    assert taken is not None
    assert (taken.number, taken.attempt) == (held.number + 1, 1)
    assert ledger.take_one(nobody_died) is None


def test_released_group_is_continued_together(cohorts: Cohorts) -> None:
    first, second = cohorts.ledger("a"), cohorts.ledger("b")
    leases = cohorts.start_some(first, 3)
    assert first.saved(leases, 5) == {}
    first.release(leases)
    taken = second.take_over(nobody_died, at_most=8)
    assert [(lease.number, lease.attempt) for lease in taken] == [(0, 1), (1, 1), (2, 1)]
    assert [lease.checkpoint for lease in taken] == [lease.token for lease in leases]
    assert not {lease.token for lease in taken} & {lease.token for lease in leases}
    # What they go on from is not known before somebody has read it.
    assert [cohorts.kinds(number) for number in range(3)] == [["started", "released"]] * 3
    assert second.tell(taken[:2], "continued", "at step 5") == {}
    assert second.tell(taken[2:], "started_over", "its file is gone") == {}
    assert reasons(first.tell(leases, "continued", "at step 5")).keys() == {0, 1, 2}
    told = [cohorts.kinds(number)[2:] for number in range(3)]
    assert told == [["continued"], ["continued"], ["started_over"]]
    assert list(first.renew(leases, 6)) == [0, 1, 2]
    assert second.finish(complete(taken)) == {}


def test_only_trials_at_the_step_of_the_first_are_taken(cohorts: Cohorts) -> None:
    first, second = cohorts.ledger("a"), cohorts.ledger("b")
    leases = cohorts.start_some(first, 6)
    assert first.renew(leases[1::2], 10) == {}
    first.release(leases)
    assert numbers(second.take_over(nobody_died, at_most=2)) == [0, 2]
    assert numbers(second.take_over(nobody_died, at_most=8)) == [1, 3, 5]
    assert numbers(second.take_over(nobody_died, at_most=8)) == [4]
    assert second.take_over(nobody_died, at_most=8) == []


def test_trials_whose_worker_lives_stay_with_it(cohorts: Cohorts) -> None:
    alive, dead, heir = cohorts.ledger("alive"), cohorts.ledger("dead"), cohorts.ledger("heir")
    cohorts.start_some(alive, 2)
    left = cohorts.start_some(dead, 2)
    taken = heir.take_over(lambda worker: worker == "dead", at_most=8)
    assert [(lease.number, lease.attempt) for lease in taken] == [
        (lease.number, 2) for lease in left
    ]
    assert cohorts.kinds(left[0].number) == ["started", "taken_over"]


def test_expired_group_is_left_alone_while_nobody_could_have_renewed_it(cohorts: Cohorts) -> None:
    cohorts.start_some(cohorts.ledger("a", lease_s=-1), 2)
    heir = cohorts.ledger("b")
    assert heir.take_over(nobody_died, expired=False, at_most=8) == []
    assert len(heir.take_over(nobody_died, at_most=8)) == 2


def test_of_many_who_take_over_one_group_each_trial_goes_to_one(cohorts: Cohorts) -> None:
    cohorts.start_some(cohorts.ledger("a", lease_s=-1), 8)

    def take(index: int) -> list[int]:
        own = open_database(cohorts.database.url)
        ledger = ledger_of(own, cohorts.study, f"t{index}")
        taken = numbers(ledger.take_over(nobody_died, at_most=3))
        own.close()
        return taken

    with ThreadPoolExecutor(4) as pool:
        taken = [number for own in pool.map(take, range(4)) for number in own]
    assert len(taken) == len(set(taken))
    rest = cohorts.ledger("b").take_over(nobody_died, at_most=8)
    assert sorted([*taken, *numbers(rest)]) == list(range(8))


def test_trials_that_kill_every_worker_fail_and_the_others_go_on(cohorts: Cohorts) -> None:
    cohorts.start_some(cohorts.ledger("w0"), 2)
    for attempt in range(1, MAX_ATTEMPTS):
        taken = cohorts.ledger(f"w{attempt}").take_over(everybody_died, at_most=8)
        assert len(taken) == 2
    fresh = cohorts.start_some(cohorts.ledger("w9"), 1)
    heir = cohorts.ledger("heir")
    assert numbers(heir.take_over(everybody_died, at_most=2)) == numbers(fresh)
    for number in (0, 1):
        failed = cohorts.read(number)
        assert failed.outcome is Outcome.FAILED
        first, *history = failed.attributes["error"].splitlines()
        assert first == "WorkerDied: 3 workers died or hung on it; none got past step 0."
        assert len(history) == MAX_ATTEMPTS + 1  # and a remedy
        assert cohorts.kinds(number)[-1] == "failed_attempts"


def test_paused_study_gives_no_group_out(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    ledger.release(cohorts.start_some(ledger, 3))
    set_state(cohorts.database, cohorts.study, StudyState.PAUSED)
    assert ledger.take_over(nobody_died, at_most=8) == []
    set_state(cohorts.database, cohorts.study, StudyState.RUNNING)
    assert len(ledger.take_over(nobody_died, at_most=8)) == 3


def test_group_left_behind_in_a_stopped_study_ends_with_what_it_has(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("dead")
    leases = cohorts.start_some(ledger, 3)
    ledger.report(5, evaluated(leases, 5, value=2.0))
    ledger.report(10, evaluated(leases[:2], 10, value=1.0))
    set_state(cohorts.database, cohorts.study, StudyState.STOPPED)
    assert cohorts.ledger("heir").take_over(everybody_died, at_most=8) == []
    records = read_records(cohorts.database, cohorts.study)
    assert [(record.outcome, record.value) for record in records] == [
        (Outcome.PRUNED, 1.0),
        (Outcome.PRUNED, 2.0),
        (Outcome.PRUNED, 4.0),
    ]
    assert [record.attributes["steps"] for record in records] == [10, 10, 5]
    assert is_done(cohorts.database, cohorts.study)


def test_rerun_is_taken_like_what_was_released_at_the_start(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    leases = cohorts.start_some(ledger, 3)
    ledger.finish(complete(leases[:1]))
    ledger.release(leases[1:])
    rerun(cohorts.database, cohorts.study, 0)
    taken = ledger.take_over(nobody_died, at_most=8)
    assert [(lease.number, lease.attempt) for lease in taken] == [(1, 1), (2, 1), (3, 1)]
    assert cohorts.kinds(3) == ["rerun", "started"]


def test_group_that_was_not_heard_of_is_taken_by_the_same_worker(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    held = cohorts.start_some(ledger, 2)
    ledger._database = Interrupted(cohorts.database.url, cohorts.database.storage)
    with pytest.raises(UnavailableError):
        cohorts.start_some(ledger, 3)
    with pytest.raises(UnavailableError):
        ledger.report(5, evaluated(held, 5))
    ledger._database = cohorts.database
    assert cohorts.ledger("b").take_over(nobody_died, at_most=8) == []
    taken = ledger.take_over(nobody_died, at_most=8)
    assert [(lease.number, lease.attempt) for lease in taken] == [(2, 1), (3, 1), (4, 1)]
    assert ledger.report(5, evaluated([*held, *taken], 5)) == {}
    assert ledger.take_over(nobody_died, at_most=8) == []
