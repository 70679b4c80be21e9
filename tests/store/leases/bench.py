"""Some workers on one study, for the tests of leases."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import optuna
import sqlalchemy as sa
from optuna.distributions import IntDistribution
from optuna.trial import FrozenTrial, TrialState

from tests.store.single_trials import SingleTrials
from tuner.domain.trials import TrialRecord
from tuner.errors import LeaseLostError, UnavailableError
from tuner.search import Proposer
from tuner.store import Database, Lease, StudyHandle, TrialEnding, TrialReport
from tuner.store.events import read_events
from tuner.store.leases.workers import WorkerIdentity
from tuner.store.records import read_record

WIDTH = IntDistribution(1, 8)


def nobody_died(worker_id: str) -> bool:
    return False


def everybody_died(worker_id: str) -> bool:
    return True


def ledger_of(
    database: Database,
    study: StudyHandle,
    name: str,
    lease_s: float = 60,
    pid: int = 1,
    software: str = "",
) -> SingleTrials:
    identity = WorkerIdentity(name, "host", pid, "cpu", "0", software=software)
    ledger = SingleTrials(database, study, identity, lease_s)
    ledger.register(0.0, lambda ordinal: ordinal)
    return ledger


class Bench:
    """Some workers on one study."""

    pid, software = 1, ""

    def __init__(self, database: Database, study: StudyHandle) -> None:
        self.database = database
        self.study = study
        self.proposer = Proposer(study.spec, seed=0)

    def ledger(self, name: str, lease_s: float = 60) -> SingleTrials:
        return ledger_of(self.database, self.study, name, lease_s, self.pid, self.software)

    def start(self, ledger: SingleTrials) -> Lease:
        lease = ledger.start_one(self.proposer.openings(), self.proposer.propose())
        assert lease is not None
        return lease


class Interrupted(Database):
    """A database whose answer to the next write that happened is lost on the way."""

    @contextlib.contextmanager
    def write(self) -> Iterator[sa.Connection]:
        with super().write() as connection:
            yield connection
        raise UnavailableError("the connection was lost")


class Cohorts(Bench):
    """Some workers on one study, each with many trials at once."""

    def proposals(self, count: int) -> list[FrozenTrial]:
        return [self.proposer.propose() for _ in range(count)]

    def start_some(self, ledger: SingleTrials, count: int) -> list[Lease]:
        return ledger.start(self.proposer.openings(), self.proposals(count))

    def read(self, number: int) -> TrialRecord:
        found = read_record(self.database, self.study, number)
        assert found is not None
        return found

    def kinds(self, number: int) -> list[str]:
        return [event.kind for event in read_events(self.database, self.study.uuid, number)]


def evaluated(those: list[Lease], progress: int, value: float = 0.5) -> list[TrialReport]:
    loss = [(progress, "loss", value)]
    return [TrialReport(lease, progress, value + lease.number, loss) for lease in those]


def complete(those: list[Lease]) -> list[TrialEnding]:
    return [
        TrialEnding(lease, TrialState.COMPLETE, float(lease.number), {"steps": 20})
        for lease in those
    ]


def numbers(those: list[Lease]) -> list[int]:
    return [lease.number for lease in those]


def reasons(lost: dict[int, LeaseLostError]) -> dict[int, str]:
    return {number: str(error) for number, error in lost.items()}


def end_elsewhere(cohorts: Cohorts, lease: Lease) -> None:
    storage = cohorts.database.storage
    optuna.load_study(study_name="small", storage=storage).tell(lease.number, state=TrialState.FAIL)
