from __future__ import annotations

import math

import pytest

from tests.conftest import MakeSpec
from tests.store.single_trials import SingleTrials
from tuner.errors import SpecError
from tuner.search import Proposer
from tuner.store import Database, Lease, Studies, StudyHandle
from tuner.store.curves import read_curves
from tuner.store.leases.workers import WorkerIdentity


@pytest.fixture
def ledger(database: Database, study: StudyHandle) -> SingleTrials:
    ledger = SingleTrials(database, study, WorkerIdentity("a", "host", 1, "cpu", "0"))
    ledger.register(0.0, lambda ordinal: ordinal)
    return ledger


@pytest.fixture
def lease(ledger: SingleTrials, study: StudyHandle) -> Lease:
    lease = ledger.start_one([], Proposer(study.spec, seed=0).propose())
    assert lease is not None
    return lease


def test_curves_are_read_by_name_in_the_order_of_steps(
    database: Database, study: StudyHandle, ledger: SingleTrials, lease: Lease
) -> None:
    ledger.log_one(lease, 2, [(2, "train_loss", 0.5), (2, "lr", 0.1)])
    ledger.log_one(lease, 2, [(1, "train_loss", 1.0)])
    curves = read_curves(database, study, lease.number)
    assert curves == {"train_loss": {1: 1.0, 2: 0.5}, "lr": {2: 0.1}}
    assert list(curves["train_loss"]) == [1, 2]


def test_of_numbers_logged_twice_for_a_step_the_last_counts(
    database: Database, study: StudyHandle, ledger: SingleTrials, lease: Lease
) -> None:
    ledger.log_one(lease, 1, [(1, "loss", 3.0), (1, "loss", 2.0)])
    assert read_curves(database, study, lease.number) == {"loss": {1: 2.0}}
    ledger.log_one(lease, 1, [(1, "loss", 1.0)])
    assert read_curves(database, study, lease.number) == {"loss": {1: 1.0}}


def test_what_is_no_number_is_dropped(
    database: Database, study: StudyHandle, ledger: SingleTrials, lease: Lease
) -> None:
    bad = [(step, "loss", value) for step, value in enumerate((math.nan, math.inf, -math.inf))]
    ledger.log_one(lease, 3, [*bad, (3, "loss", 1e-300)])
    assert read_curves(database, study, lease.number) == {"loss": {3: 1e-300}}


def test_ten_thousand_points_are_written_at_once(
    database: Database, study: StudyHandle, ledger: SingleTrials, lease: Lease
) -> None:
    ledger.log_one(lease, 10_000, [(step, "loss", step / 7) for step in range(10_000)])
    assert read_curves(database, study, lease.number)["loss"] == {
        step: step / 7 for step in range(10_000)
    }


def test_logging_says_that_the_trial_got_further(
    database: Database, study: StudyHandle, ledger: SingleTrials, lease: Lease
) -> None:
    other = SingleTrials(database, study, WorkerIdentity("b", "host", 1, "cpu", "0"))
    other.register(0.0, lambda ordinal: ordinal)
    taken = other.take_one(lambda worker: True)
    assert taken is not None
    assert taken.attempt == 2
    other.log_one(taken, 5, [])
    again = ledger.take_one(lambda worker: worker == "b")
    assert again is not None
    assert again.attempt == 2


@pytest.mark.parametrize("name", ["", "x" * 256, "a\0b"], ids=["empty", "long", "nul"])
def test_name_that_a_database_cannot_hold_is_refused(
    ledger: SingleTrials, lease: Lease, name: str
) -> None:
    with pytest.raises(SpecError, match="cannot name a logged number"):
        ledger.log_one(lease, 1, [(1, name, 1.0)])


def test_curves_of_other_trials_and_studies_are_left_out(
    database: Database, study: StudyHandle, ledger: SingleTrials, lease: Lease, make_spec: MakeSpec
) -> None:
    other = Studies(database).create(make_spec(study=study.spec.study.model_dump() | {"name": "b"}))
    ledger.log_one(lease, 1, [(1, "loss", 1.0)])
    assert read_curves(database, study, lease.number + 1) == {}
    assert read_curves(database, other, lease.number) == {}
