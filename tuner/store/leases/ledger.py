"""Who holds which trials: a worker's trials started, told and ended in groups.

A worker holds a trial under a lease: a token, and a time until which it counts. Whatever a worker
writes about trials happens in one transaction with a check of their tokens, so a worker that lost
a lease, because it hung or the network was gone, can write nothing more about that trial. The
budget is counted from the trials themselves in the transaction that starts some.

A group may be of any size: each operation is the same few statements.
"""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from optuna.trial import FrozenTrial, TrialState

from tuner.domain.states import StudyState
from tuner.errors import LeaseLostError, SpecError
from tuner.store import events
from tuner.store.connection.database import Database
from tuner.store.connection.retries import Clock
from tuner.store.curves import insert_points
from tuner.store.identity import StudyHandle, StudyRow, lock, look_up, refuse_copy
from tuner.store.leases.fencing import GIVING_UP, Change, Fenced, Hand, renewal
from tuner.store.leases.reruns import count_defaults
from tuner.store.leases.rows import (
    LEASE_S,
    Lease,
    are_of,
    bear_jump,
    count_leases,
    grant,
    is_abandoned,
    lock_leases,
    read_leases,
)
from tuner.store.leases.takeover import Fate, record_taking, seize
from tuner.store.leases.workers import Alive, WorkerIdentity, enter, refuse_second_machine, touch
from tuner.store.optuna import tables as ot
from tuner.store.orders import Orders, find_exhausted, is_used_up, read_orders
from tuner.store.tables import leases

TOUCH_S = 5.0
"""How long a worker that writes all the time may not have been noted as seen, in seconds."""


@dataclass(frozen=True)
class LaneReport:
    """What one trial of a group has to tell.

    Attributes:
        lease: The right to.
        progress: Where its evaluation stands on the axis trials are compared along, None where
            there is none to tell.
        value: The metric of that evaluation.
        logged: (step, name, value) triples; see :mod:`tuner.store.curves`.

    Raises:
        SpecError: If an evaluation lacks its value.
    """

    lease: Lease
    progress: int | None = None
    value: float | None = None
    logged: Sequence[tuple[int, str, float]] = ()

    def __post_init__(self) -> None:
        if self.progress is not None and self.value is None:
            raise SpecError(
                f"Trial {self.lease.number} has no value at {self.progress}: report the metric, "
                "or leave the progress out where there is none."
            )


@dataclass(frozen=True)
class LaneEnding:
    """How one trial of a group ends.

    Attributes:
        lease: The right to end it.
        state: COMPLETE, PRUNED or FAIL.
        value: The metric, if there is one.
        attributes: What is kept with the trial.
    """

    lease: Lease
    state: TrialState
    value: float | None
    attributes: Mapping[str, Any]


