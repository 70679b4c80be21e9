"""Events of a study, its trials and its workers, beyond plain training, for people to read."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa

from tuner.domain.event_kinds import KINDS
from tuner.domain.printable import printable
from tuner.store.connection.database import Database
from tuner.store.damage import warn_of_damage
from tuner.store.soundness import is_count, is_time
from tuner.store.tables import DatabaseClock, events, workers


@dataclass(frozen=True)
class Event:
    """An event of a study or of one of its trials.

    Attributes:
        at: Its time, in seconds since 1970 by the database's clock.
        kind: Its kind, one of :data:`~tuner.domain.event_kinds.KINDS`.
        number: The number of the trial, None for an event of the whole study.
        worker_id: The worker it happened on, if any.
        host: The name of that worker's machine.
        pid: The id of that worker's process.
        device: The device that worker trains on.
        detail: A few words about it, may be empty.
        id: Its number in the database, greater than those of most events before it.
    """

    at: float
    kind: str
    number: int | None
    worker_id: str | None
    host: str | None
    pid: int | None
    device: str | None
    detail: str
    id: int = 0

    def __str__(self) -> str:
        return f"{self.time} {self.words}"

    @property
    def time(self) -> str:
        """Its time as people read it."""
        return datetime.fromtimestamp(self.at, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")

    @property
    def words(self) -> str:
        """Its kind, place and detail in a few words."""
        place = "" if self.host is None else f" on {self.host}, process {self.pid}, {self.device}"
        detail = f": {self.detail}" if self.detail else ""
        return printable(f"{self.kind.replace('_', ' ')}{place}{detail}")


def record(
    connection: sa.Connection,
    study_uuid: str,
    kind: str,
    *,
    number: int | None = None,
    worker_id: str | None = None,
    detail: str = "",
) -> None:
    """Records an event.

    Args:
        connection: The transaction that makes it happen.
        study_uuid: The study.
        kind: Its kind, one of :data:`~tuner.domain.event_kinds.KINDS`.
        number: The number of the trial, None for an event of the whole study.
        worker_id: The worker it happened on, if any.
        detail: A few words about it.

    Raises:
        ValueError: If there is no such kind.
    """
    record_all(connection, study_uuid, [(number, kind, detail)], worker_id=worker_id)


def record_all(
    connection: sa.Connection,
    study_uuid: str,
    happened: Sequence[tuple[int | None, str, str]],
    *,
    worker_id: str | None = None,
) -> None:
    """Records any number of events in one statement; see :func:`record`.

    Args:
        connection: The transaction that makes them happen.
        study_uuid: The study.
        happened: A (number, kind, detail) triple for each event.
        worker_id: The worker they happened on, if any.

    Raises:
        ValueError: If there is no such kind.
    """
    for _, kind, _ in happened:
        if kind not in KINDS:
            raise ValueError(
                f"{kind!r} is no kind of event: use one of {', '.join(sorted(KINDS))}."
            )
    if not happened:
        return
    connection.execute(
        sa.insert(events).values(at=DatabaseClock()),
        [
            {
                "study_uuid": study_uuid,
                "number": number,
                "worker_id": worker_id,
                "kind": kind,
                "detail": detail,
            }
            for number, kind, detail in happened
        ],
    )


def read_events(
    database: Database, study_uuid: str, number: int | None = None, *, after: int = 0
) -> list[Event]:
    """Returns the events of a study, oldest first.

    Args:
        database: The study's database.
        study_uuid: The study.
        number: The number of one trial, or None for all events of the study.
        after: The id below or at which events are left out.
    """
    with database.read() as connection:
        numbers = None if number is None else [number]
        return select_events(connection, study_uuid, numbers, after=after)


def read_devices(database: Database, study_uuid: str) -> dict[int, str]:
    """Returns the device that each trial of a study trained on last, by the trial's number."""
    statement = (
        sa.select(events.c.number, workers.c.device)
        .join(workers, workers.c.worker_id == events.c.worker_id)
        .where(events.c.study_uuid == study_uuid, events.c.kind.in_(_TAKEN))
        .order_by(events.c.at, events.c.event_id)
    )
    with database.read() as connection:
        rows = connection.execute(statement).all()
    return {number: str(device) for number, device in rows if is_count(number)}


_TAKEN = ("started", "taken_over", "promoted")
"""The events by which a worker comes to hold a trial."""


def select_events(
    connection: sa.Connection,
    study_uuid: str,
    numbers: Collection[int] | None = None,
    *,
    after: int = 0,
) -> list[Event]:
    """Returns the events of a study, oldest first; see :func:`read_events`.

    Args:
        connection: An open transaction.
        study_uuid: The study.
        numbers: The numbers of trials, or None for all events of the study.
        after: The id below or at which events are left out.
    """
    statement = (
        sa.select(events, workers.c.host, workers.c.pid, workers.c.device)
        .select_from(events.outerjoin(workers, workers.c.worker_id == events.c.worker_id))
        .where(events.c.study_uuid == study_uuid, events.c.event_id > after)
        .order_by(events.c.event_id)
    )
    if numbers is not None:
        statement = statement.where(events.c.number.in_(numbers))
    found = []
    for r in connection.execute(statement):
        texts = (r.kind, r.detail, r.worker_id or "", r.host or "", r.device or "")
        if is_time(r.at) and is_count(r.pid or 0) and all(isinstance(text, str) for text in texts):
            found.append(
                Event(
                    *(r.at, r.kind, r.number, r.worker_id),
                    *(r.host, r.pid, r.device, r.detail, r.event_id),
                )
            )
        else:
            warn_of_damage("An event is left out", f"it is none: {r.kind!r} at {r.at!r}")
    return found
