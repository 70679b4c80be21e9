"""Curves: numbers that a trial logs by step, such as its training loss, for people to look at.

They are not evaluations: nothing is judged by them. NaN and infinities are dropped, as they are for
evaluations, so that whoever reads a curve can draw it; a divergence is recorded with the trial.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Sequence

import sqlalchemy as sa

from tuner.domain.names import LONGEST_NAME, is_keepable
from tuner.errors import SpecError
from tuner.store.connection.database import Database
from tuner.store.damage import warn_of_damage
from tuner.store.identity import StudyHandle
from tuner.store.optuna.tables import upsert
from tuner.store.soundness import is_count, is_number
from tuner.store.tables import curves


def insert_points(
    connection: sa.Connection,
    study_uuid: str,
    logged: Iterable[tuple[int, Sequence[tuple[int, str, float]]]],
) -> None:
    """Records the numbers that trials logged; a step logged again is replaced.

    Args:
        connection: A transaction that may write.
        study_uuid: The study.
        logged: For each trial its number, and its (step, name, value) triples.

    Raises:
        SpecError: If a name is empty, too long, or has characters that a database cannot hold.
    """
    points = [(number, *point) for number, own in logged for point in own]
    for name in {name for _, _, name, _ in points}:
        _check(name)
    finite = {
        (number, name, step): value for number, step, name, value in points if math.isfinite(value)
    }
    rows = [
        {"study_uuid": study_uuid, "number": number, "name": name, "step": step, "value": value}
        for (number, name, step), value in finite.items()
    ]
    upsert(connection, curves, rows, ("study_uuid", "number", "name", "step"))


def read_curves(database: Database, study: StudyHandle, number: int) -> dict[str, dict[int, float]]:
    """Returns the curves of a trial.

    Returns:
        Finite values by step, ascending, by name; empty if the trial logged nothing.
    """
    with database.read() as connection:
        rows = connection.execute(
            sa.select(curves.c.name, curves.c.step, curves.c.value)
            .where(curves.c.study_uuid == study.uuid, curves.c.number == number)
            .order_by(curves.c.step, curves.c.name)
        ).all()
    found: dict[str, dict[int, float]] = defaultdict(dict)
    for name, step, value in rows:
        if is_keepable(name) and is_count(step) and is_number(value):
            found[name][step] = value
        else:
            warn_of_damage("A logged number is left out", f"it is none: {value!r} at {step!r}")
    return dict(found)


def _check(name: str) -> None:
    if not is_keepable(name):
        raise SpecError(
            f"{name[:40]!r} cannot name a logged number: use 1 to {LONGEST_NAME} characters, "
            "such as train_loss."
        )
