from __future__ import annotations

from collections.abc import Callable

import optuna
import pytest
from optuna.trial import TrialState

from tests.conftest import MakeSpec
from tests.store.leases.bench import (
    WIDTH,
    Bench,
    Cohorts,
    complete,
    end_elsewhere,
    evaluated,
    nobody_died,
    numbers,
    reasons,
)
from tests.store.renaming import rename
from tests.store.single_trials import SingleTrials
from tuner.domain.trials import Outcome
from tuner.errors import LeaseLostError, NotFoundError
from tuner.store import Lease, Studies, read_curves, read_records
from tuner.store.leases.budget import is_done
from tuner.store.records import read_record

Write = Callable[[SingleTrials, Lease], object]


@pytest.mark.parametrize(
    "write",
    [
        lambda ledger, lease: ledger.renew_one(lease, 5),
        lambda ledger, lease: ledger.report_one(lease, 5, 5, 0.1),
        lambda ledger, lease: ledger.report_one(lease, 5, 5, 0.1, [(5, "loss", 0.1)]),
        lambda ledger, lease: ledger.log_one(lease, 5, [(5, "loss", 0.1)]),
        lambda ledger, lease: ledger.add_parameters(lease, {"width": 3}, {"width": WIDTH}),
        lambda ledger, lease: ledger.saved_one(lease, 5),
        lambda ledger, lease: ledger.finish_one(lease, TrialState.COMPLETE, 0.1, {"late": True}),
    ],
    ids=["renew", "report", "report and log", "log", "add parameters", "saved", "finish"],
)
def test_worker_that_lost_its_lease_can_write_nothing(bench: Bench, write: Write) -> None:
    hung, other = bench.ledger("hung", lease_s=-1), bench.ledger("other")
    stale = bench.start(hung)
    taken = other.take_one(nobody_died)
    assert taken is not None
    assert taken.number == stale.number
    with pytest.raises(LeaseLostError):
        write(hung, stale)
    other.report_one(taken, 3, 3, 0.9)
    record = read_record(bench.database, bench.study, stale.number)
    assert record is not None
    assert record.evaluations == {3: 0.9}
    assert "late" not in record.attributes
    assert "width" not in record.proposal.params
    assert read_curves(bench.database, bench.study, stale.number) == {}
    other.release([taken])
    again = other.take_one(nobody_died)
    assert again is not None
    assert (again.attempt, again.checkpoint) == (1, None)


def test_stale_worker_cannot_release_anothers_trial(bench: Bench) -> None:
    hung, other = bench.ledger("hung", lease_s=-1), bench.ledger("other")
    stale = bench.start(hung)
    taken = other.take_one(nobody_died)
    assert taken is not None
    hung.release([stale])
    other.renew_one(taken, 1)


def test_deleted_study_is_told_to_its_workers(bench: Bench) -> None:
    ledger = bench.ledger("a")
    lease = bench.start(ledger)
    Studies(bench.database).delete(bench.study)
    with pytest.raises(LeaseLostError):
        ledger.report_one(lease, 1, 1, 1.0)
    with pytest.raises(NotFoundError, match="deleted"):
        ledger.start_one([], bench.proposer.propose())


def test_worker_of_a_deleted_study_leaves_the_next_one_alone(
    bench: Bench, make_spec: MakeSpec
) -> None:
    ledger = bench.ledger("a")
    Studies(bench.database).delete(bench.study)
    following = Studies(bench.database).create(make_spec())
    if bench.database.engine.dialect.name == "sqlite":
        assert following.study_id == bench.study.study_id
    with pytest.raises(NotFoundError, match="deleted"):
        ledger.start_one([], bench.proposer.propose())
    with pytest.raises(NotFoundError, match="deleted"):
        is_done(bench.database, bench.study)
    assert read_records(bench.database, following) == []


WriteAll = Callable[[SingleTrials, list[Lease]], dict[int, LeaseLostError]]


