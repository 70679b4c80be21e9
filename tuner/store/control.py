"""The control of a study from outside: pause, resume, stop, repair, ask workers to leave.

Workers read these signals through :mod:`tuner.store.leases.signals`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from tuner.domain.states import StudyState
from tuner.errors import StorageError
from tuner.store import events
from tuner.store.connection.database import Database
from tuner.store.identity import STATE, StudyHandle, StudyRow, lock, look_up, set_attribute
from tuner.store.leases.budget import find_exhausted
from tuner.store.leases.rows import (
    LEASE_S,
    assume_alive,
    cut_leases,
    find_running,
    is_abandoned,
    lock_leases,
    read_leases,
)
from tuner.store.leases.takeover import TakeOver, TakeOverResult, take_over
from tuner.store.optuna import tables as ot
from tuner.store.tables import DatabaseClock, leases, workers

_EVENTS = {
    StudyState.RUNNING: "resumed",
    StudyState.PAUSED: "paused",
    StudyState.STOPPED: "stopped",
}


@dataclass(frozen=True)
class Repair:
    """A trial that :func:`repair` has put in order.

    Attributes:
        number: The trial's number.
        action: "freed" for the next worker, "failed", "ended" since the study was stopped, or
            "forgotten" since it is over.
        detail: The reason, in a few words.
    """

    number: int
    action: str
    detail: str


def read_state(database: Database, study: StudyHandle) -> StudyState:
    """Returns whether a study runs, is paused or was stopped.

    Raises:
        NotFoundError: If it has been deleted.
    """
    with database.read() as connection:
        return look_up(connection, study).state


def set_state(database: Database, study: StudyHandle, state: StudyState) -> StudyState:
    """Makes a study go on, wait or end; its workers read it within seconds.

    Args:
        database: The study's database.
        study: The study.
        state: RUNNING to go on, also after a stop. PAUSED: nothing new starts, trials in training
            will be saved and given back, and workers wait. STOPPED: nothing new starts, trials in
            training end with their last evaluation, those that nobody holds at once, and workers
            end.

    Returns:
        The state before; a study with nothing left to try counts as stopped.

    Raises:
        NotFoundError: If the study has been deleted.
    """
    with database.write() as connection:
        study_row = lock(connection, study)
        before = _state_before(study_row, state)
        if before is StudyState.RUNNING and find_exhausted(connection, study.uuid) is not None:
            before = StudyState.STOPPED
        if before is state:
            return before
        set_attribute(connection, study_row.study_id, STATE, state.value)
        events.record(connection, study.uuid, _EVENTS[state])
        if state is StudyState.STOPPED:
            stopped = look_up(connection, study)
            rows = read_leases(connection, study.uuid)
            found = [row.number for row in rows if is_abandoned(row, assume_alive, stopped=True)]
            locked = lock_leases(connection, stopped, found)
            left = [row for row in locked if is_abandoned(row, assume_alive, stopped=True)]
            take_over(connection, stopped, left)
    return before


def _state_before(study_row: StudyRow, state: StudyState) -> StudyState:
    """Returns the state of a study; for a damaged one, a state other than the one it is given."""
    try:
        return study_row.state
    except StorageError:
        return StudyState.RUNNING if state is not StudyState.RUNNING else StudyState.PAUSED


def ask_to_leave(
    database: Database, study: StudyHandle, worker_ids: Sequence[str] | None = None
) -> int:
    """Asks workers to save and give back the trials they train, and to end.

    Args:
        database: The study's database.
        study: The study.
        worker_ids: The workers to ask; None for all that were seen within the last
            :data:`~tuner.store.leases.rows.LEASE_S` seconds.

    Returns:
        The number of workers asked that had not been asked before.
    """
    asked = sa.update(workers).where(workers.c.study_uuid == study.uuid, workers.c.leaving == 0)
    if worker_ids is None:
        asked = asked.where(workers.c.last_seen > DatabaseClock() - LEASE_S)
    else:
        asked = asked.where(workers.c.worker_id.in_(worker_ids))
    with database.write() as connection:
        return connection.execute(asked.values(leaving=1)).rowcount


def repair(database: Database, study: StudyHandle, is_dead: Callable[[str], bool]) -> list[Repair]:
    """Frees or ends the trials that dead workers left behind, without waiting for another worker.

    Trials of dead or silent workers are freed for the next worker, at the cost of an attempt, and
    failed where that was the last. A trial that runs and that nobody has a lease on is failed, and
    the lease of a trial that is over is deleted.

    Args:
        database: The study's database.
        study: The study.
        is_dead: Returns for a worker's id whether its process is known to have died.

    Returns:
        The trials put in order, by number.

    Raises:
        NotFoundError: If the study has been deleted.
    """
    with database.write() as connection:
        study_row = lock(connection, study)
        cut_leases(connection, study.uuid, study.spec.train.stall_s)
        found = _lock_repairable(connection, study_row, is_dead)
        done = [_describe(each) for each in take_over(connection, study_row, found)]
        done += _fail_unheld(connection, study_row.study_id, study.uuid)
        happened = [(each.number, "repaired", f"{each.action}: {each.detail}") for each in done]
        events.record_all(connection, study.uuid, happened)
    return sorted(done, key=lambda repaired: repaired.number)


def _lock_repairable(
    connection: sa.Connection, study_row: StudyRow, is_dead: Callable[[str], bool]
) -> list[sa.Row[Any]]:
    """Locks and returns the leases of trials that are over, or left behind by their workers."""

    def is_left(row: sa.Row[Any]) -> bool:
        stopped = study_row.state is StudyState.STOPPED
        free = row.worker_id is None and not stopped
        return not free and is_abandoned(row, is_dead, stopped=stopped)

    rows = read_leases(connection, study_row.uuid)
    running = find_running(connection, study_row.study_id, [row.number for row in rows])
    found = [row.number for row in rows if row.number not in running or is_left(row)]
    locked = lock_leases(connection, study_row, found)
    return [row for row in locked if row.trial_id is None or is_left(row)]


def _describe(taken: TakeOver) -> Repair:
    row = taken.row
    match taken.result:
        case TakeOverResult.TAKEN:
            gone = "was silent for too long" if row.expired else "has died"
            return Repair(row.number, "freed", f"its worker {gone}, at step {row.step}")
        case TakeOverResult.FAILED:
            return Repair(row.number, "failed", f"{row.attempts} attempts at step {row.step}")
        case TakeOverResult.STOPPED:
            return Repair(row.number, "ended", "the study was stopped")
        case TakeOverResult.UNPROMOTED | TakeOverResult.UNAFFORDABLE:
            return Repair(row.number, "ended", "the budget has no room for it any more")
        case TakeOverResult.OVER:
            return Repair(row.number, "forgotten", "it is over, or not there any more")


def _fail_unheld(connection: sa.Connection, study_id: int, study_uuid: str) -> list[Repair]:
    held = sa.select(leases.c.number).where(leases.c.study_uuid == study_uuid)
    rows = connection.execute(
        sa.select(ot.trials.c.trial_id, ot.trials.c.number).where(
            ot.trials.c.study_id == study_id,
            ot.trials.c.state == TrialState.RUNNING,
            ot.trials.c.number.not_in(held),
        )
    ).all()
    detail = "it was running and nobody had a lease on it"
    error = f"Abandoned: {detail}."
    ot.set_attributes(connection, [(row.trial_id, "error", error) for row in rows])
    ot.finish_trials(connection, [(row.trial_id, TrialState.FAIL, None) for row in rows])
    return [Repair(row.number, "failed", detail) for row in rows]
