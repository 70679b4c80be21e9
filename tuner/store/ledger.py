"""Who holds which trial: every trial is worked on by one worker and finished exactly once.

A worker holds a trial under a lease: a token, and a time until which it counts. Whatever a worker
writes about a trial happens in one transaction with a check of its token, so a worker that lost
its lease, because it hung or the network was gone, can write nothing more. The budget is counted
from the trials themselves in the transaction that starts one.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from tuner.errors import LeaseLostError, NotFoundError
from tuner.store import optuna_tables as ot
from tuner.store.database import Database
from tuner.store.studies import SPEC, UUID, StudyHandle, read_attributes
from tuner.store.tables import DatabaseClock, leases, workers

LEASE_S = 300.0
"""How long a lease counts without being renewed, in seconds."""

MAX_ATTEMPTS = 3
"""How often a trial is tried without getting further before it is failed."""


@dataclass(frozen=True)
class Lease:
    """The right to work on a trial.

    Attributes:
        number: The trial's number in its study.
        trial_id: Its id in Optuna's tables.
        token: What every write about it must show.
        attempt: Which attempt this is since it last got further, from 1.
    """

    number: int
    trial_id: int
    token: str
    attempt: int


@dataclass(frozen=True)
class WorkerIdentity:
    """A worker as the database knows it.

    Attributes:
        worker_id: Unique for all time.
        host: Its machine's name.
        pid: Its process.
        device: Where it trains.
        version: Its tuner's version.
    """

    worker_id: str
    host: str
    pid: int
    device: str
    version: str


class Ledger:
    """The leases of one worker on one study.

    Args:
        database: Where the study is.
        study: The study.
        worker: Who holds the leases.
        lease_s: How long a lease counts without being renewed, in seconds.
    """

    def __init__(
        self,
        database: Database,
        study: StudyHandle,
        worker: WorkerIdentity,
        lease_s: float = LEASE_S,
    ) -> None:
        self._database = database
        self._study = study
        self._worker = worker
        self._lease_s = lease_s

    def register(self, age_s: float, derive: Callable[[int], int]) -> int:
        """Enters the worker in the database.

        Args:
            age_s: Seconds since the worker's process started.
            derive: Gives the worker's seed from its ordinal, the number of workers before it.

        Returns:
            The seed.
        """
        with self._database.write() as connection:
            ordinal = connection.execute(
                sa.select(sa.func.count())
                .select_from(workers)
                .where(workers.c.study_uuid == self._study.uuid)
            ).scalar_one()
            seed = derive(ordinal)
            connection.execute(
                sa.insert(workers).values(
                    worker_id=self._worker.worker_id,
                    study_uuid=self._study.uuid,
                    ordinal=ordinal,
                    host=self._worker.host,
                    pid=self._worker.pid,
                    device=self._worker.device,
                    version=self._worker.version,
                    seed=str(seed),
                    started_at=DatabaseClock() - age_s,
                    last_seen=DatabaseClock(),
                )
            )
        return seed

    def start(self, defaults: Sequence[FrozenTrial], proposal: FrozenTrial) -> Lease | None:
        """Starts a trial if the budget allows one more.

        Args:
            defaults: The trials a study starts with, in order; those not run yet come first.
            proposal: What to try when all of them have started.

        Returns:
            The lease, or None if the budget of trials or wall time is used up.

        Raises:
            NotFoundError: If the study has been deleted.
        """
        with self._database.write() as connection:
            budget = _locked_budget(connection, self._study)
            if ot.count_trials(connection, self._study.study_id) >= budget["trials"]:
                return None
            if _elapsed_s(connection, self._study.uuid) >= budget.get("wall_time", float("inf")):
                return None
            begun = ot.count_attribute(connection, self._study.study_id, "preset")
            template = defaults[begun] if begun < len(defaults) else proposal
            [(trial_id, number)] = ot.insert_trials(connection, self._study.study_id, [template])
            token = uuid.uuid4().hex
            connection.execute(
                sa.insert(leases).values(
                    study_uuid=self._study.uuid,
                    number=number,
                    token=token,
                    worker_id=self._worker.worker_id,
                    expires_at=DatabaseClock() + self._lease_s,
                    step=0,
                    attempts=1,
                )
            )
            self._touch(connection)
        return Lease(number, trial_id, token, 1)

    def take_over(self, is_dead: Callable[[str], bool]) -> Lease | None:
        """Takes a trial that nobody works on any more: released, expired, or its worker dead.

        A trial that was tried :data:`MAX_ATTEMPTS` times without getting further is failed.

        Args:
            is_dead: Tells of a worker's id whether its process is known to have died.

        Returns:
            The lease, or None if there is no such trial.
        """
        with self._database.read() as connection:
            held = connection.execute(
                sa.select(leases, (leases.c.expires_at < DatabaseClock()).label("expired"))
                .where(leases.c.study_uuid == self._study.uuid)
                .order_by(leases.c.number)
            ).all()
        for row in held:
            if row.worker_id is None or row.expired or is_dead(row.worker_id):
                lease = self._take(row)
                if lease is not None:
                    return lease
        return None

    def _take(self, row: sa.Row[Any]) -> Lease | None:
        with self._database.write() as connection:
            released = row.worker_id is None
            attempt = row.attempts if released else row.attempts + 1
            token = uuid.uuid4().hex
            _locked_budget(connection, self._study)
            taken = connection.execute(
                sa.update(leases)
                .where(*self._is(row.number, row.token))
                .values(
                    token=token,
                    worker_id=self._worker.worker_id,
                    expires_at=DatabaseClock() + self._lease_s,
                    attempts=attempt,
                )
            )
            if taken.rowcount != 1:
                return None
            trial_id = connection.execute(
                sa.select(ot.trials.c.trial_id).where(
                    ot.trials.c.study_id == self._study.study_id,
                    ot.trials.c.number == row.number,
                )
            ).scalar_one()
            lease = Lease(row.number, trial_id, token, attempt)
            if attempt <= MAX_ATTEMPTS:
                self._touch(connection)
                return lease
            error = f"WorkerDied: {MAX_ATTEMPTS} workers died or hung on it at step {row.step}"
            self._end(connection, lease, TrialState.FAIL, None, {"error": error})
            return None

    def renew(self, lease: Lease, step: int) -> None:
        """Says that a trial is still worked on.

        Raises:
            LeaseLostError: If it belongs to another worker by now.
        """
        with self._database.write() as connection:
            self._renew(connection, lease, step)

    def report(self, lease: Lease, step: int, progress: int, value: float) -> None:
        """Records an evaluation.

        Args:
            lease: The right to.
            step: Optimizer steps taken.
            progress: Where the evaluation stands on the axis trials are compared along.
            value: The metric.

        Raises:
            LeaseLostError: If the trial belongs to another worker by now.
        """
        with self._database.write() as connection:
            self._renew(connection, lease, step)
            ot.insert_reports(connection, [(lease.trial_id, progress, value)])

    def finish(
        self,
        lease: Lease,
        state: TrialState,
        value: float | None,
        attributes: Mapping[str, Any],
    ) -> None:
        """Ends a trial and gives up its lease.

        Raises:
            LeaseLostError: If the trial belongs to another worker by now.
        """
        with self._database.write() as connection:
            self._end(connection, lease, state, value, attributes)
            self._touch(connection)

    def release(self, lease: Lease) -> None:
        """Gives a trial back unfinished, for whoever asks next."""
        with self._database.write() as connection:
            connection.execute(
                sa.update(leases).where(*self._is(lease.number, lease.token)).values(worker_id=None)
            )
            self._touch(connection)

    def touch(self) -> None:
        """Says that the worker is alive."""
        with self._database.write() as connection:
            self._touch(connection)

    def is_out_of_time(self) -> bool:
        """Tells whether the study's wall time is used up."""
        with self._database.read() as connection:
            wall_time = _budget(connection, self._study).get("wall_time")
            return wall_time is not None and _elapsed_s(connection, self._study.uuid) >= wall_time

    def _renew(self, connection: sa.Connection, lease: Lease, step: int) -> None:
        further = leases.c.step < step
        renewed = connection.execute(
            sa.update(leases)
            .where(*self._is(lease.number, lease.token))
            .values(
                expires_at=DatabaseClock() + self._lease_s,
                attempts=sa.case((further, 1), else_=leases.c.attempts),
                step=sa.case((further, step), else_=leases.c.step),
            )
        )
        if renewed.rowcount != 1:
            raise LeaseLostError(f"Trial {lease.number} belongs to another worker by now.")
        self._touch(connection)

    def _end(
        self,
        connection: sa.Connection,
        lease: Lease,
        state: TrialState,
        value: float | None,
        attributes: Mapping[str, Any],
    ) -> None:
        given_up = connection.execute(sa.delete(leases).where(*self._is(lease.number, lease.token)))
        if given_up.rowcount != 1:
            raise LeaseLostError(f"Trial {lease.number} belongs to another worker by now.")
        ot.set_attributes(connection, [(lease.trial_id, k, v) for k, v in attributes.items()])
        ot.finish_trials(connection, [(lease.trial_id, state, value)])

    def _is(self, number: int, token: str) -> tuple[sa.ColumnElement[bool], ...]:
        return (
            leases.c.study_uuid == self._study.uuid,
            leases.c.number == number,
            leases.c.token == token,
        )

    def _touch(self, connection: sa.Connection) -> None:
        connection.execute(
            sa.update(workers)
            .where(workers.c.worker_id == self._worker.worker_id)
            .values(last_seen=DatabaseClock())
        )


