"""Trials taken from who is gone: what becomes of them, and what is told of it."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from tuner.domain.states import StudyState
from tuner.store import events
from tuner.store.identity import StudyRow
from tuner.store.leases.rows import LASTING_S, UNTIL, Lease, new_token
from tuner.store.optuna import tables as ot
from tuner.store.tables import leases

MAX_ATTEMPTS = 3
"""How often a trial is tried without getting further before it is failed."""

_TOLD = 6
"""How many events a failed trial's error tells."""

_IF_HUNG = (
    "If they hung in a long evaluation: call run.alive() there now and then, or raise "
    "train.stall_s."
)


class Fate(StrEnum):
    """What becomes of a trial that is taken from who held it."""

    TAKEN = "taken"
    """It can be worked on."""

    FAILED = "failed"
    """It had been tried too often."""

    STOPPED = "stopped"
    """The study was stopped, so it ends with what it has."""

    OVER = "over"
    """It is not running: it ended otherwise, or is not there any more."""


@dataclass(frozen=True)
class Seized:
    """A trial taken from who held it.

    Attributes:
        row: Its lease as it was.
        lease: Its lease by now, gone again unless it is taken.
        fate: What became of it.
    """

    row: sa.Row[Any]
    lease: Lease
    fate: Fate


def seize(
    connection: sa.Connection,
    study_row: StudyRow,
    rows: Sequence[sa.Row[Any]],
    *,
    worker_id: str | None = None,
    lease_s: float = 0.0,
) -> list[Seized]:
    """Takes trials from whoever held them, in a few statements however many they are.

    Where its holder was another worker, that costs a trial an attempt. One that cannot be worked
    on any more is ended instead: one that has been tried too often, and any in a study that was
    stopped. Of one that is over already the lease goes.

    Args:
        connection: In a transaction that has locked the study.
        study_row: The study.
        rows: The leases as :func:`tuner.store.leases.rows.lock_leases` returns them.
        worker_id: Who takes them, None to give them back for anyone.
        lease_s: How long the leases count, in seconds.

    Returns:
        What became of each.
    """
    seized = []
    for row in rows:
        attempt = row.attempts + (row.worker_id not in (None, worker_id))
        lease = Lease(row.number, new_token(), attempt, row.checkpoint, row.step)
        seized.append(Seized(row, lease, _judge(study_row, row, attempt)))
    taken = [each.lease for each in seized if each.fate is Fate.TAKEN]
    _hand_over(connection, study_row.uuid, taken, worker_id, lease_s)
    _end(connection, study_row.uuid, [each for each in seized if each.fate is not Fate.TAKEN])
    return seized


def record_taking(
    connection: sa.Connection, study_uuid: str, taken: Sequence[Seized], worker_id: str
) -> None:
    """Records who takes trials from another worker, or is the first to train them.

    Of one that was given back, what it goes on from is told once that is known: see
    :meth:`~tuner.store.leases.ledger.GroupLedger.tell_many`.
    """
    happened = []
    for each in taken:
        row, lease = each.row, each.lease
        if row.worker_id is not None:
            attempt = [f"attempt {lease.attempt}"] if lease.attempt > 1 else []
            detail = ", ".join([*attempt, f"at step {row.step}"])
            happened.append((lease.number, "taken_over", detail))
        elif not lease.begun:
            happened.append((lease.number, "started", ""))
    events.record_all(connection, study_uuid, happened, worker_id=worker_id)


def _judge(study_row: StudyRow, row: sa.Row[Any], attempt: int) -> Fate:
    if row.trial_id is None:
        return Fate.OVER
    if study_row.state is StudyState.STOPPED:
        return Fate.STOPPED
    return Fate.FAILED if attempt > MAX_ATTEMPTS else Fate.TAKEN


def _hand_over(
    connection: sa.Connection,
    study_uuid: str,
    taken: Sequence[Lease],
    worker_id: str | None,
    lease_s: float,
) -> None:
    if not taken:
        return
    connection.execute(
        sa.update(leases)
        .where(leases.c.study_uuid == study_uuid, leases.c.number == sa.bindparam("of_number"))
        .values(
            token=sa.bindparam("new_token"),
            worker_id=worker_id,
            expires_at=UNTIL,
            attempts=sa.bindparam("attempt"),
        ),
        [
            {
                "of_number": lease.number,
                "new_token": lease.token,
                "attempt": lease.attempt,
                LASTING_S.key: lease_s,
            }
            for lease in taken
        ],
    )


def _end(connection: sa.Connection, study_uuid: str, ended: Sequence[Seized]) -> None:
    """Ends trials that nobody holds, those that are not failed with their last evaluation."""
    if not ended:
        return
    stopped = [each.row for each in ended if each.fate is Fate.STOPPED]
    failed = [each.row for each in ended if each.fate is Fate.FAILED]
    values = ot.read_last_reports(connection, [row.trial_id for row in stopped])
    errors = _tell_attempts(connection, study_uuid, failed)
    attributes = [
        *((row.trial_id, "stopped_by", "stop") for row in stopped),
        *((row.trial_id, "error", errors[row.number]) for row in failed),
        *((row.trial_id, "steps", row.step) for row in (*stopped, *failed)),
    ]
    ot.set_attributes(connection, attributes)
    ot.finish_trials(
        connection,
        [
            *((row.trial_id, TrialState.PRUNED, values.get(row.trial_id)) for row in stopped),
            *((row.trial_id, TrialState.FAIL, None) for row in failed),
        ],
    )
    numbers = [each.row.number for each in ended]
    connection.execute(
        sa.delete(leases).where(leases.c.study_uuid == study_uuid, leases.c.number.in_(numbers))
    )
    happened = [
        (
            row.number,
            "failed_attempts",
            f"{row.attempts} attempts did not get past step {row.step}",
        )
        for row in failed
    ]
    events.record_all(connection, study_uuid, happened)


def _tell_attempts(
    connection: sa.Connection, study_uuid: str, failed: Sequence[sa.Row[Any]]
) -> dict[int, str]:
    """Returns what is told of trials that were tried too often, by number."""
    if not failed:
        return {}
    told: dict[int | None, list[events.Event]] = defaultdict(list)
    for event in events.select_events(connection, study_uuid, [row.number for row in failed]):
        told[event.number].append(event)
    errors = {}
    for row in failed:
        first = f"{row.attempts} workers died or hung on it; none got past step {row.step}."
        history = (f"  {event}" for event in told[row.number][-_TOLD:])
        lines = [f"WorkerDied: {first}", *history, _IF_HUNG]
        errors[row.number] = "\n".join(lines)
    return errors
