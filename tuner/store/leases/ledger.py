"""The ledger: a worker starts, reports and ends its trials through it, under leases.

A worker holds a trial under a lease: a token, and a time until which it counts. Every write about a
trial checks its token in the same transaction, so a worker that lost a lease, because it hung or
the network was gone, can write nothing more about that trial. The budget is counted from the trials
themselves in the transaction that starts some.

Every operation takes any number of trials, in the same few statements: a trial that trains alone is
a group of one.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial

from tuner.domain.catalog.dimensions import Value
from tuner.domain.lengths import share_trained
from tuner.domain.states import StudyState
from tuner.errors import LeaseLostError
from tuner.store import events
from tuner.store.connection.database import Database
from tuner.store.connection.retries import Clock
from tuner.store.identity import StudyHandle, StudyRow, lock, look_up, refuse_copy
from tuner.store.leases.budget import (
    count_left,
    count_started_since_resumed,
    record_exhausted,
)
from tuner.store.leases.charges import WHOLE, charge, find_fitting, settle
from tuner.store.leases.fencing import DELETION, Fenced, HeldLeases, pausing, renewal
from tuner.store.leases.heartbeat import Heartbeat
from tuner.store.leases.pausing import (
    PausedTrial,
    PausedTrials,
    end_paused,
    promote,
    read_paused,
)
from tuner.store.leases.reruns import count_openings, has_started
from tuner.store.leases.rows import (
    LEASE_S,
    Lease,
    count_leases,
    detect_clock_jump,
    grant,
    is_abandoned,
    lock_leases,
    read_leases,
    release,
)
from tuner.store.leases.signals import ControlSignals, read_signals
from tuner.store.leases.takeover import TakeOverResult, charge_lost, record_taking, take_over
from tuner.store.leases.trial_reports import (
    TrialEnding,
    TrialReport,
    write_attributes,
    write_endings,
    write_params,
    write_reports,
)
from tuner.store.leases.workers import WorkerIdentity, enter, refuse_second_machine
from tuner.store.optuna import tables as ot

Lost = dict[int, LeaseLostError]
"""The errors of lost leases, by trial number: each says why the worker no longer holds the trial.

