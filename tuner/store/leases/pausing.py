"""Paused trials: nobody holds them, and each waits until it is promoted or its study ends it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tuner.domain.states import StudyState
from tuner.store import events
from tuner.store.identity import StudyRow
from tuner.store.leases.budget import is_out_of_time, is_used_up
from tuner.store.leases.charges import charge
from tuner.store.leases.heartbeat import Alive
from tuner.store.leases.rows import Lease, lease_columns, lock_leases, new_token, read_leases
from tuner.store.leases.takeover import TakeOver, TakeOverResult, end_left, hand_over
from tuner.store.optuna import tables as ot
from tuner.store.tables import leases


@dataclass(frozen=True)
class PausedTrial:
    """A trial that waits to be promoted.

    Attributes:
        number: Its number in its study.
        token: The token of its last holder; whoever promotes it gives it another.
        step: Optimizer steps that it has taken.
        progress: The progress that it stands at.
    """

    number: int
    token: str
    step: int
    progress: int


@dataclass(frozen=True)
class PausedTrials:
    """The paused trials of a study at one moment.

    Attributes:
        trials: The trials by number.
        alone: Whether there are no other unfinished ones, so that nothing new is reported.
    """

    trials: Mapping[int, PausedTrial]
    alone: bool

    def standing(self) -> dict[int, int]:
        """Returns the progress that each trial stands at, by number."""
        return {trial.number: trial.progress for trial in self.trials.values()}


def read_paused(connection: sa.Connection, study_uuid: str) -> PausedTrials:
    """Returns the paused trials of a study."""
    rows = connection.execute(
        sa.select(*lease_columns).where(leases.c.study_uuid == study_uuid).order_by(leases.c.number)
    ).all()
    paused = {
        row.number: PausedTrial(row.number, row.token, row.step, row.paused)
        for row in rows
        if row.paused
    }
    return PausedTrials(paused, alone=len(paused) == len(rows))


def promote(
    connection: sa.Connection,
    study_row: StudyRow,
    numbers: Sequence[int],
    at_most: int,
    *,
    worker: Alive,
    lease_s: float,
) -> list[tuple[Lease, int]]:
    """Gives a worker those trials that are still paused, at no cost of an attempt.

    Args:
        connection: A transaction that has locked the study.
        study_row: The study.
        numbers: The numbers of the trials, the first to be promoted first.
        at_most: The most trials to promote.
        worker: The worker.
        lease_s: Seconds that the new leases count.

    Returns:
        The leases, each with its trial's id in Optuna's tables; none if the study does not run, or
        its wall time is used up.
    """
    if study_row.state is not StudyState.RUNNING or is_out_of_time(connection, study_row, worker):
        return []
    rows = {row.number: row for row in lock_leases(connection, study_row, numbers)}
    waiting = [rows[number] for number in numbers if number in rows and rows[number].paused]
    end_left(connection, study_row, [_ended(row) for row in waiting if row.trial_id is None])
    chosen = [row for row in waiting if row.trial_id is not None][:at_most]
    promoted = [
        Lease(row.number, new_token(), row.attempts, row.checkpoint, row.step) for row in chosen
    ]
    hand_over(connection, study_row.uuid, promoted, worker.worker_id, lease_s)
    charge(connection, study_row, [lease.number for lease in promoted])
    happened = [(lease.number, "promoted", f"at step {lease.step}") for lease in promoted]
    events.record_all(connection, study_row.uuid, happened, worker_id=worker.worker_id)
    return [(lease, row.trial_id) for lease, row in zip(promoted, chosen, strict=True)]


def end_paused(
    connection: sa.Connection, study_row: StudyRow, paused: Collection[PausedTrial], alive: Alive
) -> list[int]:
    """Ends the paused trials of a study that can promote none any more, each with its last report.

    Nothing is ended unless they are all of its unfinished trials, nobody has promoted one since
    they were read, and its budget is used up: then no evaluation can come that would let one go on.

    Args:
        connection: A transaction that has locked the study.
        study_row: The study.
        paused: The paused trials as they were when none of them was found to be promotable.
        alive: The worker that asks.

    Returns:
        The numbers of the trials that were ended, ascending.
    """
    if study_row.state is not StudyState.RUNNING or not paused:
        return []
    started = ot.count_trials(connection, study_row.study_id)
    if not is_used_up(connection, study_row, started, alive):
        return []
    numbers = [row.number for row in read_leases(connection, study_row.uuid)]
    rows = lock_leases(connection, study_row, numbers)
    seen = {(trial.number, trial.token) for trial in paused}
    if {(row.number, row.token) for row in rows if row.paused} != seen or len(rows) != len(seen):
        return []
    end_left(connection, study_row, [_ended(row) for row in rows])
    return [row.number for row in rows]


def _ended(row: sa.Row[Any]) -> TakeOver:
    over = row.trial_id is None
    result = TakeOverResult.OVER if over else TakeOverResult.UNPROMOTED
    return TakeOver(row, Lease(row.number, row.token, row.attempts), result)
