"""The channel between a worker and the processes of its trial: lines of JSON over a socket.

The socket is a file in a folder of this user's alone, and who connects has to know a token that
stands in the environment of the trial's processes. Nothing that comes over it is unpickled.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import shutil
import socket
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tuner.errors import WorkloadError

SOCKET, TOKEN = "TUNER_CHANNEL", "TUNER_CHANNEL_TOKEN"
"""The environment variables that name the socket and hold the token."""

LONGEST = 1 << 20
"""Bytes that one message may have."""

_WAITING = 64
_LONGEST_FOLDER = 70
"""Characters of a temporary folder below which a socket's path has room."""

Message = dict[str, Any]
"""A message: plain values by name."""


class Channel:
    """One end of a connection, over which messages are sent and received.

    Args:
        link: The connected socket.
    """

    def __init__(self, link: socket.socket) -> None:
        self._link = link
        self._buffer = b""
        self.is_open = True

    def fileno(self) -> int:
        """Returns the number of the socket, to wait on."""
        return self._link.fileno()

    def send(self, message: Mapping[str, Any]) -> bool:
        """Sends a message; returns whether the other end was there to take it."""
        try:
            self._link.sendall(json.dumps(message).encode() + b"\n")
        except OSError:
            self.is_open = False
        return self.is_open

    def receive(self) -> Message | None:
        """Waits for a message and returns it; None once the other end has closed.

        Raises:
            WorkloadError: If it is no message.
        """
        while b"\n" not in self._buffer:
            if not self._fill():
                return None
        return self._take()

    def arrived(self) -> Iterator[Message]:
        """Reads once, and yields the messages that have arrived.

        Raises:
            WorkloadError: If something else has arrived.
        """
        self._fill()
        while b"\n" in self._buffer:
            yield self._take()

    def close(self) -> None:
        """Closes the connection."""
        self.is_open = False
        self._link.close()

    def _fill(self) -> bool:
        try:
            data = self._link.recv(1 << 16)
        except OSError:
            data = b""
        self._buffer += data
        if len(self._buffer) > LONGEST and b"\n" not in self._buffer:
            raise WorkloadError(f"A message of a trial's process exceeds {LONGEST} bytes.")
        self.is_open = self.is_open and bool(data)
        return bool(data)

    def _take(self) -> Message:
        line, _, self._buffer = self._buffer.partition(b"\n")
        try:
            message = json.loads(line)
        except ValueError:
            message = None
        if not isinstance(message, dict):
            raise WorkloadError(
                f"A trial's process has sent {line[:80]!r}, which is no message of tuner's."
            )
        return message


class Listener:
    """Takes connections of the processes of one trial, and closes with its context.

    Attributes:
        environment: The variables that tell these processes where to connect.
    """

    def __init__(self) -> None:
        # A path of a socket has room for some hundred bytes: the trial's folder may be longer.
        short = None if len(tempfile.gettempdir()) < _LONGEST_FOLDER else "/tmp"  # noqa: S108 (private)
        self._folder = Path(tempfile.mkdtemp(prefix="tuner-", dir=short))
        path = self._folder / "channel"
        self._token = secrets.token_hex(16)
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.bind(str(path))
        self._socket.listen(_WAITING)
        self.environment = {SOCKET: str(path), TOKEN: self._token}

    def fileno(self) -> int:
        """Returns the number of the socket, to wait on."""
        return self._socket.fileno()

    def accept(self) -> Channel:
        """Returns a new connection, which has yet to show that it knows the token."""
        link, _ = self._socket.accept()
        return Channel(link)

    def knows(self, greeting: Message) -> bool:
        """Tells whether a greeting has the token."""
        token = greeting.get("token")
        return isinstance(token, str) and hmac.compare_digest(token, self._token)

    def __enter__(self) -> Listener:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()
        with contextlib.suppress(OSError):
            shutil.rmtree(self._folder)


def connect(environment: Mapping[str, str]) -> Channel | None:
    """Connects to the worker of the trial whose process this is.

    Args:
        environment: The environment of this process.

    Returns:
        The connection; None where no worker listens, as when a command is run by hand.
    """
    if SOCKET not in environment:
        return None
    link = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        link.connect(environment[SOCKET])
    except OSError:
        link.close()
        return None
    channel = Channel(link)
    channel.send({"token": environment.get(TOKEN, ""), "rank": environment.get("RANK", "0")})
    return channel
