"""A TCP proxy on loopback before a server's Unix socket, whose cable can be pulled."""

from __future__ import annotations

import contextlib
import socket
import threading
from collections.abc import Callable


class Proxy:
    """Passes bytes on in both directions, or holds them back as a cut network does.

    Nothing is refused or closed while it is cut: what is sent just never arrives.

    Args:
        path: The server's Unix socket.
    """

    def __init__(self, path: str) -> None:
        self._path = path
        self._open = threading.Event()
        self._open.set()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._threads: list[threading.Thread] = []
        self._ends: list[socket.socket] = []
        self.port: int = self._listener.getsockname()[1]

    def cut(self) -> None:
        """Cuts the network."""
        self._open.clear()

    def mend(self) -> None:
        """Mends it: what was held back arrives."""
        self._open.set()

    def __enter__(self) -> Proxy:
        self._begin(self._accept)
        return self

    def __exit__(self, *error: object) -> None:
        self._open.set()
        _close(self._listener)
        while self._threads:
            for end in list(self._ends):
                _close(end)
            self._threads.pop().join()

    def _begin(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed: the proxy is over
                return
            self._begin(self._connect, client)

    def _connect(self, client: socket.socket) -> None:
        self._open.wait()
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._ends += [client, server]
        try:
            server.connect(self._path)
        except OSError:  # the server is down: so is the connection
            _close(client)
            _close(server)
            return
        self._begin(self._pass_on, client, server)
        self._pass_on(server, client)

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self._open.wait()
                target.sendall(data)
        except OSError:  # one side is gone, and takes the other with it
            pass
        finally:
            _close(source)
            _close(target)


def _close(end: socket.socket) -> None:
    """Closes a socket, waking whoever waits for it."""
    with contextlib.suppress(OSError):  # it may not be connected any more
        end.shutdown(socket.SHUT_RDWR)
    end.close()
