from __future__ import annotations

import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from tests.conftest import MakeSpec
from tests.store.leases.bench import (
    Cohorts,
    complete,
    evaluated,
    everybody_died,
    ledger_of,
    nobody_died,
    numbers,
)
from tests.store.single_trials import SingleTrials
from tuner.domain.states import StudyState
from tuner.domain.trials import Outcome, default_proposal
from tuner.errors import SpecError
from tuner.search import Proposer
from tuner.store import Database, Lease, Studies, TrialEnding, open_database
from tuner.store.control import set_state
from tuner.store.identity import look_up
from tuner.store.leases.budget import is_done
from tuner.store.leases.charges import read_charged, read_used
from tuner.store.leases.reruns import rerun
from tuner.store.tables import charges

MakeCohorts = Callable[[float | None], Cohorts]


@pytest.fixture
def make_cohorts(database: Database, make_spec: MakeSpec) -> MakeCohorts:
    """Returns workers on a study whose full trials take 20 steps, by its budget of full trials."""

    def make(full_trials: float | None) -> Cohorts:
        budget: dict[str, float] = {"trials": 100, "steps": 20, "evaluations": 4}
        budget |= {} if full_trials is None else {"full_trials": full_trials}
        return Cohorts(database, Studies(database).create(make_spec(budget=budget)))

    return make


def ended(
    those: list[Lease], steps: int, state: TrialState = TrialState.PRUNED
) -> list[TrialEnding]:
    attributes = {"steps": steps} | ({} if steps == 20 else {"total_steps": 20})
    return [TrialEnding(lease, state, 0.5, attributes) for lease in those]


def used(cohorts: Cohorts) -> float | None:
    found = read_used(cohorts.database, cohorts.study)
    return found if found is None else round(found, 9)


def pause(cohorts: Cohorts, ledger: SingleTrials, count: int, steps: int = 5) -> list[Lease]:
    those = cohorts.start_some(ledger, count)
    assert len(those) == count
    ledger.report(steps, evaluated(those, steps))
    assert not ledger.pause(ended(those, steps), steps, steps)
    return those


def extend(cohorts: Cohorts, full_trials: float) -> None:
    studies = Studies(cohorts.database)
    cohorts.study = studies.extend(cohorts.study, lambda budget: {"full_trials": full_trials})


def test_no_trial_starts_that_might_not_be_trained_to_its_end(make_cohorts: MakeCohorts) -> None:
    cohorts = make_cohorts(3.5)
    ledger = cohorts.ledger("a")
    those = cohorts.start_some(ledger, 5)
    assert (len(those), used(cohorts)) == (3, 3.0)
    assert cohorts.start_some(ledger, 1) == []


def test_what_a_trial_has_not_trained_is_given_back_as_it_ends(make_cohorts: MakeCohorts) -> None:
    cohorts = make_cohorts(2.0)
    ledger = cohorts.ledger("a")
    first, second = cohorts.start_some(ledger, 2)
    ledger.finish(ended([first], 5))
    assert used(cohorts) == 1.25
    assert cohorts.start_some(ledger, 1) == []
    ledger.finish(ended([second], 15))
    assert used(cohorts) == 1.0
    [last] = cohorts.start_some(ledger, 1)
    assert not is_done(cohorts.database, cohorts.study)
    ledger.finish(ended([last], 20, TrialState.COMPLETE))
    assert (used(cohorts), is_done(cohorts.database, cohorts.study)) == (2.0, True)


def test_paused_trial_is_charged_for_what_it_has_trained_and_for_the_rest_once_it_goes_on(
    make_cohorts: MakeCohorts,
) -> None:
    cohorts = make_cohorts(2.9)
    ledger = cohorts.ledger("a")
    first, second = pause(cohorts, ledger, 2)
    assert used(cohorts) == 0.5
    assert numbers(ledger.promote([first.number], 1)) == [first.number]
    assert used(cohorts) == 1.25
    [_] = ledger.start([], cohorts.proposals(1), given_up={second.number})
    assert ledger.promote([second.number], 1) == []
    assert used(cohorts) == 2.25


def test_pause_that_is_told_twice_counts_once(make_cohorts: MakeCohorts) -> None:
    cohorts = make_cohorts(3.0)
    ledger = cohorts.ledger("a")
    [lease] = pause(cohorts, ledger, 1)
    assert ledger.pause(ended([lease], 5), 5, 5) == {}
    assert used(cohorts) == 0.25


