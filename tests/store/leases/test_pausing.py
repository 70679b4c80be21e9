from __future__ import annotations

import contextlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from tests.conftest import MakeSpec
from tests.store.leases.bench import (
    Cohorts,
    Interrupted,
    complete,
    end_elsewhere,
    evaluated,
    everybody_died,
    ledger_of,
    nobody_died,
    numbers,
    reasons,
)
from tests.store.renaming import rename
from tests.store.single_trials import SingleTrials
from tuner.domain.states import StudyState
from tuner.domain.trials import Outcome
from tuner.errors import SpecError, UnavailableError
from tuner.store import Database, Lease, Studies, TrialEnding, open_database, read_records
from tuner.store.control import repair, set_state
from tuner.store.leases.budget import is_done
from tuner.store.leases.pausing import PausedTrial
from tuner.store.leases.reruns import rerun
from tuner.store.leases.rows import read_unfinished
from tuner.store.tables import leases as lease_table


def endings(those: list[Lease]) -> list[TrialEnding]:
    attributes = {"steps": 5, "train_s": 1.5}
    return [TrialEnding(lease, TrialState.PRUNED, 0.5, attributes) for lease in those]


def paused(cohorts: Cohorts, ledger: SingleTrials, count: int = 12) -> list[Lease]:
    """Starts some trials and pauses all of them; a study of twelve is then used up."""
    those = cohorts.start_some(ledger, count)
    ledger.report(5, evaluated(those, 5))
    assert not ledger.pause(endings(those), 5, 5)
    return those


@contextlib.contextmanager
def losing_answers(cohorts: Cohorts, ledger: SingleTrials) -> Iterator[None]:
    """Loses the answer to the write in the block on its way."""
    ledger._database = Interrupted(cohorts.database.url, cohorts.database.storage)
    with pytest.raises(UnavailableError):
        yield
    ledger._database = cohorts.database


def waiting(ledger: SingleTrials) -> list[PausedTrial]:
    return list(ledger.read_paused().trials.values())