def is_done(database: Database, study: StudyHandle) -> bool:
    """Tells whether nothing is left to start, and nothing is held by anyone.

    Raises:
        NotFoundError: If the study has been deleted.
    """
    with database.read() as connection:
        budget = _budget(connection, study)
        used_up = ot.count_trials(connection, study.study_id) >= budget["trials"]
        out_of_time = _elapsed_s(connection, study.uuid) >= budget.get("wall_time", float("inf"))
        held = connection.execute(
            sa.select(sa.func.count()).select_from(leases).where(leases.c.study_uuid == study.uuid)
        ).scalar_one()
    return not held and (used_up or out_of_time)


def read_elapsed_s(database: Database, study: StudyHandle) -> tuple[float, float]:
    """Returns how long a study has been worked on.

    Returns:
        Seconds during which at least one worker lived, and the seconds of all workers added up.
    """
    with database.read() as connection:
        spans = _spans(connection, study.uuid)
    return _union_s(spans), sum(end - start for start, end in spans)


def _locked_budget(connection: sa.Connection, study: StudyHandle) -> dict[str, Any]:
    ot.lock_study(connection, study.study_id)
    return _budget(connection, study)


def _budget(connection: sa.Connection, study: StudyHandle) -> dict[str, Any]:
    # SQLite gives a deleted study's id to the next one, so the UUID is what counts.
    attributes = read_attributes(connection, study.study_id)
    if attributes.get(UUID) != study.uuid:
        raise NotFoundError(f"The study {study.name!r} has been deleted.")
    budget: dict[str, Any] = attributes[SPEC]["budget"]
    return budget


def _elapsed_s(connection: sa.Connection, study_uuid: str) -> float:
    return _union_s(_spans(connection, study_uuid))


def _spans(connection: sa.Connection, study_uuid: str) -> list[tuple[float, float]]:
    rows = connection.execute(
        sa.select(workers.c.started_at, workers.c.last_seen).where(
            workers.c.study_uuid == study_uuid
        )
    )
    return [(row.started_at, max(row.started_at, row.last_seen)) for row in rows]


def _union_s(spans: Iterable[tuple[float, float]]) -> float:
    total, reached = 0.0, float("-inf")
    for start, end in sorted(spans):
        total += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return total
