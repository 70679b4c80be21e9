"""Charges: what the trials of a study take of its budget in full trials.

A trial in training is charged for all that it may still take, so that it never has to end for want
of budget. What it has not taken by the time it pauses or ends is given back. So the sum of all
charges is the training done and still to be done, and never exceeds the budget.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence

import sqlalchemy as sa

from tuner.store.connection.database import Database
from tuner.store.identity import StudyHandle, StudyRow, look_up
from tuner.store.optuna import tables as ot
from tuner.store.tables import charges, leases

WHOLE = 1.0
"""The charge of a trial that has started and may train to its end, in full trials."""

_ROUNDING = 1e-9
"""What sums of charges may be off by, in full trials."""


def read_charged(connection: sa.Connection, study_row: StudyRow) -> float:
    """Returns the sum of all charges of a study, in full trials.

    A trial that started before the study had such a budget counts as a full one.
    """
    known, total = connection.execute(
        sa.select(sa.func.count(), sa.func.sum(charges.c.reached + charges.c.lost)).where(
            charges.c.study_uuid == study_row.uuid
        )
    ).one()
    started = ot.count_trials(connection, study_row.study_id)
    return float(WHOLE * max(0, started - known) + (total or 0.0))


def read_room(
    connection: sa.Connection, study_row: StudyRow, given_up: Collection[int] | None = None
) -> float:
    """Returns the full trials that the budget of a study has room for, infinite without such.

    Args:
        connection: An open transaction.
        study_row: The study as this transaction sees it.
        given_up: The numbers of the paused trials that nothing is kept for; of all others enough
            is kept to complete them. None to keep nothing.
    """
    if study_row.full_trials is None:
        return math.inf
    room = study_row.full_trials - read_charged(connection, study_row)
    if given_up is not None:
        rest = read_rest(connection, study_row)
        room -= math.fsum(left for number, left in rest.items() if number not in given_up)
    return room


def count_fitting(room: float) -> int:
    """Returns how many whole trials a room has place for; it must be finite."""
    return max(0, math.floor(room + _ROUNDING))


def fits(cost: float, room: float) -> bool:
    """Tells whether a room is large enough for a cost, both in full trials."""
    return cost <= room + _ROUNDING


def read_rest(connection: sa.Connection, study_row: StudyRow) -> dict[int, float]:
    """Returns what each paused trial needs to be completed, in full trials, by its number."""
    of_study = sa.and_(
        charges.c.study_uuid == leases.c.study_uuid, charges.c.number == leases.c.number
    )
    rows = connection.execute(
        sa.select(leases.c.number, charges.c.reached)
        .select_from(leases.outerjoin(charges, of_study))
        .where(leases.c.study_uuid == study_row.uuid, leases.c.paused > 0)
    )
    # One without a charge counts as a full trial already.
    return {
        row.number: 0.0 if row.reached is None else max(0.0, WHOLE - row.reached) for row in rows
    }


def find_fitting(
    connection: sa.Connection,
    study_row: StudyRow,
    numbers: Sequence[int],
    given_up: Collection[int] | None,
    *,
    kept: float,
) -> Sequence[int]:
    """Returns the paused trials that can go on within the budget, in the order given.

    Args:
        connection: A transaction that has locked the study.
        study_row: The study.
        numbers: The numbers of paused trials, the first to go on first.
        given_up: As for :func:`read_room`.
        kept: Full trials that are kept besides.
    """
    if study_row.full_trials is None:
        return numbers
    rest = read_rest(connection, study_row)
    keep = {} if given_up is None else {n: c for n, c in rest.items() if n not in given_up}
    room = read_room(connection, study_row) - kept - math.fsum(keep.values())
    fitting = []
    for number in numbers:
        if number not in rest:
            continue
        cost = rest[number]
        left = room + keep.get(number, 0.0) - cost
        if fits(0.0, left):
            fitting.append(number)
            room = left
    return fitting


def charge(connection: sa.Connection, study_row: StudyRow, numbers: Collection[int]) -> None:
    """Charges trials that start, or go on, for all that they may take; the study must be locked.

    A study without such a budget charges nothing.
    """
    if study_row.full_trials is None or not numbers:
        return
    rows = [
        {"study_uuid": study_row.uuid, "number": number, "reached": WHOLE} for number in numbers
    ]
    ot.upsert(connection, charges, rows, ("study_uuid", "number"))


def settle(connection: sa.Connection, study_uuid: str, trained: Mapping[int, float]) -> None:
    """Charges trials that have paused or ended for what they have trained, and no more.

    Args:
        connection: A transaction that may write.
        study_uuid: The study.
        trained: The full trials' worth that each has trained, by number. A trial that was never
            charged, since the study had no such budget, is left out.
    """
    if not trained:
        return
    connection.execute(
        sa.update(charges)
        .where(charges.c.study_uuid == study_uuid, charges.c.number == sa.bindparam("of_number"))
        .values(reached=sa.bindparam("trained")),
        [{"of_number": number, "trained": share} for number, share in trained.items()],
    )


def read_losses(
    connection: sa.Connection, study_uuid: str, tokens: Mapping[int, str]
) -> dict[int, int]:
    """Returns the evaluations that trials were last charged to go on from under these tokens.

    Args:
        connection: A transaction that has locked the study.
        study_uuid: The study.
        tokens: The token that each trial is held under, by its number.

    Returns:
        The number of evaluations by trial; trials that have lost nothing so far are left out.
    """
    rows = connection.execute(
        sa.select(charges.c.number, charges.c.loss).where(
            charges.c.study_uuid == study_uuid,
            charges.c.number.in_(tokens),
            charges.c.loss.is_not(None),
        )
    )
    losses = [(row.number, *row.loss.partition(_FROM)) for row in rows]
    return {number: int(kept) for number, by, _, kept in losses if by == tokens[number]}


_FROM = " from "
"""What stands between the token and the evaluations in the name of a loss."""


def add_lost(
    connection: sa.Connection, study_uuid: str, number: int, lost: float, *, token: str, kept: int
) -> None:
    """Charges a trial for training that was lost and is to be done again.

    Args:
        connection: A transaction that has locked the study.
        study_uuid: The study.
        number: The number of the trial.
        lost: The full trials' worth that was lost.
        token: The token of who goes on with it.
        kept: The number of evaluations that it goes on from.
    """
    connection.execute(
        sa.update(charges)
        .where(charges.c.study_uuid == study_uuid, charges.c.number == number)
        .values(lost=charges.c.lost + lost, loss=f"{token}{_FROM}{kept}")
    )


def read_used(database: Database, study: StudyHandle) -> float | None:
    """Returns what a study has taken of its budget in full trials; None if it has no such budget.

    Trials in training count as charged: with all that they may still take.

    Raises:
        NotFoundError: If the study has been deleted.
    """
    with database.read() as connection:
        study_row = look_up(connection, study)
        return None if study_row.full_trials is None else read_charged(connection, study_row)
