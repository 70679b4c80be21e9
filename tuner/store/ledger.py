"""Who holds which trial: every trial is worked on by one worker and finished exactly once.

A worker holds a trial under a lease: a token, and a time until which it counts. Whatever a worker
writes about a trial happens in one transaction with a check of its token, so a worker that lost
its lease, because it hung or the network was gone, can write nothing more. The budget is counted
from the trials themselves in the transaction that starts one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from tuner.domain.dimensions import Value
from tuner.domain.states import StudyState
from tuner.errors import LeaseLostError
from tuner.store import events
from tuner.store import optuna_tables as ot
from tuner.store.curves import insert_points
from tuner.store.database import Database
from tuner.store.fence import Held, change_lease
from tuner.store.identity import Present, StudyHandle, lock, look_up, refuse_copy
from tuner.store.leases import (
    LEASE_S,
    MAX_ATTEMPTS,
    Fate,
    Lease,
    grant,
    is_abandoned,
    is_of,
    read_leases,
    record_taking,
    seize,
)
from tuner.store.orders import Orders, is_done, is_used_up, read_elapsed_s, read_orders
from tuner.store.reruns import count_defaults
from tuner.store.tables import DatabaseClock, leases
from tuner.store.workers import WorkerIdentity, enter, refuse_second_machine, touch

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

TOUCH_S = 5.0
"""How long a worker that writes all the time may not have been noted as seen, in seconds."""


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
        self._held: dict[str, Held] = {}
        self._touched_at = float("-inf")
        self._begun = 0

    def register(self, age_s: float, derive: Callable[[int], int]) -> int:
        """Enters the worker in the database.

        Args:
            age_s: Seconds since the worker's process started.
            derive: Gives the worker's seed from its ordinal, the number of workers before it.

        Returns:
            The seed.

        Raises:
            NotFoundError: If the study has been deleted.
            SpecError: If it is a copy of a study that is still there.
            StorageError: If the database is SQLite and another machine works on it.
        """
        with self._database.write() as connection:
            found = self._study
            refuse_copy(connection, found, self._lock(connection).study_id)
            refuse_second_machine(connection, self._worker, self._lease_s)
            return enter(connection, self._study.uuid, self._worker, age_s, derive)

    def start(self, defaults: Sequence[FrozenTrial], proposal: FrozenTrial) -> Lease | None:
        """Starts a trial if the study goes on and its budget allows one more.

        Args:
            defaults: The trials a study starts with, in order; those not run yet come first.
            proposal: What to try when all of them have started.

        Returns:
            The lease, or None if the budget of trials or wall time is used up, or the study is
            paused or stopped.

        Raises:
            NotFoundError: If the study has been deleted.
        """
        with self._database.write() as connection:
            present = self._lock(connection)
            started = ot.count_trials(connection, present.study_id)
            if present.state is not StudyState.RUNNING or is_used_up(
                connection, present, started, alive=self._worker.worker_id
            ):
                return None
            # Defaults only become more: all others wait for this lock, so nothing is asked twice.
            if self._begun < len(defaults):
                self._begun = count_defaults(connection, present.study_id)
            template = defaults[self._begun] if self._begun < len(defaults) else proposal
            [(trial_id, number)] = ot.insert_trials(
                connection, present.study_id, [template], started
            )
            worker_id, study_uuid = self._worker.worker_id, self._study.uuid
            lease = grant(connection, study_uuid, number, worker_id, self._lease_s)
            events.record(connection, study_uuid, "started", number=number, worker_id=worker_id)
            self._touch_now_and_then(connection)
        self._held[lease.token] = Held(trial_id)
        return lease

    def take_over(self, is_dead: Callable[[str], bool], *, expired: bool = True) -> Lease | None:
        """Takes a trial that nobody works on any more: released, expired, or its worker dead.

        So is one that this worker started without hearing of it, since the connection was lost.
        A trial that was tried :data:`MAX_ATTEMPTS` times without getting further is failed, and
        in a stopped study all of them end as they are. In a paused one they are left alone.

        Args:
            is_dead: Tells of a worker's id whether its process is known to have died.
            expired: Whether an expired lease counts as left behind; not so right after the
                database was away, when nobody could renew theirs.

        Returns:
            The lease, or None if there is no such trial.
        """
        with self._database.read() as connection:
            found = [
                row
                for row in read_leases(connection, self._study.uuid)
                if self._is_unheard_of(row) or is_abandoned(row, is_dead, expired=expired)
            ]
            if not found or look_up(connection, self._study).state is StudyState.PAUSED:
                return None
        for row in found:
            lease = self._take(row)
            if lease is not None:
                self._held[lease.token] = Held()
                return lease
        return None

    def _is_unheard_of(self, row: sa.Row[Any]) -> bool:
        """Tells whether this worker started it without hearing of it."""
        return row.worker_id == self._worker.worker_id and row.token not in self._held

    def _take(self, row: sa.Row[Any]) -> Lease | None:
        unharmed = row.worker_id is None or self._is_unheard_of(row)
        with self._database.write() as connection:
            present = self._lock(connection)
            if present.state is StudyState.PAUSED:
                return None
            seized = seize(
                connection,
                present,
                row,
                attempt=row.attempts if unharmed else row.attempts + 1,
                worker_id=self._worker.worker_id,
                lease_s=self._lease_s,
            )
            if seized is None or seized[0] is not Fate.TAKEN:
                return None
            record_taking(connection, row, seized[1], self._worker.worker_id)
            self._touch(connection)
            return seized[1]

    def renew(self, lease: Lease, step: int) -> None:
        """Says that a trial is still worked on.

        Raises:
            LeaseLostError: If it belongs to another worker by now.
        """
        with self._renewing(lease, step):
            pass

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
        with self._renewing(lease, step) as (connection, trial_id):
            ot.insert_reports(connection, [(trial_id, progress, value)])
            insert_points(connection, self._study.uuid, lease.number, logged)
        self._held[lease.token].reports[progress] = value

    def log(self, lease: Lease, step: int, logged: Sequence[tuple[int, str, float]]) -> None:
        """Records what was logged between evaluations.

        Args:
            lease: The right to.
            step: Optimizer steps taken.
            logged: (step, name, value) triples; see :mod:`tuner.store.curves`.

        Raises:
            LeaseLostError: If the trial belongs to another worker by now.
        """
        with self._renewing(lease, step) as (connection, _):
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
        with self._renewing(lease, step=0) as (connection, trial_id):
            ot.insert_params(connection, trial_id, params, distributions)
        for name, value in params.items():
            self._held[lease.token].params.setdefault(name, (value, distributions[name]))

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
        with self._renewing(lease, step, checkpoint=lease.token):
            pass
        return replace(lease, checkpoint=lease.token)

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
        with self._holding(lease, sa.delete(leases)) as (connection, trial_id):
            ot.set_attributes(connection, [(trial_id, k, v) for k, v in attributes.items()])
            ot.finish_trials(connection, [(trial_id, state, value)])
            self._touch(connection)
        self._held.pop(lease.token, None)

    def release(self, lease: Lease) -> None:
        """Gives a trial back unfinished, for whoever asks next."""
        with self._database.write() as connection:
            released = connection.execute(
                sa.update(leases)
                .where(*is_of(self._study.uuid, lease.number, lease.token))
                .values(worker_id=None)
            )
            if released.rowcount == 1:
                events.record(
                    connection,
                    self._study.uuid,
                    "released",
                    number=lease.number,
                    worker_id=self._worker.worker_id,
                )
            self._touch(connection)
        self._held.pop(lease.token, None)

    def touch(self) -> None:
        """Says that the worker is alive."""
        with self._database.write() as connection:
            self._touch(connection)

    def leave(self, reason: str = "") -> None:
        """Says that the worker is about to end.

        Args:
            reason: Why, in a few words.
        """
        with self._database.write() as connection:
            self._touch(connection)
            events.record(
                connection,
                self._study.uuid,
                "left",
                worker_id=self._worker.worker_id,
                detail=reason,
            )

    def orders(self) -> Orders:
        """Returns what the worker is asked to do; cheap enough to ask at every evaluation.

        Raises:
            NotFoundError: If the study has been deleted.
        """
        with self._database.read() as connection:
            return read_orders(connection, self._study, self._worker.worker_id)

    def _lock(self, connection: sa.Connection) -> Present:
        present = lock(connection, self._study)
        if present.study_id != self._study.study_id:
            # A copy of it is refused where a worker enters, so this one was renamed.
            self._study = replace(self._study, study_id=present.study_id)
        return present

    @contextlib.contextmanager
    def _renewing(
        self, lease: Lease, step: int, **changed: str
    ) -> Iterator[tuple[sa.Connection, int]]:
        further = leases.c.step < step
        renewal = sa.update(leases).values(
            expires_at=DatabaseClock() + self._lease_s,
            attempts=sa.case((further, 1), else_=leases.c.attempts),
            step=sa.case((further, step), else_=leases.c.step),
            **changed,
        )
        with self._holding(lease, renewal) as (connection, trial_id):
            yield connection, trial_id
            self._touch_now_and_then(connection)

    @contextlib.contextmanager
    def _holding(
        self, lease: Lease, change: sa.Update | sa.Delete
    ) -> Iterator[tuple[sa.Connection, int]]:
        """A transaction that changes a lease, and writes about its trial, of the id given."""
        held = self._held.setdefault(lease.token, Held())
        try:
            with self._database.write() as connection:
                trial_id = change_lease(connection, self._study, lease, held, change)
                yield connection, trial_id
        except LeaseLostError:
            del self._held[lease.token]
            raise
        held.trial_id = trial_id

    def _touch_now_and_then(self, connection: sa.Connection) -> None:
        if time.monotonic() - self._touched_at > TOUCH_S:
            self._touch(connection)

    def _touch(self, connection: sa.Connection) -> None:
        touch(connection, self._worker)
        self._touched_at = time.monotonic()
