"""Limits the number of a server's connections, and the time a request may take to arrive."""

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
    """Returns how many connections this process has file descriptors for, at a time."""
    limit = os.sysconf("SC_OPEN_MAX") if hasattr(os, "sysconf") else -1
    # Where there is no limit it is -1.
    return max(1, min(_PLACES, limit // _DESCRIPTORS_EACH)) if limit > 0 else _PLACES


@dataclass
class _Visit:
    since: float
    awaited: bool = True  # the server waits for the client, and not the other way round


class Connections:
    """Keeps a server's connections within a number, and ends the slowest for the next.

    A client that sends half a request, or a byte now and then, would hold a connection for ever. So
    a request has to arrive within a time limit. At the full number, the oldest connection that is
    still sending is ended at once: whoever sends a whole request is answered, however many others
    send nothing.

    Args:
        places: The largest number of connections at a time.
        patience_s: How long a request may take to arrive, in seconds.
        clock: Returns seconds that only grow.
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
        """Returns the number of open connections."""
        return len(self._visits)

    def make_room(self, wait_s: float) -> bool:
        """Ends the slowest connection if there is no room for another.

        Args:
            wait_s: How long to wait for room, in seconds: while all are being answered, none ends.

        Returns:
            Whether there is room for a connection now.
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
        """Waits for a part of a request; returns its number of bytes, 0 if the connection ended."""
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
