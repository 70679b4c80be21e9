"""The ledger: a worker starts, takes over and promotes trials by it, and writes about them.

The budget is counted from the trials themselves in the transaction that starts some.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Collection, Sequence
from typing import Any

import sqlalchemy as sa
from optuna.trial import FrozenTrial

from tuner.domain.states import StudyState
from tuner.store import events
from tuner.store.connection.database import Database
from tuner.store.connection.retries import Clock
from tuner.store.identity import StudyHandle, StudyRow, look_up
from tuner.store.leases.budget import (
    count_left,
    count_started_since_resumed,
    record_exhausted,
)
from tuner.store.leases.charges import WHOLE, charge, find_fitting
from tuner.store.leases.holder import Holder
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
)
from tuner.store.leases.takeover import TakeOverResult, record_taking, take_over
from tuner.store.leases.workers import WorkerIdentity
from tuner.store.optuna import tables as ot


class Ledger(Holder):
    """Starts, takes over and promotes the trials that a worker then holds.

    Args:
        database: As for :class:`Holder`.
        study: Likewise.
        worker: Likewise.
        lease_s: Likewise.
        clock: Likewise.
    """

    def __init__(
        self,
        database: Database,
        study: StudyHandle,
        worker: WorkerIdentity,
        lease_s: float = LEASE_S,
        clock: Clock = time.monotonic,
    ) -> None:
        super().__init__(database, study, worker, lease_s, clock)
        self._openings_started = 0

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
                self._openings_started = count_openings(connection, study_row)
            left -= _is_due(connection, study_row, closing)
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
            if others or not _is_due(connection, study_row, closing):
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
            kept = WHOLE if _is_due(connection, study_row, closing) else 0.0
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
            if not self._lock(connection).ends_early:
                return False  # its budget has been changed meanwhile
            started = count_started_since_resumed(connection, self._study.uuid)
            if started is not None and started < after:
                return False
            record_exhausted(connection, self._study.uuid, self._worker.worker_id, reason)
        return True


def _is_due(connection: sa.Connection, study_row: StudyRow, closing: FrozenTrial | None) -> bool:
    """Tells whether a study is yet to end with a trial, which no other of it has been like."""
    return closing is not None and not has_started(connection, study_row.study_id, closing)