It belongs to another worker by now, or was ended or deleted.
"""


class Ledger:
    """Records the trials of one worker in a study.

    Operations that write about trials return the lost leases, and write about all other trials.

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
        self._heartbeat = Heartbeat(database, worker.worker_id, clock)
        self._openings_started = 0
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

    # Trials are started, or taken over.

    def start(
        self,
        openings: Sequence[FrozenTrial],
        proposals: Sequence[FrozenTrial],
        at_most: int | None = None,
        *,
        closing: FrozenTrial | None = None,
        given_up: Collection[int] = (),
    ) -> list[Lease]:
        """Starts trials if the study goes on, as many as its budget allows.

        Args:
            openings: The trials a study starts with, in order; those not run yet come first.
            proposals: The trials to start once all openings have started, in order.
            at_most: The most trials to start; None for as many as there are proposals.
            closing: The trial that the study is to end with, by :meth:`close`: one trial of the
                budget is left for it. None to leave none.
            given_up: The numbers of the paused trials that need not be completed; of a budget in
                full trials, enough is left for all others.

        Returns:
            The leases, in the order of the trials; none if the budget of trials, training or wall
            time is used up, or the study is paused or stopped.

        Raises:
            NotFoundError: If the study has been deleted.
        """
        with self._database.write() as connection:
            study_row = self._lock(connection)
            alive = self._heartbeat.alive
            left = count_left(connection, study_row, alive, given_up=given_up)
            if not left:
                return []
            # Openings only become more: all others wait for this lock, so nothing is asked twice.
            if self._openings_started < len(openings):
                self._openings_started = count_openings(connection, study_row.study_id)
            if closing is not None and not has_started(connection, study_row.study_id, closing):
                left -= 1
            wanted = len(proposals) if at_most is None else at_most
            templates = [*openings[self._openings_started :], *proposals][: min(wanted, left)]
            started = self._insert(connection, study_row, templates)
        return self._hold(started)

    def close(self, closing: FrozenTrial) -> list[Lease]:
        """Starts the trial that a study ends with, once no other is left to train.

        Args:
            closing: The trial.

        Returns:
            Its lease; none if one of its configuration has started, another trial trains or is left
            behind, or nothing may start. It may where nothing else is left to try.
        """
        with self._database.write() as connection:
            study_row = self._lock(connection)
            if not count_left(connection, study_row, self._heartbeat.alive, exhausted=True):
                return []
            others = count_leases(connection, self._study.uuid, paused=False)
            if others or has_started(connection, study_row.study_id, closing):
                return []
            started = self._insert(connection, study_row, [closing])
        return self._hold(started)

    def _insert(
        self, connection: sa.Connection, study_row: StudyRow, templates: Sequence[FrozenTrial]
    ) -> list[tuple[Lease, int]]:
        """Writes new trials and their leases; returns these, each with its trial's id."""
        worker_id = self._worker.worker_id
        ids = ot.insert_trials(connection, study_row.study_id, templates)
        numbers = [number for _, number in ids]
        granted = grant(connection, study_row.uuid, numbers, worker_id, self._lease_s)
        charge(connection, study_row, numbers)
        happened = [(number, "started", "") for number in numbers]
        events.record_all(connection, study_row.uuid, happened, worker_id=worker_id)
        self._heartbeat.beat_if_due(connection)
        return [(lease, trial_id) for lease, (trial_id, _) in zip(granted, ids, strict=True)]

    def _hold(self, leases: Sequence[tuple[Lease, int]]) -> list[Lease]:
        """Keeps leases that have been written, each with its trial's id in Optuna's tables."""
        for lease, trial_id in leases:
            self._held.add(lease, trial_id)
        return [lease for lease, _ in leases]

    def take_over(
        self, is_dead: Callable[[str], bool], *, expired: bool = True, at_most: int
    ) -> list[Lease]:
        """Takes trials that nobody works on any more: released, expired, or their worker dead.

        So are those that this worker started without hearing of it, since the connection was lost.
        All trials taken stand at one step, that of the first to be found; those at other steps
        are left for the next worker that asks. A trial that was tried
        :data:`~tuner.store.leases.takeover.MAX_ATTEMPTS` times without getting further is failed,
        and in a stopped study all of them end as they are, paused ones too, which are left alone
        else. In a paused study all are left alone.

        Args:
            is_dead: Returns for a worker's id whether its process is known to have died.
            expired: Whether an expired lease counts as left behind; not so right after the
                database was away, or its clock has jumped, when nobody could renew theirs.
            at_most: The most trials to take.

        Returns:
            The leases by number, none if there is no such trial.
        """
        with self._database.read() as connection:
            rows = read_leases(connection, self._study.uuid)
            state = look_up(connection, self._study).state if rows else StudyState.RUNNING
        longest_s = max(self._lease_s, self._study.spec.train.stall_s)
        jumped = detect_clock_jump(self._database, self._study, rows, longest_s)
        if state is StudyState.PAUSED:
            return []
        knows_dead = functools.cache(is_dead)

        def is_left(row: sa.Row[Any], stopped: bool) -> bool:
            return self._is_unconfirmed(row) or is_abandoned(
                row, knows_dead, expired=expired and not jumped, stopped=stopped
            )

        found = [row for row in rows if is_left(row, state is StudyState.STOPPED)]
        while found:
            group = [row for row in found if row.step == found[0].step][:at_most]
            taken = self._take([row.number for row in group], is_left)
            if taken:
                return taken
            found = [row for row in found if row not in group]
        return []

    def _is_unconfirmed(self, row: sa.Row[Any]) -> bool:
        """Tells whether this worker started the trial, but the answer was lost on its way."""
        return row.worker_id == self._worker.worker_id and row.token not in self._held

    def _take(
        self, numbers: Sequence[int], is_left: Callable[[sa.Row[Any], bool], bool]
    ) -> list[Lease]:
        """Takes those trials that are still left behind once they are locked."""
        worker_id = self._worker.worker_id
        with self._database.write() as connection:
            study_row = self._lock(connection)
            if study_row.state is StudyState.PAUSED:
                return []
            stopped = study_row.state is StudyState.STOPPED
            locked = lock_leases(connection, study_row, numbers)
            rows = [row for row in locked if is_left(row, stopped)]
            takeovers = take_over(
                connection, study_row, rows, worker_id=worker_id, lease_s=self._lease_s
            )
            taken = [each for each in takeovers if each.result is TakeOverResult.TAKEN]
            record_taking(connection, study_row.uuid, taken, worker_id)
            if taken:
                self._heartbeat.beat(connection)
        return self._hold([(each.lease, each.row.trial_id) for each in taken])

    # Paused trials wait to be promoted.

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

    def read_paused(self) -> PausedTrials:
        """Returns the paused trials of the study."""
        with self._database.read() as connection:
            return read_paused(connection, self._study.uuid)

    def promote(
        self,
        numbers: Sequence[int],
        at_most: int,
        *,
        closing: FrozenTrial | None = None,
        given_up: Collection[int] | None = None,
    ) -> list[Lease]:
        """Takes trials that are still paused, to go on with them.

        Args:
            numbers: The numbers of the trials, the first to be promoted first.
            at_most: The most trials to take.
            closing: As for :meth:`start`.
            given_up: Likewise; None where these are the trials that a study completes at its end,
                so that they may take what is left.

        Returns:
            The leases; none if the study does not run, or its wall time is used up. Of a budget in
            full trials, only those are taken that it has room for.
        """
        with self._database.write() as connection:
            study_row = self._lock(connection)
            closes = closing is not None and not has_started(
                connection, study_row.study_id, closing
            )
            kept = WHOLE if closes else 0.0
            promoted = promote(
                connection,
                study_row,
                find_fitting(connection, study_row, numbers, given_up, kept=kept),
                at_most,
                worker=self._heartbeat.alive,
                lease_s=self._lease_s,
            )
            if promoted:
                self._heartbeat.beat(connection)
        return self._hold(promoted)

    def end_paused(self, paused: Collection[PausedTrial]) -> list[int]:
        """Ends the paused trials, once no new trial may start and none of them may go on.

        Args:
            paused: The paused trials as they were when none of them was found to be promotable.

        Returns:
            The numbers of those that were ended, by :func:`tuner.store.leases.pausing.end_paused`.
        """
        with self._database.write() as connection:
            ended = end_paused(connection, self._lock(connection), paused, self._heartbeat.alive)
            if ended:
                self._heartbeat.beat(connection)
        return ended

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

    # Trials in training write under their leases.

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
            kind: The kind of event, one of :data:`tuner.store.events.KINDS`.
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

    # The worker and its study.

    def is_alone(self) -> bool:
        """Tells whether no trial of the study is in training or left behind; some may be paused."""
        with self._database.read() as connection:
            return not count_leases(connection, self._study.uuid, paused=False)

    def exhaust(self, reason: str) -> None:
        """Records, once, that nothing is left to try, so that no worker starts anything more."""
        with self._database.write() as connection:
            self._lock(connection)
            record_exhausted(connection, self._study.uuid, self._worker.worker_id, reason)

    def end_early(self, reason: str, *, after: int) -> bool:
        """Records, once, that little is left to gain, so that no worker starts anything more.

        Args:
            reason: The reason, in a few words.
            after: Trials that must have started since somebody resumed the study, if ever.

        Returns:
            Whether the study has ended.
        """
        with self._database.write() as connection:
            self._lock(connection)
            started = count_started_since_resumed(connection, self._study.uuid)
            if started is not None and started < after:
                return False
            record_exhausted(connection, self._study.uuid, self._worker.worker_id, reason)
        return True

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
