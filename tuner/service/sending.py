"""Sending: what is new of a study, and of its confirmation, goes to sinks until both are over."""

from __future__ import annotations

import shlex
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tuner.errors import SinkAwayError, SpecError, UnavailableError
from tuner.service.confirmation import find_current
from tuner.service.interruption import Interruption
from tuner.service.study_end import is_at_end
from tuner.sinks.sender import Sender
from tuner.sinks.sink import Sink
from tuner.sinks.targets import Target, open_sink
from tuner.store import Database, StudyHandle
from tuner.store.connection.retries import Backoff

_EVERY_S = 2.0
"""Seconds between two looks at a study that is followed."""

PATIENCE_S = 30.0
"""Seconds for which a sink that is away is tried again once nothing else is left to do."""

Warn = Callable[[str], object]


@dataclass
class _Route:
    """The way of a study, and of its confirmation, to one target."""

    target: Target
    backoff: Backoff
    senders: dict[str, Sender] = field(default_factory=dict)
    sinks: list[Sink] = field(default_factory=list)
    due_at: float = float("-inf")
    told: bool = False
    refused: str = ""
    whole: bool = False

    @property
    def sent(self) -> int:
        """How many trials that have ended the target holds whole."""
        return sum(len(sender.sent) for sender in self.senders.values())


class Sending:
    """Sends a study to targets; what one of them does holds up none of the others.

    Args:
        database: The database that holds the study.
        study: The study.
        targets: Where to.
        warn: Takes a line about a target that is away, or refuses what it is sent.
    """

    def __init__(
        self, database: Database, study: StudyHandle, targets: Sequence[Target], warn: Warn
    ) -> None:
        self._database, self._study, self._warn = database, study, warn
        self._routes = [
            _Route(target, Backoff(uuid.uuid4().int, first_s=2.0)) for target in targets
        ]

    def run(
        self, interruption: Interruption, *, follow: bool, patience_s: float = PATIENCE_S
    ) -> bool:
        """Sends what there is; where it follows, also what comes, until the study is over.

        Args:
            interruption: Ends the following; what there is by then is sent.
            follow: Whether to go on until the study is over.
            patience_s: Seconds for which sinks that are away are tried again at the end.

        Returns:
            Whether all there is has arrived everywhere.

        Raises:
            NotFoundError: If the study is deleted meanwhile.
        """
        give_up_at: float | None = None
        while True:
            asked = interruption.requested
            ends = not follow or asked or self._is_at_end()
            arrived = self._look(hurry=ends)
            if ends and arrived:
                return not self.refused
            if ends:
                now = time.monotonic()
                give_up_at = now + patience_s if give_up_at is None else give_up_at
                if now >= give_up_at or interruption.insisted:
                    return False
            if asked:
                time.sleep(0.5)
            else:
                interruption.wait(_EVERY_S if not ends else 0.5)

    def _is_at_end(self) -> bool:
        try:
            return is_at_end(self._database, self._study)
        except UnavailableError:
            return False

    def _look(self, *, hurry: bool) -> bool:
        """Sends what is new to each target whose turn it is; tells whether all has arrived."""
        try:
            current = find_current(self._database, self._study)
        except UnavailableError as error:
            self._tell_away(error)
            return False
        for route in self._routes:
            if route.refused or (not hurry and time.monotonic() < route.due_at):
                continue
            self._send(route, current)
        return all(route.whole or route.refused for route in self._routes)

    def _tell_away(self, error: UnavailableError) -> None:
        route = self._routes[0]
        if not route.told:
            route.told = True
            self._warn(f"{error} What is new is sent once it is back.")

    def _send(self, route: _Route, current: StudyHandle) -> None:
        """Sends what is new to one target; one that is away is tried later."""
        route.whole = False
        try:
            for study in {self._study.uuid: self._study, current.uuid: current}.values():
                self._sender_of(route, study).send()
        except SinkAwayError as error:
            pause_s = route.backoff.draw_s()
            route.due_at = time.monotonic() + pause_s
            if not route.told:
                route.told = True
                self._warn(f"{error} What is new is sent once it is back.")
        except UnavailableError as error:
            self._tell_away(error)
        except SpecError as error:
            route.refused = str(error)
            self._warn(route.refused)
        else:
            route.whole = True
            route.told = False
            route.backoff.reset()

    def _sender_of(self, route: _Route, study: StudyHandle) -> Sender:
        if study.uuid not in route.senders:
            sink = open_sink(route.target)
            route.sinks.append(sink)
            route.senders[study.uuid] = Sender(self._database, study, sink)
        return route.senders[study.uuid]

    @property
    def refused(self) -> bool:
        """Whether a target has refused what it was sent."""
        return any(route.refused for route in self._routes)

    def to_json(self) -> list[dict[str, Any]]:
        """Returns for each target, as plain values, what it holds."""
        return [
            {"target": str(route.target), "trials": route.sent, "whole": route.whole}
            for route in self._routes
        ]

    def close(self) -> None:
        """Lets go of the sinks."""
        for route in self._routes:
            for sink in route.sinks:
                sink.close()

    def tell(self) -> list[tuple[str, bool]]:
        """Returns a line for each target that tells what it holds, and whether that is all."""
        return [(self._tell(route), route.whole) for route in self._routes]

    def _tell(self, route: _Route) -> str:
        if route.whole:
            trials = f"{route.sent} trial{'s' * (route.sent != 1)}"
            return f"{route.target} holds {trials} of {self._study.name!r} that have ended."
        name = shlex.quote(self._study.name)
        return (
            f"Not all of {self._study.name!r} has arrived in {route.target}. Send the rest "
            f"{'once that is mended' if route.refused else 'later'}: "
            f"tuner study log {name} --to {shlex.quote(str(route.target))}"
        )
