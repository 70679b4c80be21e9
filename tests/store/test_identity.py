from __future__ import annotations

import contextlib
import json
import threading
from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import IntDistribution
from optuna.trial import TrialState

from tests.conftest import MakeSpec
from tests.store.renaming import rename
from tests.store.single_trials import SingleTrials
from tuner.domain.trials import Outcome
from tuner.errors import LeaseLostError, NotFoundError, SpecError, UnavailableError
from tuner.search import Proposer
from tuner.store import (
    Database,
    Lease,
    RecordReader,
    Studies,
    StudyHandle,
    open_database,
    read_curves,
    read_records,
)
from tuner.store.events import read_events
from tuner.store.leases.budget import is_done
from tuner.store.leases.workers import WorkerIdentity
from tuner.store.optuna import tables as ot
from tuner.store.records import read_record


def nobody_died(worker_id: str) -> bool:
    return False


class Worker:
    """A worker whose training takes no time."""

    def __init__(self, database: Database, study: StudyHandle, name: str) -> None:
        self.ledger = SingleTrials(database, study, WorkerIdentity(name, "host", 1, "cpu", "0"))
        self.ledger.register(0.0, lambda ordinal: ordinal)
        self.reader = RecordReader(database, study)
        self.proposer = Proposer(study.spec, seed=0)

    def start(self) -> Lease | None:
        return self.ledger.start_one(self.proposer.openings(), self.proposer.propose())

    def started(self) -> Lease:
        lease = self.start()
        assert lease is not None
        return lease

    def end(self, lease: Lease) -> None:
        self.ledger.report_one(lease, 5, 5, 0.5, [(5, "loss", 0.5)])
        self.ledger.finish_one(lease, TrialState.COMPLETE, 0.5, {"steps": 5})


@pytest.fixture
def worker(database: Database, study: StudyHandle) -> Worker:
    return Worker(database, study, "a")


def copy(database: Database, name: str) -> StudyHandle:
    """Does what the dashboard does before it deletes the former study."""
    optuna.copy_study(
        from_study_name="small",
        from_storage=database.storage,
        to_storage=database.storage,
        to_study_name=name,
    )
    return Studies(database).find(name)


def test_trial_in_training_goes_on_when_its_study_is_renamed(
    database: Database, study: StudyHandle, worker: Worker
) -> None:
    worker.end(worker.started())
    lease = worker.started()
    worker.ledger.report_one(lease, 5, 5, 0.75)
    assert [record.number for record in worker.reader.sync()] == [0, 1]
    assert rename(database, study, "renamed") == 201
    assert worker.reader.sync() == []
    worker.ledger.report_one(lease, 10, 10, 0.25)
    worker.ledger.saved_one(lease, 10)
    assert not worker.ledger.signals().out_of_time
    worker.ledger.finish_one(lease, TrialState.COMPLETE, 0.25, {})
    [news] = worker.reader.sync()
    assert (news.number, news.value, dict(news.evaluations)) == (1, 0.25, {5: 0.75, 10: 0.25})
    following = worker.started()
    assert following.number == 2
    worker.end(following)
    found = Studies(database).find("renamed")
    assert found.uuid == study.uuid
    assert [record.number for record in read_records(database, found)] == [0, 1, 2]
    assert read_records(database, study) == read_records(database, found)
    assert read_record(database, study, 1) == read_record(database, found, 1)
    assert read_curves(database, found, 2) == {"loss": {5: 0.5}}
    with pytest.raises(NotFoundError, match="has no study 'small'"):
        Studies(database).find("small")
    assert Studies(database).refresh(study) == found