def test_enough_is_kept_to_complete_paused_trials_that_are_not_given_up(
    make_cohorts: MakeCohorts,
) -> None:
    cohorts = make_cohorts(3.0)
    ledger = cohorts.ledger("a")
    first, second = pause(cohorts, ledger, 2)
    given_up = {first.number, second.number}
    # 2.5 are left: 1.5 would complete both, 0.75 one of them.
    start = cohorts.proposals(2)
    assert len(ledger.start([], start, given_up=())) == 1
    assert ledger.start([], start, given_up={first.number}) == []
    assert numbers(ledger.promote([second.number], 1, given_up={first.number})) == [1]
    assert used(cohorts) == 2.25
    assert ledger.start([], start, given_up=given_up) == []


def test_a_full_trial_is_kept_for_the_closing(make_cohorts: MakeCohorts) -> None:
    cohorts = make_cohorts(2.75)
    ledger = cohorts.ledger("a")
    closing = cohorts.proposer.template(default_proposal(cohorts.study.spec, "adam"))
    [lease] = pause(cohorts, ledger, 1)
    [one] = ledger.start([], cohorts.proposals(3), closing=closing, given_up={0})
    # 1.5 are left, and one of them is the closing's.
    assert ledger.promote([lease.number], 1, closing=closing, given_up={0}) == []
    assert ledger.start([], cohorts.proposals(1), closing=closing, given_up={0}) == []
    assert ledger.close(closing) == []
    ledger.finish(ended([one], 20, TrialState.COMPLETE))
    [last] = ledger.close(closing)
    assert used(cohorts) == 2.25
    ledger.finish(ended([last], 20, TrialState.COMPLETE))
    assert ledger.end_paused(ledger.read_paused().trials.values()) == [0]
    assert (used(cohorts), is_done(cohorts.database, cohorts.study)) == (2.25, True)


def test_lost_training_counts(make_cohorts: MakeCohorts) -> None:
    cohorts = make_cohorts(2.5)
    [lease] = cohorts.start_some(cohorts.ledger("a"), 1)
    cohorts.ledger("a").report(10, evaluated([lease], 5))
    cohorts.ledger("a").report(10, evaluated([lease], 10))
    second = cohorts.ledger("b")
    [taken] = second.take_over(everybody_died, at_most=1)
    for _ in range(2):  # as where the first answer was lost
        assert second.charge_lost({taken: 1}) == []
        assert used(cohorts) == 1.25
    second.finish(ended([taken], 20, TrialState.COMPLETE))
    assert used(cohorts) == 1.25


def test_training_lost_behind_a_checkpoint_counts_once_though_that_cannot_be_gone_on_from(
    make_cohorts: MakeCohorts,
) -> None:
    cohorts = make_cohorts(2.5)
    [lease] = cohorts.start_some(cohorts.ledger("a"), 1)
    for progress in (5, 10, 15):
        cohorts.ledger("a").report(progress, evaluated([lease], progress))
    second = cohorts.ledger("b")
    [taken] = second.take_over(everybody_died, at_most=1)
    for kept, lost in ((2, 0.25), (0, 0.75), (0, 0.75)):
        assert second.charge_lost({taken: kept}) == []
        assert used(cohorts) == 1 + lost


def test_trial_that_has_lost_nothing_goes_on_though_the_budget_was_lowered(
    make_cohorts: MakeCohorts,
) -> None:
    cohorts = make_cohorts(2.0)
    [lease] = cohorts.start_some(cohorts.ledger("a"), 1)
    cohorts.ledger("a").report(5, evaluated([lease], 5))
    paused = pause(cohorts, cohorts.ledger("a"), 1)
    extend(cohorts, 1.0)
    second = cohorts.ledger("b")
    [taken] = second.take_over(everybody_died, at_most=1)
    assert (used(cohorts), len(paused)) == (1.25, 1)
    assert second.charge_lost({taken: 1}) == []
    assert cohorts.read(taken.number).outcome is Outcome.RUNNING


def test_trial_that_lost_more_than_is_left_ends_as_it_stands(make_cohorts: MakeCohorts) -> None:
    cohorts = make_cohorts(2.25)
    ledger = cohorts.ledger("a")
    those = cohorts.start_some(ledger, 2)
    for progress in (5, 10):
        ledger.report(progress, evaluated(those, progress))
    second = cohorts.ledger("b")
    taken = second.take_over(everybody_died, at_most=2)
    assert second.charge_lost({taken[0]: 1, taken[1]: 1}) == [1]
    record = cohorts.read(1)
    assert (record.outcome, record.value) == (Outcome.PRUNED, 1.5)
    assert cohorts.kinds(1)[-1] == "ended"
    assert used(cohorts) == 1.75
    assert second.renew([taken[1]], 10).keys() == {1}
    assert second.renew([taken[0]], 10) == {}


