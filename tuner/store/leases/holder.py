"""The trials that a worker holds: all that it writes about them, under their leases.

A worker holds a trial under a lease: a token, and a time until which it counts. Every write about a
trial checks its token in the same transaction, so a worker that lost a lease, because it hung or
the network was gone, can write nothing more about that trial.

Every operation takes any number of trials, in the same few statements: a trial that trains alone is
a group of one.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import sqlalchemy as sa
from optuna.distributions import BaseDistribution

from tuner.domain.catalog.dimensions import Value
from tuner.domain.lengths import share_trained
from tuner.errors import LeaseLostError
from tuner.store import events
from tuner.store.connection.database import Database
from tuner.store.connection.retries import Clock
from tuner.store.identity import StudyHandle, StudyRow, lock, refuse_copy
from tuner.store.leases.charges import settle
from tuner.store.leases.fencing import DELETION, Fenced, HeldLeases, pausing, renewal
from tuner.store.leases.heartbeat import Heartbeat
from tuner.store.leases.rows import (
    LEASE_S,
    Lease,
    release,
)
from tuner.store.leases.signals import ControlSignals, read_signals
from tuner.store.leases.takeover import charge_lost
from tuner.store.leases.trial_reports import (
    TrialEnding,
    TrialReport,
    write_attributes,
    write_endings,
    write_params,
    write_reports,
)
from tuner.store.leases.workers import WorkerIdentity, enter, refuse_second_machine
from tuner.store.trial_rows import to_outcome

Lost = dict[int, LeaseLostError]
"""The errors of lost leases, by trial number: each says why the worker no longer holds the trial.

