"""A TCP proxy on loopback before a server's Unix socket, whose cable can be pulled."""

from __future__ import annotations

import contextlib
import socket
import threading
from types import TracebackType


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
        self.port: int = self._listener.getsockname()[1]

    def cut(self) -> None:
        """Cuts the network."""
        self._open.clear()

    def mend(self) -> None:
        """Mends it: what was held back arrives."""
        self._open.set()

    def __enter__(self) -> Proxy:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._open.set()
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:  # closed: the proxy is over
                return
            threading.Thread(target=self._connect, args=(client,), daemon=True).start()

    def _connect(self, client: socket.socket) -> None:
        self._open.wait()
        server = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            server.connect(self._path)
        except OSError:  # the server is down: so is the connection
            client.close()
            return
        for source, target in ((client, server), (server, client)):
            threading.Thread(target=self._pass_on, args=(source, target), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self._open.wait()
                target.sendall(data)
        except OSError:  # one side is gone, and takes the other with it
            pass
        finally:
            for end in (source, target):
                with contextlib.suppress(OSError):  # closed by the other direction
                    end.shutdown(socket.SHUT_RDWR)
                end.close()