def test_trials_ended_without_a_worker_count_by_their_evaluations(
    make_cohorts: MakeCohorts,
) -> None:
    cohorts = make_cohorts(4.0)
    ledger = cohorts.ledger("a")
    paused = pause(cohorts, ledger, 1, steps=10)
    left = cohorts.start_some(ledger, 2)
    ledger.report(5, evaluated(left[:1], 5))
    ledger.release(left)
    assert used(cohorts) == 2.25 + 0.25 * len(paused)
    set_state(cohorts.database, cohorts.study, StudyState.STOPPED)
    assert used(cohorts) == 0.75 - 0.25 + 0.25


def test_trials_from_before_the_budget_count_as_full_ones(make_cohorts: MakeCohorts) -> None:
    cohorts = make_cohorts(None)
    ledger = cohorts.ledger("a")
    those = cohorts.start_some(ledger, 2)
    ledger.finish(ended(those[:1], 5))
    assert used(cohorts) is None
    with cohorts.database.read() as connection:
        assert connection.execute(sa.select(charges)).all() == []
    extend(cohorts, 3.5)
    assert used(cohorts) == 2.0
    [_] = cohorts.start_some(ledger, 3)
    ledger.finish(ended(those[1:], 5))
    assert used(cohorts) == 3.0


def test_larger_budget_starts_more(make_cohorts: MakeCohorts) -> None:
    cohorts = make_cohorts(1.0)
    ledger = cohorts.ledger("a")
    ledger.finish(complete(cohorts.start_some(ledger, 4)))
    assert is_done(cohorts.database, cohorts.study)
    extend(cohorts, 2.0)
    assert not is_done(cohorts.database, cohorts.study)
    assert len(cohorts.start_some(ledger, 4)) == 1


def test_rerun_needs_a_full_trial_and_extends_by_what_it_lacks(make_cohorts: MakeCohorts) -> None:
    cohorts = make_cohorts(1.5)
    ledger = cohorts.ledger("a")
    ledger.finish(complete(cohorts.start_some(ledger, 1)))
    with pytest.raises(SpecError, match=r"has 0\.5 of 1\.5 full trials left"):
        rerun(cohorts.database, cohorts.study, 0)
    assert rerun(cohorts.database, cohorts.study, 0, extend=True) == 1
    spec = Studies(cohorts.database).find("small").spec
    assert (spec.budget.full_trials, spec.budget.trials, used(cohorts)) == (2.0, 100, 2.0)


def test_deleted_study_leaves_no_charges(make_cohorts: MakeCohorts) -> None:
    cohorts = make_cohorts(2.0)
    cohorts.start_some(cohorts.ledger("a"), 1)
    Studies(cohorts.database).delete(cohorts.study)
    with cohorts.database.read() as connection:
        assert connection.execute(sa.select(charges)).all() == []


@pytest.mark.parametrize("seed", range(3))
def test_charges_never_exceed_the_budget_whatever_workers_do_at_once(
    make_cohorts: MakeCohorts, seed: int
) -> None:
    cohorts = make_cohorts(6.3)
    proposer = Proposer(cohorts.study.spec, seed=seed)
    proposals = [proposer.propose() for _ in range(3)]

    def work(index: int) -> float:
        draw = random.Random(10 * seed + index)  # noqa: S311 (which of three things happens)
        own = open_database(cohorts.database.url)
        ledger = ledger_of(own, cohorts.study, f"w{index}")
        most = 0.0
        for _ in range(12):
            waiting = ledger.read_paused().trials
            found = (
                ledger.promote(sorted(waiting), 2, given_up=set()) if draw.random() < 0.5 else []
            )
            found = found or ledger.take_over(nobody_died, at_most=2)
            ledger.charge_lost({lease: 0 for lease in found if lease.begun})
            found = found or ledger.start([], proposals, draw.randint(1, 3))
            with own.read() as connection:
                most = max(most, read_charged(connection, look_up(connection, cohorts.study)))
            held = [lease for lease in found if lease.token in ledger._held]
            if not held:
                continue
            steps = 10 if held[0].step >= 5 else 5
            ledger.report(steps, evaluated(held, steps))
            match draw.randrange(3):
                case 0:
                    ledger.pause(ended(held, steps), steps, steps)
                case 1:
                    ledger.finish(ended(held, 20, TrialState.COMPLETE))
                case _:
                    ledger.release(held)
        own.close()
        return most

    with ThreadPoolExecutor(4) as pool:
        most = max(pool.map(work, range(4)))
    assert 1.0 <= most <= 6.3 + 1e-9
