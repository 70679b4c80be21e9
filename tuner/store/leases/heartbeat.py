"""The heartbeat of a worker: when it was last seen, and how long a study has been worked on."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tuner.store.connection.database import Database
from tuner.store.connection.retries import Clock
from tuner.store.events import record
from tuner.store.tables import DatabaseClock, workers

EVERY_S = 5.0
"""Seconds that a worker which writes all the time may go without a heartbeat."""

_LEAST_OUTAGE_S = 1.0
"""Seconds for which the database was away, from which on that is an event."""

_LONGEST_S = 1e10


@dataclass(frozen=True)
class Alive:
    """A worker that lives at this moment.

    Attributes:
        worker_id: The worker's id.
        age_s: Seconds for which it has lived, by a clock that only grows: clocks that tell the
            time of day are set, and go on while a machine sleeps.
    """

    worker_id: str
    age_s: float


class Heartbeat:
    """Records that one worker lives.

    Args:
        database: Where the worker is entered.
        study_uuid: The study that it works on.
        worker_id: The worker's id.
        clock: Returns the seconds that measure the worker's life; must only grow.
    """

    def __init__(
        self,
        database: Database,
        study_uuid: str,
        worker_id: str,
        clock: Clock = time.monotonic,
    ) -> None:
        self._database = database
        self._study_uuid = study_uuid
        self._worker_id = worker_id
        self._clock = clock
        self._born_at = clock()
        self._beat_at = float("-inf")

    def start(self, age_s: float) -> None:
        """Sets the worker's age.

        Args:
            age_s: Seconds since the worker's process started.
        """
        self._born_at = self._clock() - age_s

    @property
    def alive(self) -> Alive:
        """The worker at its current age."""
        return Alive(self._worker_id, max(0.0, self._clock() - self._born_at))

    def beat(self, connection: sa.Connection) -> None:
        """Records that the worker lives, and compares the database's clock with its own."""
        now_s = touch(connection, self.alive)
        if now_s is not None:
            self._database.hear_clock(now_s)
        away_s = self._database.take_outage_s()
        if away_s is not None and away_s >= _LEAST_OUTAGE_S:
            detail = f"the database had been away for {away_s:.0f} s"
            study_uuid, worker_id = self._study_uuid, self._worker_id
            record(connection, study_uuid, "reconnected", worker_id=worker_id, detail=detail)
        self._beat_at = self._clock()

    def beat_if_due(self, connection: sa.Connection) -> None:
        """Calls :meth:`beat` unless the last one was less than :data:`EVERY_S` ago."""
        if self._clock() - self._beat_at > EVERY_S:
            self.beat(connection)


def touch(connection: sa.Connection, alive: Alive) -> float | None:
    """Records that a worker lives.

    Returns:
        Seconds since 1970 by the database's clock, None for a worker that was never entered.
    """
    seen = connection.execute(_SEEN, {"alive_id": alive.worker_id, _AGE_S.key: alive.age_s})
    now_s: float | None = seen.scalar_one_or_none()
    return now_s


def elapsed_s(
    connection: sa.Connection, study_uuid: str, alive: Alive | None = None
) -> tuple[float, float]:
    """Returns how long a study has been worked on.

    Args:
        connection: An open transaction.
        study_uuid: The study.
        alive: A worker that lives at this moment, if one asks.

    Returns:
        Seconds during which at least one worker lived, and the seconds of all workers added up.
    """
    of_study = workers.c.study_uuid == study_uuid
    wall_s, worker_s = connection.execute(
        sa.select(
            sa.func.coalesce(sa.func.max(workers.c.study_s), 0.0),
            sa.func.coalesce(sa.func.sum(workers.c.worked_s), 0.0),
        ).where(
            # A damaged value, such as a text, is greater than any number, or less.
            of_study,
            workers.c.study_s.between(0.0, _LONGEST_S),
            workers.c.worked_s.between(0.0, _LONGEST_S),
        )
    ).one()
    if alive is not None:
        now = sa.select(_STUDY_S).where(workers.c.worker_id == sa.bindparam("alive_id"))
        values = {"alive_id": alive.worker_id, _AGE_S.key: alive.age_s}
        wall_s = max(wall_s, connection.execute(now, values).scalar_one_or_none() or 0.0)
    return float(wall_s), float(worker_s)


def _larger(one: Any, other: Any) -> sa.ColumnElement[float]:
    return sa.case((one > other, one), else_=other)


def _study_clock() -> sa.ColumnElement[float]:
    """Returns, as SQL, the seconds a worker's study has been worked on, now that it is alive.

    That is as long as when the worker was last seen and since then, or as long as when anyone was
    last seen and since then: for that the database's clock is asked, and believed as far as the
    worker has lived. So whatever that clock does, it adds no more than a worker has lived, and
    takes nothing.
    """
    last = workers.alias()
    lived_s = _larger(_AGE_S - workers.c.worked_s, 0.0)
    since_s = _larger(DatabaseClock() - last.c.last_seen, 0.0)
    by_all = (
        sa.select(last.c.study_s + sa.case((since_s < lived_s, since_s), else_=lived_s))
        .where(last.c.study_uuid == workers.c.study_uuid)
        .order_by(last.c.study_s.desc(), last.c.last_seen.desc())
        .limit(1)
        .correlate(workers)
        .scalar_subquery()
    )
    return _larger(workers.c.study_s + lived_s, by_all)


_AGE_S = sa.bindparam("age_s", type_=sa.Float(53))
_STUDY_S = _study_clock()
_SEEN = (
    sa.update(workers)
    .where(workers.c.worker_id == sa.bindparam("alive_id"))
    .values(
        last_seen=DatabaseClock(),
        worked_s=_larger(_AGE_S, workers.c.worked_s),
        study_s=_STUDY_S,
    )
    .returning(workers.c.last_seen)
)