def test_paused_trial_waits_without_a_holder_from_its_checkpoint_on(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    [lease] = paused(cohorts, ledger, 1)
    with cohorts.database.read() as connection:
        [row] = connection.execute(sa.select(lease_table)).all()
    assert (row.number, row.token, row.worker_id) == (lease.number, lease.token, None)
    assert (row.step, row.paused, row.checkpoint) == (5, 5, lease.token)
    record = cohorts.read(lease.number)
    assert (record.outcome, record.evaluations) == (Outcome.RUNNING, {5: 0.5})
    assert record.attributes["train_s"] == 1.5
    assert cohorts.kinds(lease.number) == ["started", "paused"]
    seen = PausedTrial(lease.number, lease.token, step=5, progress=5)
    assert (waiting(ledger), ledger.read_paused().alone) == ([seen], True)


def test_paused_trials_are_neither_held_nor_waiting_for_a_worker(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    rest = paused(cohorts, ledger, 2)
    held = cohorts.start_some(ledger, 1)
    found = read_unfinished(cohorts.database, cohorts.study, nobody_died)
    assert (sorted(found.held), sorted(found.paused)) == (numbers(held), numbers(rest))
    assert not ledger.read_paused().alone
    [overview] = Studies(cohorts.database).list(nobody_died)
    assert (overview.running, overview.waiting, overview.paused) == (1, 0, 2)


def test_nobody_takes_over_or_repairs_a_paused_trial(cohorts: Cohorts) -> None:
    paused(cohorts, cohorts.ledger("a", lease_s=-1), 3)
    other = cohorts.ledger("b")
    assert other.take_over(nobody_died, at_most=9) == []
    assert other.take_over(everybody_died, at_most=9) == []
    assert repair(cohorts.database, cohorts.study, everybody_died) == []
    assert len(waiting(other)) == 3


def test_only_the_holder_can_pause_a_trial(cohorts: Cohorts) -> None:
    first, second = cohorts.ledger("a"), cohorts.ledger("b")
    those = cohorts.start_some(first, 3)
    [taken] = second.take_over(everybody_died, at_most=1)
    lost = first.pause(endings(those), 5, 5)
    assert reasons(lost) == {
        taken.number: f"Trial {taken.number} belongs to another worker by now."
    }
    assert [trial.number for trial in waiting(second)] == numbers(those)[1:]
    assert "train_s" not in cohorts.read(taken.number).attributes
    assert "paused" not in cohorts.kinds(taken.number)
    second.finish(complete([taken]))
    assert cohorts.read(taken.number).outcome is Outcome.COMPLETE


def test_pausing_again_after_a_lost_answer_changes_nothing(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    those = cohorts.start_some(ledger, 1)
    with losing_answers(cohorts, ledger):
        ledger.pause(endings(those), 5, 5)
    before = waiting(ledger)
    assert not ledger.pause(endings(those), 5, 5)
    assert waiting(ledger) == before


def test_promoted_trial_goes_on_under_a_new_token_at_no_cost(cohorts: Cohorts) -> None:
    first, second = cohorts.ledger("a"), cohorts.ledger("b")
    those = paused(cohorts, first, 4)
    [three, one] = second.promote([3, 1, 99], at_most=3)
    assert numbers([three, one]) == [3, 1]
    assert three.token not in [lease.token for lease in those]
    assert (three.step, three.attempt, three.checkpoint) == (5, 1, those[3].token)
    assert cohorts.kinds(3) == ["started", "paused", "promoted"]
    assert [trial.number for trial in waiting(first)] == [0, 2]
    assert first.report(10, evaluated([those[3]], 10)).keys() == {3}
    assert not second.report(10, evaluated([three], 10))
    assert not second.finish(complete([three]))
    record = cohorts.read(3)
    assert (record.outcome, record.evaluations) == (Outcome.COMPLETE, {5: 3.5, 10: 3.5})


def test_promotion_takes_no_more_than_asked_for_and_none_that_is_not_paused(
    cohorts: Cohorts,
) -> None:
    ledger = cohorts.ledger("a")
    paused(cohorts, ledger, 3)
    held = cohorts.start_some(ledger, 1)
    assert numbers(ledger.promote([*numbers(held), 2, 0, 1], at_most=2)) == [2, 0]
    assert ledger.promote([2, 0], at_most=2) == []


def test_of_many_who_promote_one_trial_one_gets_it(cohorts: Cohorts) -> None:
    paused(cohorts, cohorts.ledger("a"), 2)

    def promote(index: int) -> list[Lease]:
        own = open_database(cohorts.database.url)
        promoted = ledger_of(own, cohorts.study, f"t{index}").promote([0], at_most=1)
        own.close()
        return promoted

    with ThreadPoolExecutor(4) as pool:
        assert sum(map(len, pool.map(promote, range(4)))) == 1


def test_promoted_trial_of_a_dead_worker_is_taken_over_as_any_other(cohorts: Cohorts) -> None:
    paused(cohorts, cohorts.ledger("a"), 2)
    [promoted] = cohorts.ledger("b").promote([1], at_most=1)
    [taken] = cohorts.ledger("c").take_over(lambda worker: worker == "b", at_most=9)
    assert (taken.number, taken.attempt, taken.step) == (1, 2, 5)
    assert taken.checkpoint == promoted.checkpoint


def test_promotion_whose_answer_was_lost_is_taken_over_by_who_asked(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    paused(cohorts, ledger, 1)
    with losing_answers(cohorts, ledger):
        ledger.promote([0], at_most=1)
    [taken] = ledger.take_over(nobody_died, at_most=9)
    assert (taken.number, taken.attempt) == (0, 1)


def test_nothing_is_promoted_while_the_study_is_paused(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    paused(cohorts, ledger)
    set_state(cohorts.database, cohorts.study, StudyState.PAUSED)
    assert ledger.promote([0], at_most=1) == []
    assert ledger.end_paused(waiting(ledger)) == []
    set_state(cohorts.database, cohorts.study, StudyState.RUNNING)
    assert numbers(ledger.promote([0], at_most=1)) == [0]


def test_nothing_is_promoted_once_the_wall_time_is_used_up_and_all_end(
    database: Database, make_spec: MakeSpec
) -> None:
    budget = {"trials": 12, "steps": 20, "evaluations": 4, "wall_time": 100.0}
    study = Studies(database).create(make_spec(budget=budget))
    cohorts, now_s = Cohorts(database, study), [0.0]
    ledger = SingleTrials(
        database, study, replace(cohorts.ledger("a")._worker, worker_id="b"), clock=lambda: now_s[0]
    )
    ledger.register(0.0, lambda ordinal: ordinal)
    paused(cohorts, ledger, 2)
    assert ledger.end_paused(waiting(ledger)) == []
    now_s[0] = 101.0
    assert ledger.promote([0], at_most=1) == []
    assert ledger.end_paused(waiting(ledger)) == [0, 1]
    assert is_done(database, study)


def test_a_study_with_paused_trials_is_done_once_they_have_ended(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    paused(cohorts, ledger)
    assert not is_done(cohorts.database, cohorts.study)
    assert ledger.end_paused(waiting(ledger)) == list(range(12))
    assert is_done(cohorts.database, cohorts.study)
    for number in range(12):
        record = cohorts.read(number)
        assert (record.outcome, record.value) == (Outcome.PRUNED, number + 0.5)
        assert record.attributes["steps"] == 5
        assert record.attributes["train_s"] == 1.5
        assert "stopped_by" not in record.attributes
        assert cohorts.kinds(number)[-1] == "ended"
    assert ledger.end_paused(waiting(ledger)) == []


def test_paused_trials_do_not_end_while_the_budget_has_some_left(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    paused(cohorts, ledger, 11)
    assert ledger.end_paused(waiting(ledger)) == []
    assert len(waiting(ledger)) == 11


def test_paused_trials_end_once_nothing_is_left_to_try(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    paused(cohorts, ledger, 2)
    assert ledger.is_alone()
    ledger.exhaust("all has been tried")
    assert ledger.end_paused(waiting(ledger)) == [0, 1]


def test_paused_trials_do_not_end_while_another_trains(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    paused(cohorts, ledger, 11)
    seen = waiting(ledger)
    held = cohorts.start_some(ledger, 1)
    assert ledger.end_paused(seen) == []
    assert not ledger.is_alone()
    ledger.finish(complete(held))
    assert ledger.end_paused(seen) == list(range(11))


def test_paused_trials_do_not_end_on_what_was_known_before_one_was_promoted(
    cohorts: Cohorts,
) -> None:
    ledger, other = cohorts.ledger("a"), cohorts.ledger("b")
    paused(cohorts, ledger)
    seen = waiting(ledger)
    promoted = other.promote([4], at_most=1)
    assert ledger.end_paused(seen) == []
    other.report(10, evaluated(promoted, 10))
    other.pause(endings(promoted), 10, 10)
    # The same trials are paused as before, but one of them has been evaluated since.
    assert ledger.end_paused(seen) == []
    assert ledger.end_paused(waiting(ledger)) == list(range(12))
    assert cohorts.read(4).evaluations == {5: 4.5, 10: 4.5}


def test_of_many_who_end_the_paused_trials_one_does(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    paused(cohorts, ledger)
    seen = waiting(ledger)

    def end(index: int) -> list[int]:
        own = open_database(cohorts.database.url)
        ended = ledger_of(own, cohorts.study, f"t{index}").end_paused(seen)
        own.close()
        return ended

    with ThreadPoolExecutor(4) as pool:
        assert sorted(map(len, pool.map(end, range(4)))) == [0, 0, 0, 12]
    assert all(cohorts.kinds(number).count("ended") == 1 for number in range(12))


def test_stopping_the_study_ends_paused_trials_with_their_last_evaluation(
    cohorts: Cohorts,
) -> None:
    paused(cohorts, cohorts.ledger("a"), 2)
    set_state(cohorts.database, cohorts.study, StudyState.STOPPED)
    records = read_records(cohorts.database, cohorts.study)
    assert [(r.outcome, r.value) for r in records] == [(Outcome.PRUNED, 0.5), (Outcome.PRUNED, 1.5)]
    assert {r.attributes["stopped_by"] for r in records} == {"stop"}
    assert is_done(cohorts.database, cohorts.study)


@pytest.mark.parametrize("by", ["take-over", "repair"])
def test_a_trial_paused_after_the_stop_ends_with_the_next_look(cohorts: Cohorts, by: str) -> None:
    ledger = cohorts.ledger("a")
    those = cohorts.start_some(ledger, 1)
    ledger.report(5, evaluated(those, 5))
    set_state(cohorts.database, cohorts.study, StudyState.STOPPED)
    assert not ledger.pause(endings(those), 5, 5)
    assert not is_done(cohorts.database, cohorts.study)
    if by == "repair":
        [repaired] = repair(cohorts.database, cohorts.study, nobody_died)
        assert (repaired.number, repaired.action) == (0, "ended")
    else:
        assert cohorts.ledger("b").take_over(nobody_died, at_most=1) == []
    assert (cohorts.read(0).outcome, cohorts.read(0).value) == (Outcome.PRUNED, 0.5)
    assert is_done(cohorts.database, cohorts.study)


def test_a_trial_that_somebody_else_ended_is_forgotten_not_changed(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    those = paused(cohorts, ledger)
    end_elsewhere(cohorts, those[0])
    end_elsewhere(cohorts, those[1])
    assert ledger.promote([0], at_most=1) == []
    assert ledger.end_paused(waiting(ledger)) == list(range(1, 12))
    assert [cohorts.read(n).outcome for n in range(3)] == [
        *(Outcome.FAILED, Outcome.FAILED, Outcome.PRUNED)
    ]
    assert is_done(cohorts.database, cohorts.study)


def test_a_paused_trial_cannot_be_run_again(cohorts: Cohorts) -> None:
    paused(cohorts, cohorts.ledger("a"), 1)
    with pytest.raises(SpecError, match="Trial 0 is not over yet"):
        rerun(cohorts.database, cohorts.study, 0)


def test_paused_trials_stay_paused_when_their_study_is_renamed(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    those = paused(cohorts, ledger)
    assert rename(cohorts.database, cohorts.study, "another") == 201
    study = Studies(cohorts.database).find("another")
    assert [trial.token for trial in waiting(ledger)] == [lease.token for lease in those]
    promoted = ledger.promote([0], at_most=1)
    assert not ledger.report(10, evaluated(promoted, 10))
    assert not ledger.finish(complete(promoted))
    assert ledger.end_paused(waiting(ledger)) == list(range(1, 12))
    assert is_done(cohorts.database, study)


def test_a_deleted_study_takes_its_paused_trials_along(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    paused(cohorts, ledger, 2)
    Studies(cohorts.database).delete(cohorts.study)
    assert waiting(ledger) == []


def test_optuna_sees_a_paused_trial_as_running(cohorts: Cohorts) -> None:
    paused(cohorts, cohorts.ledger("a"), 1)
    [trial] = optuna.load_study(study_name="small", storage=cohorts.database.storage).trials
    assert (trial.state, trial.intermediate_values) == (TrialState.RUNNING, {5: 0.5})
