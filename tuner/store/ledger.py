"""Who holds which trial: every trial is worked on by one worker and finished exactly once.

A worker holds a trial under a lease: a token, and a time until which it counts. Whatever a worker
writes about a trial happens in one transaction with a check of its token, so a worker that lost
its lease, because it hung or the network was gone, can write nothing more. The budget is counted
from the trials themselves in the transaction that starts one.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from tuner.domain.dimensions import Value
from tuner.domain.states import StudyState
from tuner.errors import LeaseLostError, NotFoundError
from tuner.store import optuna_tables as ot
from tuner.store.curves import insert_points
from tuner.store.database import Database
from tuner.store.studies import SPEC, STATE, UUID, StudyHandle, read_attributes
from tuner.store.tables import DatabaseClock, leases, workers
from tuner.store.workers import (
    WorkerIdentity,
    elapsed_s,
    enter,
    refuse_second_machine,
    touch,
)

__all__ = [
    "LEASE_S",
    "MAX_ATTEMPTS",
    "Lease",
    "Ledger",
    "Orders",
    "WorkerIdentity",
    "is_done",
    "read_elapsed_s",
]

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
        checkpoint: The token of the holder whose checkpoint counts, None before the first.
    """

    number: int
    trial_id: int
    token: str
    attempt: int
    checkpoint: str | None = None


