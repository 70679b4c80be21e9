"""The events of a study, and of its confirmation, as they come."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from tuner.domain.printable import printable
from tuner.errors import UnavailableError
from tuner.service.confirmation import find_current
from tuner.service.interruption import Interruption
from tuner.service.study_end import is_at_end
from tuner.store import Database, StudyHandle
from tuner.store.events import Event, read_events

_EVERY_S = 1.0
"""Seconds between two looks."""

_LATE = 500
"""Ids below the greatest that was seen, in which events are looked for that came late: of two
transactions at once, the one that took its ids first may well end last."""


@dataclass(frozen=True)
class StudyEvent:
    """An event, and the study that it is of.

    Attributes:
        study: The name of the study, or of the one that confirms it.
        event: The event.
    """

    study: str
    event: Event

    def __str__(self) -> str:
        trial = "" if self.event.number is None else f" trial {self.event.number}"
        return printable(f"{self.event.time} {self.study}{trial}: {self.event.words}")

    def to_json(self) -> dict[str, Any]:
        """Returns the event as plain values; the names of these do not change."""
        event = self.event
        return {
            "id": event.id,
            "at": datetime.fromtimestamp(event.at, UTC).isoformat(timespec="milliseconds"),
            "kind": event.kind,
            "study": self.study,
            "trial": event.number,
            "worker": event.worker_id,
            "host": event.host,
            "pid": event.pid,
            "device": event.device,
            "detail": event.detail,
        }


class EventFeed:
    """Reads the events of a study and of its confirmation, each call only those that are new.

    Args:
        database: The database that holds both.
        study: The study.
    """

    def __init__(self, database: Database, study: StudyHandle) -> None:
        self._database, self._study = database, study
        self._seen: dict[str, set[int]] = {}

    def read(self) -> list[StudyEvent]:
        """Returns the events since the last call, in the order in which they came.

        Raises:
            NotFoundError: If the study has been deleted.
            UnavailableError: If the database is away.
        """
        current = find_current(self._database, self._study)
        news: list[StudyEvent] = []
        for study in {self._study.uuid: self._study, current.uuid: current}.values():
            seen = self._seen.setdefault(study.uuid, set())
            after = max(seen, default=0) - _LATE
            found = [
                event
                for event in read_events(self._database, study.uuid, after=after)
                if event.id not in seen
            ]
            seen.update(event.id for event in found)
            self._seen[study.uuid] = {number for number in seen if number > max(seen) - 2 * _LATE}
            news += [StudyEvent(study.name, event) for event in found]
        return sorted(news, key=lambda one: one.event.id)

    def follow(self, interruption: Interruption) -> Iterator[StudyEvent | UnavailableError]:
        """Yields events as they come, until the study is over or a stop is asked for.

        Args:
            interruption: Tells when to stop.

        Yields:
            Events; and, once until it is back, the error of a database that is away.

        Raises:
            NotFoundError: If the study is deleted meanwhile.
        """
        away = False
        while not interruption.requested:
            try:
                ends = is_at_end(self._database, self._study)
                yield from self.read()
                away = False
                if ends:
                    return
            except UnavailableError as error:
                if not away:
                    yield error
                away = True
            interruption.wait(_EVERY_S)
