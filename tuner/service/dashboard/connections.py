"""Connections of a server: a limit on their number, and on how long a request may take."""

from __future__ import annotations

import contextlib
import os
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

_PLACES = 128
_DESCRIPTORS_EACH = 4  # its socket; the files and connections to the database that answer it


def affordable_places() -> int:
    """Returns how many connections a process may have at a time, by its file descriptors."""
    limit = os.sysconf("SC_OPEN_MAX") if hasattr(os, "sysconf") else -1
    # Where there is no limit it is -1.
    return max(1, min(_PLACES, limit // _DESCRIPTORS_EACH)) if limit > 0 else _PLACES


@dataclass
class _Visit:
    since: float
    awaited: bool = True  # the server waits for the client, and not the other way round


class Connections:
    """The connections of a server, of which the slowest gives way to the next.

    A request of which half is sent, or a byte now and then, would keep its place for ever. So it
    has to arrive within a time limit. Where no place is left, the oldest connection of those still
    sending is ended at once: however many send nothing, whoever sends a request is answered.

    Args:
        places: How many there may be at a time.
        patience_s: How long a request may take to arrive, in seconds.
        clock: Returns seconds.
    """

    def __init__(
        self, places: int, patience_s: float, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._places = places
        self._patience_s = patience_s
        self._clock = clock
        self._visits: dict[socket.socket, _Visit] = {}  # in the order they came
        self._changed = threading.Condition()

    def __len__(self) -> int:
        """Returns how many there are."""
        return len(self._visits)

    def make_room(self, wait_s: float) -> bool:
        """Ends the slowest connection if every place is taken; returns whether one is free.

        Args:
            wait_s: How long that may take, in seconds: while all are being answered, none ends.
        """
        with self._changed:
            if not self._has_room():
                self._end(self._awaited()[:1])
                self._changed.wait_for(self._has_room, wait_s)
            return self._has_room()

    def end_late(self) -> None:
        """Ends the connections whose requests have taken too long to arrive."""
        with self._changed:
            latest = self._clock() - self._patience_s
            self._end([one for one in self._awaited() if self._visits[one].since < latest])

    def add(self, connection: socket.socket) -> None:
        """Adds a connection that has been accepted."""
        with self._changed:
            self._visits[connection] = _Visit(self._clock())

    def remove(self, connection: socket.socket) -> None:
        """Removes a connection that is about to be closed."""
        with self._changed:
            self._visits.pop(connection, None)
            self._changed.notify()

    def receive_into(self, connection: socket.socket, buffer: memoryview) -> int:
        """Waits for a part of a request; returns how many bytes came, 0 if it was ended."""
        visit = self._visits[connection]
        visit.awaited = True
        count = connection.recv_into(buffer)
        visit.awaited = False
        return count

    def _has_room(self) -> bool:
        return len(self._visits) < self._places

    def _awaited(self) -> list[socket.socket]:
        return [one for one, visit in self._visits.items() if visit.awaited]

    def _end(self, connections: list[socket.socket]) -> None:
        # That wakes the threads that read from them, which then close them.
        for connection in connections:
            self._visits[connection].awaited = False
            with contextlib.suppress(OSError):  # its client has left
                connection.shutdown(socket.SHUT_RDWR)