@pytest.mark.parametrize(
    "write",
    [
        lambda ledger, leases: ledger.renew(leases, 5),
        lambda ledger, leases: ledger.report(5, evaluated(leases, 5)),
        lambda ledger, leases: ledger.saved(leases, 5),
        lambda ledger, leases: ledger.finish(complete(leases)),
    ],
    ids=["renew", "report", "saved", "finish"],
)
def test_lost_trials_are_told_why_and_the_others_are_written(
    cohorts: Cohorts, write: WriteAll
) -> None:
    ledger, other = cohorts.ledger("a"), cohorts.ledger("b")
    leases = cohorts.start_some(ledger, 4)
    cohorts.ledger("a").release(leases[0])  # behind the back of its holder
    taken = other.take_one(nobody_died)
    assert taken is not None
    assert taken.number == 0
    end_elsewhere(cohorts, leases[2])
    assert reasons(write(ledger, leases)) == {
        0: "Trial 0 belongs to another worker by now.",
        2: "Trial 2 was ended, or deleted, by somebody else.",
    }
    assert other.renew([taken], 1) == {}
    assert dict(cohorts.read(0).evaluations) == {}
    assert cohorts.read(2).outcome is Outcome.FAILED
    assert dict(cohorts.read(2).evaluations) == {}


def test_one_trial_ended_elsewhere_keeps_no_other_from_its_end(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    leases = cohorts.start_some(ledger, 3)
    end_elsewhere(cohorts, leases[1])
    assert list(ledger.finish(complete(leases))) == [1]
    records = read_records(cohorts.database, cohorts.study)
    assert [record.outcome.name for record in records] == ["COMPLETE", "FAILED", "COMPLETE"]
    assert [record.value for record in records] == [0.0, None, 2.0]
    assert "steps" not in records[1].attributes
    assert ledger.take_one(nobody_died) is None  # what is left of its lease goes with this
    assert list(ledger.finish(complete(leases))) == [0, 1, 2]
    assert cohorts.read(0).value == 0.0


def test_group_goes_on_when_its_study_is_renamed(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    leases = cohorts.start_some(ledger, 3)
    assert ledger.report(5, evaluated(leases, 5)) == {}
    assert rename(cohorts.database, cohorts.study, "renamed") == 201
    assert ledger.report(10, evaluated(leases, 10)) == {}
    assert ledger.finish(complete(leases[:2])) == {}
    assert numbers(cohorts.start_some(ledger, 2)) == [3, 4]
    records = read_records(cohorts.database, cohorts.study)
    assert [len(record.evaluations) for record in records] == [2, 2, 2, 0, 0]
    assert [record.value for record in records] == [0.0, 1.0, None, None, None]


def test_what_a_copy_lacks_of_a_group_is_told_again(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    leases = cohorts.start_some(ledger, 2)
    storage = cohorts.database.storage
    optuna.copy_study(
        from_study_name="small", from_storage=storage, to_storage=storage, to_study_name="renamed"
    )
    too_late = cohorts.start_some(ledger, 1)
    ledger.report(5, evaluated([*leases, *too_late], 5))
    storage.delete_study(cohorts.study.study_id)
    lost = ledger.report(10, evaluated([*leases, *too_late], 10))
    assert list(lost) == [2]
    for number in (0, 1):
        expected = {5: 0.5 + number, 10: 0.5 + number}
        assert dict(cohorts.read(number).evaluations) == expected


def test_group_of_a_deleted_study_is_lost(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    leases = cohorts.start_some(ledger, 2)
    Studies(cohorts.database).delete(cohorts.study)
    assert reasons(ledger.finish(complete(leases))) == {
        number: f"Trial {number} was deleted, and its study with it." for number in (0, 1)
    }
    with pytest.raises(NotFoundError, match="deleted"):
        cohorts.start_some(ledger, 2)


def test_ids_that_are_other_trials_of_the_group_by_now_are_looked_up_again(
    cohorts: Cohorts,
) -> None:
    ledger = cohorts.ledger("a")
    first, second = leases = cohorts.start_some(ledger, 2)
    held = (ledger._held[first], ledger._held[second])
    held[0].trial_id, held[1].trial_id = held[1].trial_id, held[0].trial_id
    assert ledger.report(5, evaluated(leases, 5)) == {}
    assert [dict(cohorts.read(number).evaluations) for number in (0, 1)] == [{5: 0.5}, {5: 1.5}]