def test_budget_is_exact_when_a_study_is_renamed_while_many_work_on_it(
    database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(make_spec(budget={"trials": 30, "steps": 20}))
    under_way, renamed = threading.Semaphore(0), threading.Event()

    def work(index: int) -> None:
        own = open_database(database.url)
        worker = Worker(own, study, f"w{index}")
        while not (renamed.is_set() and is_done(own, study)):
            with contextlib.suppress(LeaseLostError, UnavailableError):
                lease = worker.ledger.take_one(nobody_died) or worker.start()
                renamed.wait(0.05)
                if lease is not None:
                    worker.end(lease)
            under_way.release()
        own.close()

    with ThreadPoolExecutor(3) as pool:
        working = [pool.submit(work, index) for index in range(3)]
        for _ in range(6):
            under_way.acquire()
        # PostgreSQL refuses the deletion when a report arrives in the middle; then the name stays.
        assert rename(database, study, "renamed") in (201, 500)
        renamed.set()
        for worker in working:
            worker.result()
    found = Studies(database).refresh(study)
    records = read_records(database, found)
    assert [record.number for record in records] == list(range(30))
    assert {record.outcome for record in records} == {Outcome.COMPLETE}
    assert all(dict(record.evaluations) == {5: 0.5} for record in records)


def test_former_study_counts_as_long_as_both_are_there(
    database: Database, study: StudyHandle, worker: Worker
) -> None:
    lease = worker.started()
    twin = copy(database, "twin")
    worker.ledger.report_one(lease, 5, 5, 0.75)
    assert len(read_records(database, study)[0].evaluations) == 1
    assert len(read_records(database, twin)[0].evaluations) == 0
    Studies(database).find("small")
    with pytest.raises(SpecError, match="'twin' is a copy of the study 'small'"):
        Worker(database, twin, "b")


def test_what_was_told_after_the_copy_was_made_is_told_again(
    database: Database, study: StudyHandle, worker: Worker
) -> None:
    lease = worker.started()
    width = IntDistribution(1, 8)
    copy(database, "renamed")
    worker.ledger.report_one(lease, 5, 5, 0.75)
    worker.ledger.add_parameters(lease, {"width": 3}, {"width": width})
    database.storage.delete_study(study.study_id)
    worker.ledger.report_one(lease, 10, 10, 0.5)
    record = read_record(database, study, lease.number)
    assert record is not None
    assert dict(record.evaluations) == {5: 0.75, 10: 0.5}
    assert record.proposal.params["width"] == 3


def test_trials_lost_between_the_copy_and_the_deletion_run_again(
    database: Database, study: StudyHandle, worker: Worker
) -> None:
    ended_too_late = worker.started()
    worker.reader.sync()
    copy(database, "renamed")
    worker.end(ended_too_late)
    started_too_late = worker.started()
    assert [record.number for record in worker.reader.sync()] == [0, 1]
    database.storage.delete_study(study.study_id)
    with pytest.raises(LeaseLostError):
        worker.end(started_too_late)
    again = worker.ledger.take_one(nobody_died) or worker.ledger.take_one(nobody_died)
    assert again is not None
    assert (again.number, again.attempt) == (0, 1)
    assert [(r.number, r.outcome) for r in worker.reader.sync()] == [(0, Outcome.RUNNING)]
    worker.end(again)
    anew = worker.started()
    assert anew.number == 1
    worker.end(anew)
    assert [(r.number, r.outcome) for r in worker.reader.sync()] == [
        (0, Outcome.COMPLETE),
        (1, Outcome.COMPLETE),
    ]
    assert "renamed" in [event.kind for event in read_events(database, study.uuid)]


def test_worker_that_arrives_after_the_renaming_takes_what_nobody_holds(
    database: Database, study: StudyHandle, worker: Worker
) -> None:
    lease = worker.started()
    copy(database, "renamed")
    worker.end(lease)
    database.storage.delete_study(study.study_id)
    late = Worker(database, Studies(database).find("renamed"), "b")
    again = late.ledger.take_one(nobody_died)
    assert again is not None
    late.end(again)
    assert worker.start() is not None


def test_deleting_a_copy_leaves_the_study_alone(
    database: Database, study: StudyHandle, worker: Worker
) -> None:
    lease = worker.started()
    Studies(database).delete(copy(database, "twin"))
    worker.end(lease)
    assert [overview.name for overview in Studies(database).list()] == ["small"]
    [record] = read_records(database, study)
    assert record.outcome is Outcome.COMPLETE


def test_copy_of_a_deleted_study_is_a_study_of_its_own(
    database: Database, study: StudyHandle, worker: Worker
) -> None:
    lease = worker.started()
    copy(database, "twin")
    Studies(database).delete(study)
    with pytest.raises(LeaseLostError):
        worker.end(lease)
    with pytest.raises(NotFoundError, match="deleted"):
        worker.start()
    twin = Studies(database).find("twin")
    assert twin.uuid != study.uuid
    heir = Worker(database, twin, "b")
    taken = heir.ledger.take_one(nobody_died)
    assert taken is not None
    heir.end(taken)
    [record] = read_records(database, twin)
    assert record.outcome is Outcome.COMPLETE


def test_trial_ended_by_somebody_else_is_lost_to_its_worker(
    database: Database, study: StudyHandle, worker: Worker
) -> None:
    lease = worker.started()
    optuna.load_study(study_name="small", storage=database.storage).tell(
        lease.number, state=TrialState.FAIL
    )
    with pytest.raises(LeaseLostError, match="ended"):
        worker.end(lease)
    assert worker.ledger.take_one(nobody_died) is None
    [record] = read_records(database, study)
    assert record.outcome is Outcome.FAILED
    assert dict(record.evaluations) == {}


def test_study_without_a_home_is_at_home(
    database: Database, study: StudyHandle, worker: Worker
) -> None:
    with database.write() as connection:
        connection.execute(
            sa.delete(ot.study_attributes).where(ot.study_attributes.c.key == "tuner:home")
        )
    worker.end(worker.started())
    assert rename(database, study, "renamed") == 201
    worker.end(worker.started())
    assert len(read_records(database, study)) == 2


def test_home_is_noted_as_json(database: Database, study: StudyHandle) -> None:
    attributes = optuna.load_study(study_name="small", storage=database.storage).user_attrs
    assert attributes["tuner:home"] == study.study_id
    assert json.loads(json.dumps(attributes)) == attributes