It belongs to another worker by now, or was ended or deleted.
"""


class Holder:
    """Writes about the trials of a study that one worker holds.

    Operations return the lost leases, and write about all other trials.

    Args:
        database: The study's database.
        study: The study.
        worker: The worker that holds the leases.
        lease_s: Seconds that a lease counts without being renewed.
        clock: Returns the seconds that measure the worker's life; must only grow.
    """

    def __init__(
        self,
        database: Database,
        study: StudyHandle,
        worker: WorkerIdentity,
        lease_s: float = LEASE_S,
        clock: Clock = time.monotonic,
    ) -> None:
        self._database = database
        self._study = study
        self._worker = worker
        self._lease_s = lease_s
        self._held = HeldLeases()
        self._heartbeat = Heartbeat(database, study.uuid, worker.worker_id, clock)
        self._charges = study.spec.budget.full_trials is not None

    def register(self, age_s: float, derive: Callable[[int], int]) -> int:
        """Enters the worker in the database.

        Args:
            age_s: Seconds since the worker's process started.
            derive: Returns the worker's seed for its ordinal, the number of workers before it.

        Returns:
            The worker's seed.

        Raises:
            NotFoundError: If the study has been deleted.
            SpecError: If it is a copy of a study that is still there.
            StorageError: If the database is SQLite and another machine works on it.
        """
        self._heartbeat.start(age_s)
        with self._database.write() as connection:
            found = self._study
            refuse_copy(connection, found, self._lock(connection).study_id)
            refuse_second_machine(connection, self._worker, self._lease_s)
            return enter(connection, self._study.uuid, self._worker, age_s, derive)

    def touch(self) -> None:
        """Records that the worker lives."""
        with self._database.write() as connection:
            self._heartbeat.beat(connection)

    def leave(self, reason: str = "") -> None:
        """Records that the worker is about to end.

        Args:
            reason: The reason, in a few words.
        """
        worker_id = self._worker.worker_id
        with self._database.write() as connection:
            self._heartbeat.beat(connection)
            events.record(connection, self._study.uuid, "left", worker_id=worker_id, detail=reason)

    def signals(self) -> ControlSignals:
        """Returns the signals for the worker; cheap enough to ask for at every evaluation.

        Raises:
            NotFoundError: If the study has been deleted.
        """
        with self._database.read() as connection:
            return read_signals(connection, self._study, self._heartbeat.alive)

    def report(self, step: int, reports: Sequence[TrialReport]) -> Lost:
        """Records evaluations of trials, and the numbers they logged since their last reports.

        Args:
            step: Optimizer steps that each of them has taken.
            reports: One report a trial.

        Returns:
            The errors of lost leases, by trial number.
        """
        with self._renewing([report.lease for report in reports], step) as fenced:
            evaluated = write_reports(fenced, self._study.uuid, reports)
        for lease, progress, value in evaluated:
            self._held[lease].reports[progress] = value
        return fenced.lost

    def add_parameters(
        self,
        lease: Lease,
        params: Mapping[str, Value],
        distributions: Mapping[str, BaseDistribution],
    ) -> None:
        """Records parameters that a trial's training loop has asked for.

        Args:
            lease: The lease the trial is held under; its token is checked.
            params: Values by name; a parameter the trial has already stays as it is.
            distributions: The distribution of each value, by name.

        Raises:
            LeaseLostError: If the lease is lost.
        """
        chosen = {name: (value, distributions[name]) for name, value in params.items()}
        with self._renewing([lease], step=0) as fenced:
            write_params(fenced, chosen)
        for error in fenced.lost.values():
            raise error
        self._held[lease].params = chosen | self._held[lease].params

    def tell(self, held: Sequence[Lease], kind: str, detail: str) -> Lost:
        """Records an event of trials, such as the step they go on from, or that they start over.

        Args:
            held: The leases the trials are held under; their tokens are checked.
            kind: The kind of event, one of :data:`~tuner.domain.event_kinds.KINDS`.
            detail: A few words about it.

        Returns:
            The errors of lost leases, by trial number.
        """
        worker_id, study_uuid = self._worker.worker_id, self._study.uuid
        with self._renewing(held, step=0) as fenced:
            happened = [
                (lease.number, kind, detail) for lease in held if lease.number in fenced.ids
            ]
            events.record_all(fenced.connection, study_uuid, happened, worker_id=worker_id)
        return fenced.lost

    def renew(self, held: Sequence[Lease], step: int) -> Lost:
        """Makes leases count for longer.

        Args:
            held: The leases the trials are held under; their tokens are checked.
            step: Optimizer steps that each of them has taken.

        Returns:
            The errors of lost leases, by trial number.
        """
        with self._renewing(held, step) as fenced:
            return fenced.lost

    def saved(self, held: Sequence[Lease], step: int) -> Lost:
        """Records that the worker's own checkpoints, named after the tokens, count from now on.

        Args:
            held: The leases the trials are held under; their tokens are checked.
            step: Optimizer steps that each of them had taken when it was written.

        Returns:
            The errors of lost leases, by trial number.
        """
        with self._renewing(held, step, saved=True) as fenced:
            return fenced.lost

    def pause(self, endings: Sequence[TrialEnding], step: int, progress: int) -> Lost:
        """Gives trials up that wait to be promoted; the worker's checkpoints of them count.

        Args:
            endings: How each trial would end as it stands; its attributes are stored.
            step: Optimizer steps that each of them has taken.
            progress: The progress that each of them stands at.

        Returns:
            The errors of lost leases, by trial number.
        """
        held = [ending.lease for ending in endings]
        update = pausing(step, progress, self._lease_s)
        with self._held.fence(self._database, self._study, held, update) as fenced:
            write_attributes(fenced, endings)
            self._settle(fenced, endings)
            happened = [(number, "paused", f"at step {step}") for number in fenced.ids]
            worker_id, study_uuid = self._worker.worker_id, self._study.uuid
            events.record_all(fenced.connection, study_uuid, happened, worker_id=worker_id)
            self._heartbeat.beat(fenced.connection)
        self._held.remove(held)
        return fenced.lost

    def charge_lost(self, kept: Mapping[Lease, int]) -> list[int]:
        """Charges trials for training that was lost and has to be done again.

        A trial that the budget has no room for any more is ended as it stands. A study without a
        budget in full trials charges nothing.

        Args:
            kept: The number of evaluations that each trial goes on from, by its lease: those it
                has reported beyond are lost.

        Returns:
            The numbers of the trials that were ended, ascending.
        """
        with self._database.write() as connection:
            study_row = self._lock(connection)
            ended = charge_lost(connection, study_row, kept) if self._charges else []
        self._held.remove([lease for lease in kept if lease.number in ended])
        return ended

    def finish(self, endings: Sequence[TrialEnding]) -> Lost:
        """Ends trials and deletes their leases.

        Args:
            endings: One ending a trial.

        Returns:
            The errors of lost leases, by trial number.
        """
        held = [ending.lease for ending in endings]
        with self._held.fence(self._database, self._study, held, DELETION) as fenced:
            write_endings(fenced, endings)
            self._settle(fenced, endings)
            happened = [
                (ending.lease.number, "finished", _tell_ending(ending))
                for ending in endings
                if ending.lease.number in fenced.ids
            ]
            worker_id, study_uuid = self._worker.worker_id, self._study.uuid
            events.record_all(fenced.connection, study_uuid, happened, worker_id=worker_id)
            self._heartbeat.beat(fenced.connection)
        self._held.remove(held)
        return fenced.lost

    def release(self, held: Sequence[Lease]) -> None:
        """Gives trials back unfinished, for the next worker that asks; lost ones are left alone."""
        worker_id, study_uuid = self._worker.worker_id, self._study.uuid
        with self._database.write() as connection:
            numbers = release(connection, study_uuid, held)
            happened = [(number, "released", "") for number in numbers]
            events.record_all(connection, study_uuid, happened, worker_id=worker_id)
            self._heartbeat.beat(connection)
        self._held.remove(held)

    def _hold(self, leases: Sequence[tuple[Lease, int]]) -> list[Lease]:
        """Keeps leases that have been written, each with its trial's id in Optuna's tables."""
        for lease, trial_id in leases:
            self._held.add(lease, trial_id)
        return [lease for lease, _ in leases]

    def _settle(self, fenced: Fenced, endings: Sequence[TrialEnding]) -> None:
        """Charges trials that have paused or ended for what they have trained."""
        trained = {
            ending.lease.number: share_trained(ending.attributes)
            for ending in endings
            if ending.lease.number in fenced.ids
        }
        if self._charges:
            settle(fenced.connection, self._study.uuid, trained)

    def _lock(self, connection: sa.Connection) -> StudyRow:
        study_row = lock(connection, self._study)
        self._charges = study_row.full_trials is not None
        if study_row.study_id != self._study.study_id:
            # A copy of it is refused where a worker enters, so this one was renamed.
            self._study = replace(self._study, study_id=study_row.study_id)
        return study_row

    @contextlib.contextmanager
    def _renewing(
        self, held: Sequence[Lease], step: int, *, saved: bool = False
    ) -> Iterator[Fenced]:
        update = renewal(step, self._lease_s, saved=saved)
        with self._held.fence(self._database, self._study, held, update) as fenced:
            yield fenced
            self._heartbeat.beat_if_due(fenced.connection)


def _tell_ending(ending: TrialEnding) -> str:
    """Returns how a trial ended, as its event tells it: its outcome, and its value if any."""
    outcome = to_outcome(ending.state, ending.attributes).value
    return outcome if ending.value is None else f"{outcome}, {ending.value:.6g}"
