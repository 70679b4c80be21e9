"""The take-over of trials that nobody works on any more: given on, or ended."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from tuner.domain.names import name_some
from tuner.domain.objective import to_unreached
from tuner.domain.states import StudyState
from tuner.store import events
from tuner.store.identity import StudyRow
from tuner.store.leases.charges import add_lost, fits, read_losses, read_room, settle
from tuner.store.leases.rows import LASTING_S, UNTIL, Lease, lock_leases, new_token
from tuner.store.optuna import tables as ot
from tuner.store.tables import events as event_rows
from tuner.store.tables import leases

MAX_ATTEMPTS = 3
"""Attempts that a trial is given to get further, before it is failed."""

_SHOWN_EVENTS = 6
"""Events that the error of a failed trial shows, the last ones."""

_IF_HUNG = (
    "If they hung in a long evaluation: call run.alive() there now and then, or raise "
    "train.stall_s."
)


class TakeOverResult(StrEnum):
    """The result of taking a trial over."""

    TAKEN = "taken"
    """It can be worked on."""

    FAILED = "failed"
    """It had been tried too often, and was failed."""

    STOPPED = "stopped"
    """The study was stopped, so it was ended with its last evaluation."""

    UNPROMOTED = "unpromoted"
    """It was paused, and no trial is promoted any more, so it was ended likewise."""

    UNAFFORDABLE = "unaffordable"
    """It had lost training that the budget has no room to do again, so it was ended likewise."""

    OVER = "over"
    """It had ended already, or been deleted; its lease was deleted."""


_UNPAID = TakeOverResult.UNAFFORDABLE
_ENDED_AS_THEY_ARE = {
    TakeOverResult.STOPPED: "stopped",
    TakeOverResult.UNPROMOTED: "paused",
    _UNPAID: "what it had lost does not fit in the budget any more,",
}
"""The results after which a trial ends with its last evaluation, and what its event says."""

_UNPROMOTED = (TakeOverResult.UNPROMOTED, _UNPAID)


@dataclass(frozen=True)
class TakeOver:
    """A trial taken from its former holder.

    Attributes:
        row: Its lease before.
        lease: Its lease now; only counts if the result is TAKEN.
        result: Whether it can be worked on, else how it was ended.
    """

    row: sa.Row[Any]
    lease: Lease
    result: TakeOverResult


def take_over(
    connection: sa.Connection,
    study_row: StudyRow,
    rows: Sequence[sa.Row[Any]],
    *,
    worker_id: str | None = None,
    lease_s: float = 0.0,
) -> list[TakeOver]:
    """Takes trials from their holders, in a few statements for any number of them.

    A trial that another worker held is charged an attempt. A trial that cannot be worked on any
    more is ended instead: one that has been tried too often, and any in a study that was stopped.
    The lease of a trial that is over is deleted.

    Args:
        connection: A transaction that has locked the study.
        study_row: The study.
        rows: The leases, as :func:`tuner.store.leases.rows.lock_leases` returns them.
        worker_id: The worker that takes them, None to leave them for any worker.
        lease_s: Seconds that the new leases count.

    Returns:
        The result for each row, in their order.
    """
    takeovers = []
    for row in rows:
        attempt = row.attempts + (row.worker_id not in (None, worker_id))
        lease = Lease(row.number, new_token(), attempt, row.checkpoint, row.step)
        takeovers.append(TakeOver(row, lease, _judge(study_row, row, attempt)))
    taken = [each.lease for each in takeovers if each.result is TakeOverResult.TAKEN]
    hand_over(connection, study_row.uuid, taken, worker_id, lease_s)
    ended = [each for each in takeovers if each.result is not TakeOverResult.TAKEN]
    end_left(connection, study_row, ended)
    return takeovers


def charge_lost(
    connection: sa.Connection, study_row: StudyRow, kept: Mapping[Lease, int]
) -> list[int]:
    """Charges trials for training that was lost, or ends them where it does not fit any more.

    Args:
        connection: A transaction that has locked the study.
        study_row: The study, with a budget in full trials.
        kept: The number of evaluations that each trial goes on from, by its lease: those it has
            reported beyond are lost.

    Returns:
        The numbers of the trials that were ended, ascending; leases that do not count any more are
        left alone.
    """
    room = read_room(connection, study_row)
    known = {lease.token: count for lease, count in kept.items()}
    rows = lock_leases(connection, study_row, [lease.number for lease in kept])
    held = [row for row in rows if row.token in known and row.trial_id is not None]
    reported = ot.count_reports(connection, [row.trial_id for row in held])
    # Who goes on from one checkpoint may have to go on from before it, or ask again, since the
    # answer was lost on its way: what lies beyond has been charged.
    before = read_losses(connection, study_row.uuid, {row.number: row.token for row in held})
    ended = []
    for row in held:
        since, count = known[row.token], reported.get(row.trial_id, 0)
        share = max(0, min(count, before.get(row.number, count)) - since) / study_row.evaluations
        if not share:
            continue
        if fits(share, room):
            room -= share
            add_lost(connection, study_row.uuid, row.number, share, token=row.token, kept=since)
        else:
            ended.append(TakeOver(row, Lease(row.number, row.token, row.attempts), _UNPAID))
    end_left(connection, study_row, ended)
    return [each.row.number for each in ended]


def record_taking(
    connection: sa.Connection, study_uuid: str, taken: Sequence[TakeOver], worker_id: str
) -> None:
    """Records, as events, that a worker took trials from another or is the first to train them.

    For a trial that was released, the worker records later where it goes on from, once it knows:
    see :meth:`tuner.store.leases.ledger.Ledger.tell`.
    """
    _record_lost(connection, study_uuid, taken, worker_id)
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


def _record_lost(
    connection: sa.Connection, study_uuid: str, taken: Sequence[TakeOver], worker_id: str
) -> None:
    """Records, once a worker, that it was lost: its trials were taken though it never left."""
    left: dict[str, list[int]] = defaultdict(list)
    for each in taken:
        if each.row.worker_id not in (None, worker_id):
            left[each.row.worker_id].append(each.row.number)
    if not left:
        return
    known = connection.execute(
        sa.select(event_rows.c.worker_id).where(
            event_rows.c.study_uuid == study_uuid,
            event_rows.c.kind.in_(("lost", "left")),
            event_rows.c.worker_id.in_(left),
        )
    ).scalars()
    for lost in left.keys() - set(known):
        trials = name_some([str(number) for number in sorted(left[lost])])
        detail = f"died or fell silent with trials in training: {trials}"
        events.record(connection, study_uuid, "lost", worker_id=lost, detail=detail)


def _judge(study_row: StudyRow, row: sa.Row[Any], attempt: int) -> TakeOverResult:
    if row.trial_id is None:
        return TakeOverResult.OVER
    if study_row.state is StudyState.STOPPED:
        return TakeOverResult.STOPPED
    return TakeOverResult.FAILED if attempt > MAX_ATTEMPTS else TakeOverResult.TAKEN


def hand_over(
    connection: sa.Connection,
    study_uuid: str,
    taken: Sequence[Lease],
    worker_id: str | None,
    lease_s: float,
) -> None:
    """Gives trials to a worker under new tokens; none of them is paused any more.

    Args:
        connection: A transaction that has locked their leases.
        study_uuid: The study.
        taken: The new leases.
        worker_id: The worker, None to leave them for any worker.
        lease_s: Seconds that the new leases count.
    """
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
            paused=0,
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


def end_left(connection: sa.Connection, study_row: StudyRow, ended: Sequence[TakeOver]) -> None:
    """Ends trials by their results, and deletes their leases.

    One that was stopped, is not promoted any more or cannot be afforded ends with its last
    evaluation.
    """
    if not ended:
        return
    study_uuid = study_row.uuid
    unpromoted = [each.row for each in ended if each.result in _UNPROMOTED]
    stopped = [each.row for each in ended if each.result is TakeOverResult.STOPPED]
    failed = [each.row for each in ended if each.result is TakeOverResult.FAILED]
    values = ot.read_last_reports(connection, [row.trial_id for row in (*stopped, *unpromoted)])
    errors = _describe_attempts(connection, study_uuid, failed)
    attributes = [
        *((row.trial_id, "stopped_by", "stop") for row in stopped),
        *((row.trial_id, "error", errors[row.number]) for row in failed),
        *((row.trial_id, "steps", row.step) for row in (*stopped, *failed, *unpromoted)),
    ]
    ot.set_attributes(connection, attributes)
    ot.finish_trials(
        connection,
        [
            *(
                (row.trial_id, TrialState.PRUNED, _ranked(study_row, values.get(row.trial_id)))
                for row in (*stopped, *unpromoted)
            ),
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
    happened += [
        (each.row.number, "ended", f"{_ENDED_AS_THEY_ARE[each.result]} at step {each.row.step}")
        for each in ended
        if each.result in _ENDED_AS_THEY_ARE
    ]
    events.record_all(connection, study_uuid, happened)
    if study_row.full_trials is not None:
        # Their workers, who knew the steps, are gone; those that were paused have been settled.
        left = {row.trial_id: row.number for row in (*stopped, *failed) if not row.paused}
        left |= {each.row.trial_id: each.row.number for each in ended if each.result is _UNPAID}
        reported = ot.count_reports(connection, left)
        trained = {number: reported.get(trial_id, 0) for trial_id, number in left.items()}
        whole = study_row.evaluations
        settle(connection, study_uuid, {number: n / whole for number, n in trained.items()})


def _ranked(study_row: StudyRow, metric: float | None) -> float | None:
    """Returns the value that a trial ends with that has come no further than its last report."""
    return None if metric is None else to_unreached(study_row.section, metric)


def _describe_attempts(
    connection: sa.Connection, study_uuid: str, failed: Sequence[sa.Row[Any]]
) -> dict[int, str]:
    """Returns the errors of trials that were tried too often, by number."""
    if not failed:
        return {}
    histories: dict[int | None, list[events.Event]] = defaultdict(list)
    for event in events.select_events(connection, study_uuid, [row.number for row in failed]):
        histories[event.number].append(event)
    errors = {}
    for row in failed:
        first = f"{row.attempts} workers died or hung on it; none got past step {row.step}."
        history = (f"  {event}" for event in histories[row.number][-_SHOWN_EVENTS:])
        lines = [f"WorkerDied: {first}", *history, _IF_HUNG]
        errors[row.number] = "\n".join(lines)
    return errors