@dataclass(frozen=True)
class Orders:
    """What a worker is asked to do.

    Attributes:
        state: Whether the study goes on.
        out_of_time: Whether its wall time is used up.
        leaving: Whether this worker was asked to end.
    """

    state: StudyState
    out_of_time: bool
    leaving: bool


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
        self._held: set[str] = set()

    def register(self, age_s: float, derive: Callable[[int], int]) -> int:
        """Enters the worker in the database.

        Args:
            age_s: Seconds since the worker's process started.
            derive: Gives the worker's seed from its ordinal, the number of workers before it.

        Returns:
            The seed.

        Raises:
            NotFoundError: If the study has been deleted.
            StorageError: If the database is SQLite and another machine works on it.
        """
        with self._database.write() as connection:
            _locked_budget(connection, self._study)
            refuse_second_machine(connection, self._worker, self._lease_s)
            return enter(connection, self._study.uuid, self._worker, age_s, derive)

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
            if elapsed_s(connection, self._study.uuid)[0] >= budget.get("wall_time", float("inf")):
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
            touch(connection, self._worker)
        self._held.add(token)
        return Lease(number, trial_id, token, 1)

    def take_over(self, is_dead: Callable[[str], bool]) -> Lease | None:
        """Takes a trial that nobody works on any more: released, expired, or its worker dead.

        So is one that this worker started without hearing of it, since the connection was lost.
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
            if self._is_unheard_of(row) or row.expired or is_dead(row.worker_id):
                lease = self._take(row)
                if lease is not None:
                    self._held.add(lease.token)
                    return lease
        return None

    def _is_unheard_of(self, row: sa.Row[Any]) -> bool:
        """Tells whether nobody has worked on it: it was released, or its start was not heard."""
        own = row.worker_id == self._worker.worker_id
        return row.worker_id is None or (own and row.token not in self._held)

    def _take(self, row: sa.Row[Any]) -> Lease | None:
        with self._database.write() as connection:
            attempt = row.attempts if self._is_unheard_of(row) else row.attempts + 1
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
            lease = Lease(row.number, trial_id, token, attempt, row.checkpoint)
            if attempt <= MAX_ATTEMPTS:
                touch(connection, self._worker)
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

    def report(
        self,
        lease: Lease,
        step: int,
        progress: int,
        value: float,
        logged: Sequence[tuple[int, str, float]] = (),
    ) -> None:
        """Records an evaluation, and what was logged since the last one.

        Args:
            lease: The right to.
            step: Optimizer steps taken.
            progress: Where the evaluation stands on the axis trials are compared along.
            value: The metric.
            logged: (step, name, value) triples; see :mod:`tuner.store.curves`.

        Raises:
            LeaseLostError: If the trial belongs to another worker by now.
        """
        with self._database.write() as connection:
            self._renew(connection, lease, step)
            ot.insert_reports(connection, [(lease.trial_id, progress, value)])
            insert_points(connection, self._study.uuid, lease.number, logged)

    def log(self, lease: Lease, step: int, logged: Sequence[tuple[int, str, float]]) -> None:
        """Records what was logged between evaluations.

        Args:
            lease: The right to.
            step: Optimizer steps taken.
            logged: (step, name, value) triples; see :mod:`tuner.store.curves`.

        Raises:
            LeaseLostError: If the trial belongs to another worker by now.
        """
        with self._database.write() as connection:
            self._renew(connection, lease, step)
            insert_points(connection, self._study.uuid, lease.number, logged)

    def add_parameters(
        self,
        lease: Lease,
        params: Mapping[str, Value],
        distributions: Mapping[str, BaseDistribution],
    ) -> None:
        """Records parameters that were chosen while the trial trains.

        Args:
            lease: The right to.
            params: Values by name; a parameter the trial has already stays as it is.
            distributions: Where each value comes from, by name.

        Raises:
            LeaseLostError: If the trial belongs to another worker by now.
        """
        with self._database.write() as connection:
            self._renew(connection, lease, step=0)
            ot.insert_params(connection, lease.trial_id, params, distributions)

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
            touch(connection, self._worker)
        self._held.discard(lease.token)

    def release(self, lease: Lease) -> None:
        """Gives a trial back unfinished, for whoever asks next."""
        with self._database.write() as connection:
            connection.execute(
                sa.update(leases).where(*self._is(lease.number, lease.token)).values(worker_id=None)
            )
            touch(connection, self._worker)
        self._held.discard(lease.token)

    def touch(self) -> None:
        """Says that the worker is alive."""
        with self._database.write() as connection:
            touch(connection, self._worker)

    def saved(self, lease: Lease, step: int) -> Lease:
        """Says that the holder's own checkpoint, named after its token, counts from now on.

        Args:
            lease: The right to.
            step: Optimizer steps taken when it was written.

        Returns:
            The lease, with its checkpoint.

        Raises:
            LeaseLostError: If the trial belongs to another worker by now.
        """
        with self._database.write() as connection:
            self._renew(connection, lease, step)
            connection.execute(
                sa.update(leases)
                .where(*self._is(lease.number, lease.token))
                .values(checkpoint=lease.token)
            )
        return replace(lease, checkpoint=lease.token)

    def orders(self) -> Orders:
        """Returns what the worker is asked to do; cheap enough to ask at every evaluation.

        Raises:
            NotFoundError: If the study has been deleted.
        """
        with self._database.read() as connection:
            budget = _budget(connection, self._study)
            state = read_attributes(connection, self._study.study_id).get(STATE)
            wall_time = budget.get("wall_time", float("inf"))
            leaving = connection.execute(
                sa.select(workers.c.leaving).where(workers.c.worker_id == self._worker.worker_id)
            ).scalar_one_or_none()
            return Orders(
                StudyState(state or StudyState.RUNNING),
                elapsed_s(connection, self._study.uuid)[0] >= wall_time,
                bool(leaving),
            )

    def is_out_of_time(self) -> bool:
        """Tells whether the study's wall time is used up."""
        with self._database.read() as connection:
            wall_time = _budget(connection, self._study).get("wall_time")
            return wall_time is not None and elapsed_s(connection, self._study.uuid)[0] >= wall_time

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
        touch(connection, self._worker)

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


def is_done(database: Database, study: StudyHandle) -> bool:
    """Tells whether nothing is left to start, and nothing is held by anyone.

    Raises:
        NotFoundError: If the study has been deleted.
    """
    with database.read() as connection:
        budget = _budget(connection, study)
        used_up = ot.count_trials(connection, study.study_id) >= budget["trials"]
        out_of_time = elapsed_s(connection, study.uuid)[0] >= budget.get("wall_time", float("inf"))
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
        return elapsed_s(connection, study.uuid)


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