class GroupLedger:
    """The leases of one worker on one study, in groups.

    What writes about trials returns, by number, why those are lost that are: they belong to another
    worker by now, or were ended or deleted. The others are written all the same.

    Args:
        database: Where the study is.
        study: The study.
        worker: Who holds the leases.
        lease_s: How long a lease counts without being renewed, in seconds.
        clock: What the worker's life is measured by.
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
        self._hand = Hand()
        self._clock = clock
        self._born_at = clock()
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
        self._born_at = self._clock() - age_s
        with self._database.write() as connection:
            found = self._study
            refuse_copy(connection, found, self._lock(connection).study_id)
            refuse_second_machine(connection, self._worker, self._lease_s)
            return enter(connection, self._study.uuid, self._worker, age_s, derive)

    def start_many(
        self,
        defaults: Sequence[FrozenTrial],
        proposals: Sequence[FrozenTrial],
        at_most: int | None = None,
    ) -> list[Lease]:
        """Starts trials if the study goes on, as many as its budget allows.

        Args:
            defaults: The trials a study starts with, in order; those not run yet come first.
            proposals: What to try once all of them have started, in order.
            at_most: How many to start; None for as many as there are proposals.

        Returns:
            The leases, in the order of the trials; none if the budget of trials or wall time is
            used up, or the study is paused or stopped.

        Raises:
            NotFoundError: If the study has been deleted.
        """
        worker_id, study_uuid = self._worker.worker_id, self._study.uuid
        with self._database.write() as connection:
            study_row = self._lock(connection)
            started = ot.count_trials(connection, study_row.study_id)
            if study_row.state is not StudyState.RUNNING or is_used_up(
                connection, study_row, started, alive=self._alive
            ):
                return []
            # Defaults only become more: all others wait for this lock, so nothing is asked twice.
            if self._begun < len(defaults):
                self._begun = count_defaults(connection, study_row.study_id)
            wanted = len(proposals) if at_most is None else at_most
            room = min(wanted, study_row.trials - started)
            templates = [*defaults[self._begun :], *proposals][:room]
            ids = ot.insert_trials(connection, study_row.study_id, templates, started)
            numbers = [number for _, number in ids]
            granted = grant(connection, study_uuid, numbers, worker_id, self._lease_s)
            happened = [(number, "started", "") for number in numbers]
            events.record_all(connection, study_uuid, happened, worker_id=worker_id)
            self._touch_now_and_then(connection)
        for lease, (trial_id, _) in zip(granted, ids, strict=True):
            self._hand.take(lease, trial_id)
        return granted

    def take_over_many(
        self, is_dead: Callable[[str], bool], *, expired: bool = True, at_most: int
    ) -> list[Lease]:
        """Takes trials that nobody works on any more: released, expired, or their worker dead.

        So are those that this worker started without hearing of it, since the connection was lost.
        All that are taken stand at one step, that of the first to be found; those at other steps
        are left for the next who asks. A trial that was tried
        :data:`~tuner.store.leases.takeover.MAX_ATTEMPTS` times without getting further is failed,
        and in a stopped study all of them end as they are. In a paused one they are left alone.

        Args:
            is_dead: Tells of a worker's id whether its process is known to have died.
            expired: Whether an expired lease counts as left behind; not so right after the
                database was away, or its clock has jumped, when nobody could renew theirs.
            at_most: How many to take.

        Returns:
            The leases by number, none if there is no such trial.
        """
        with self._database.read() as connection:
            rows = read_leases(connection, self._study.uuid)
            paused = bool(rows) and look_up(connection, self._study).state is StudyState.PAUSED
        longest_s = max(self._lease_s, self._study.spec.train.stall_s)
        jumped = bear_jump(self._database, self._study, rows, longest_s)
        if paused:
            return []
        knows_dead = functools.cache(is_dead)

        def is_left(row: sa.Row[Any]) -> bool:
            return self._is_unheard_of(row) or is_abandoned(
                row, knows_dead, expired=expired and not jumped
            )

        found = [row for row in rows if is_left(row)]
        while found:
            group = [row for row in found if row.step == found[0].step][:at_most]
            taken = self._take([row.number for row in group], is_left)
            if taken:
                return taken
            found = [row for row in found if row not in group]
        return []

    def report_many(self, step: int, reports: Sequence[LaneReport]) -> dict[int, LeaseLostError]:
        """Records evaluations of trials, and what they logged since the last ones.

        Args:
            step: Optimizer steps that each has taken.
            reports: What each has to tell.

        Returns:
            Why those are lost that are, by number.
        """
        with self._renewing([report.lease for report in reports], step) as fenced:
            told = [report for report in reports if report.lease.number in fenced.ids]
            evaluated = [
                (report.lease, report.progress, report.value)
                for report in told
                if report.progress is not None and report.value is not None
            ]
            ot.insert_reports(
                fenced.connection,
                [(fenced.ids[lease.number], at, value) for lease, at, value in evaluated],
            )
            logged = [(report.lease.number, report.logged) for report in told]
            insert_points(fenced.connection, self._study.uuid, logged)
        for lease, progress, value in evaluated:
            self._hand[lease].reports[progress] = value
        return fenced.lost

    def tell_many(
        self, those: Sequence[Lease], kind: str, detail: str
    ) -> dict[int, LeaseLostError]:
        """Records what has become of trials: what they go on from, or that they start over.

        Args:
            those: The rights to.
            kind: What, one of :data:`tuner.store.events.KINDS`.
            detail: More about it.

        Returns:
            Why those are lost that are, by number.
        """
        with self._renewing(those, step=0) as fenced:
            happened = [
                (lease.number, kind, detail) for lease in those if lease.number in fenced.ids
            ]
            worker_id, study_uuid = self._worker.worker_id, self._study.uuid
            events.record_all(fenced.connection, study_uuid, happened, worker_id=worker_id)
            return fenced.lost

    def renew_many(self, those: Sequence[Lease], step: int) -> dict[int, LeaseLostError]:
        """Says that trials are still worked on, and have taken so many optimizer steps.

        Returns:
            Why those are lost that are, by number.
        """
        with self._renewing(those, step) as fenced:
            return fenced.lost

    def saved_many(self, those: Sequence[Lease], step: int) -> dict[int, LeaseLostError]:
        """Says that the holder's own checkpoints, named after the tokens, count from now on.

        Args:
            those: The rights to.
            step: Optimizer steps taken when they were written.

        Returns:
            Why those are lost that are, by number.
        """
        with self._renewing(those, step, saved=True) as fenced:
            return fenced.lost

    def finish_many(self, endings: Sequence[LaneEnding]) -> dict[int, LeaseLostError]:
        """Ends trials and gives up their leases.

        Returns:
            Why those are lost that are, by number.
        """
        those = [ending.lease for ending in endings]
        with self._changing(those, GIVING_UP) as fenced:
            ended = [
                (fenced.ids[ending.lease.number], ending)
                for ending in endings
                if ending.lease.number in fenced.ids
            ]
            ot.set_attributes(
                fenced.connection,
                [(i, key, value) for i, end in ended for key, value in end.attributes.items()],
            )
            ot.finish_trials(fenced.connection, [(i, end.state, end.value) for i, end in ended])
            self._touch(fenced.connection)
        self._hand.drop(those)
        return fenced.lost

    def release_many(self, those: Sequence[Lease]) -> None:
        """Gives trials back unfinished, for whoever asks next."""
        worker_id, study_uuid = self._worker.worker_id, self._study.uuid
        with self._database.write() as connection:
            released = connection.execute(
                sa.update(leases)
                .where(*are_of(study_uuid, those))
                .values(worker_id=None)
                .returning(leases.c.number)
            ).scalars()
            happened = [(number, "released", "") for number in sorted(released)]
            events.record_all(connection, study_uuid, happened, worker_id=worker_id)
            self._touch(connection)
        self._hand.drop(those)

    def is_alone(self) -> bool:
        """Tells whether no trial of the study is in training or left behind."""
        with self._database.read() as connection:
            return not count_leases(connection, self._study.uuid)

    def exhaust(self, reason: str) -> None:
        """Says, once, that nothing is left to try: no worker starts anything more."""
        with self._database.write() as connection:
            self._lock(connection)
            if find_exhausted(connection, self._study.uuid) is None:
                by = self._worker.worker_id
                events.record(
                    connection, self._study.uuid, "exhausted", worker_id=by, detail=reason
                )

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
            return read_orders(connection, self._study, self._alive)

    @property
    def _alive(self) -> Alive:
        return Alive(self._worker.worker_id, max(0.0, self._clock() - self._born_at))

    def _is_unheard_of(self, row: sa.Row[Any]) -> bool:
        """Tells whether this worker started it without hearing of it."""
        return row.worker_id == self._worker.worker_id and row.token not in self._hand

    def _take(self, numbers: Sequence[int], is_left: Callable[[sa.Row[Any]], bool]) -> list[Lease]:
        """Takes those trials that are still left behind once they are locked."""
        worker_id = self._worker.worker_id
        with self._database.write() as connection:
            study_row = self._lock(connection)
            if study_row.state is StudyState.PAUSED:
                return []
            rows = [row for row in lock_leases(connection, study_row, numbers) if is_left(row)]
            seized = seize(connection, study_row, rows, worker_id=worker_id, lease_s=self._lease_s)
            taken = [each for each in seized if each.fate is Fate.TAKEN]
            record_taking(connection, study_row.uuid, taken, worker_id)
            if taken:
                self._touch(connection)
        for each in taken:
            self._hand.take(each.lease, each.row.trial_id)
        return [each.lease for each in taken]

    def _lock(self, connection: sa.Connection) -> StudyRow:
        study_row = lock(connection, self._study)
        if study_row.study_id != self._study.study_id:
            # A copy of it is refused where a worker enters, so this one was renamed.
            self._study = replace(self._study, study_id=study_row.study_id)
        return study_row

    @contextlib.contextmanager
    def _renewing(
        self, those: Sequence[Lease], step: int, *, saved: bool = False
    ) -> Iterator[Fenced]:
        with self._changing(those, renewal(step, self._lease_s, saved=saved)) as fenced:
            yield fenced
            self._touch_now_and_then(fenced.connection)

    def _changing(
        self, those: Sequence[Lease], change: Change
    ) -> contextlib.AbstractContextManager[Fenced]:
        return self._hand.changing(self._database, self._study, those, change)

    def _touch_now_and_then(self, connection: sa.Connection) -> None:
        if self._clock() - self._touched_at > TOUCH_S:
            self._touch(connection)

    def _touch(self, connection: sa.Connection) -> None:
        now_s = touch(connection, self._alive)
        if now_s is not None:
            self._database.hear_clock(now_s)
        self._touched_at = self._clock()
