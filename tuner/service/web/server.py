"""Serves a WSGI application on the loopback interface, or beyond it with a password."""

from __future__ import annotations

import io
import ipaddress
import socket
import sys
import threading
import time
from collections.abc import Callable, Collection
from dataclasses import dataclass
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from tuner.errors import SpecError, StorageError
from tuner.service.interruption import Interruption
from tuner.service.web.authentication import LOCAL_ADDRESS, Application, Guard
from tuner.service.web.connections import Connections, affordable_places

LOOPBACK = "127.0.0.1"

_ANY = ("0.0.0.0", "::")  # noqa: S104 (to tell them)
_PATIENCE_S = 30
_SILENCE_S = 60
_HEAD_BYTES = 65_536
_MOMENT_S = 0.5


@dataclass(frozen=True)
class Place:
    """An address of this machine on which a server listens.

    Args:
        host: The name that the user gave.
        address: The IP address it stands for.
    """

    host: str
    address: str

    @classmethod
    def find(cls, host: str) -> Place:
        """Returns the place that a host's name or an address stands for.

        Raises:
            SpecError: If there is no such host.
        """
        try:
            found = socket.getaddrinfo(host or None, None, type=socket.SOCK_STREAM)
        except (OSError, UnicodeError) as error:
            raise SpecError(
                f"--host {host}: there is no such host ({error}). Name an address of this "
                f"machine, such as {LOOPBACK}."
            ) from None
        return cls(host, str(found[0][4][0]))

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine reaches it."""
        return ipaddress.ip_address(self.address.partition("%")[0]).is_loopback

    @property
    def family(self) -> socket.AddressFamily:
        """IPv4 or IPv6."""
        return socket.AF_INET6 if ":" in self.address else socket.AF_INET


class Server(ThreadingMixIn, WSGIServer):
    """An HTTP server that answers each connection in a thread; leaving its context closes it.

    A connection brings one request. Clients that are slow to send theirs keep nobody else out: see
    :class:`~tuner.service.web.connections.Connections`.

    Args:
        place: The address it listens on.
        port: The port it listens on; 0 picks a free one.
        application: The WSGI application that answers.
    """

    daemon_threads = True
    request_queue_size = 1024  # as many may come at once; else some are heard seconds later

    def __init__(self, place: Place, port: int, application: Any) -> None:
        self.address_family = place.family
        self._place = place
        self.connections = Connections(affordable_places(), _PATIENCE_S)
        super().__init__((place.address, port), _Handler)
        self.set_app(application)

    @property
    def url(self) -> str:
        """The URL under which a browser on this machine finds it."""
        host = LOOPBACK if self._place.address in _ANY else self._place.address
        name = f"[{host}]" if ":" in host else host
        return f"http://{name}:{self.server_port}/"

    def run(self, began: Callable[[], object] = lambda: None) -> None:
        """Answers requests until Ctrl-C or SIGTERM.

        Args:
            began: Called once it answers.
        """
        with Interruption() as interruption:
            threading.Thread(target=self.serve_forever, daemon=True).start()
            began()
            while not interruption.wait(_SILENCE_S):
                pass
            self.shutdown()

    def server_bind(self) -> None:
        """Binds without asking the network for this machine's name."""
        if self.server_address[0] == "::":
            self.socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        TCPServer.server_bind(self)
        self.server_name, self.server_port = str(self.server_address[0]), self.server_address[1]
        self.setup_environ()

    def get_request(self) -> tuple[socket.socket, Any]:
        """Accepts a connection, once there is room for it."""
        if not self.connections.make_room(_MOMENT_S):
            raise BlockingIOError  # all are being answered: it is asked for again
        try:
            connection, address = super().get_request()
        except OSError:
            # Out of file descriptors, the next try would come at once, and fail as well.
            time.sleep(_MOMENT_S)
            raise
        self.connections.add(connection)
        return connection, address

    def shutdown_request(self, request: Any) -> None:
        """Closes a connection."""
        self.connections.remove(request)
        super().shutdown_request(request)

    def service_actions(self) -> None:
        """Ends, every moment, the connections whose requests have taken too long to arrive."""
        self.connections.end_late()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Logs errors, except those of clients that went away or fell silent."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Inbox(io.RawIOBase):
    """A client's request as a stream, which ends where it breaks a limit of time or size."""

    def __init__(self, connections: Connections, connection: socket.socket) -> None:
        self._connections = connections
        self._connection = connection
        self.in_head = True
        self._head_bytes = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = self._connections.receive_into(self._connection, buffer)
        if not count and self.in_head:
            raise ConnectionAbortedError  # else half a head would be answered like a whole one
        if self.in_head:
            # Python's limits are 64 KiB for each of a hundred headers, before anyone is asked.
            self._head_bytes += count
            if self._head_bytes > _HEAD_BYTES:
                raise ConnectionAbortedError
        return count


class _Handler(WSGIRequestHandler):
    server: Server
    timeout = _SILENCE_S  # a client that takes nothing of its answer keeps no thread

    def setup(self) -> None:
        super().setup()
        self.rfile.close()
        self._inbox = _Inbox(self.server.connections, self.connection)
        self.rfile = io.BufferedReader(self._inbox)

    def parse_request(self) -> bool:
        is_well_formed = super().parse_request()
        self._inbox.in_head = False
        return is_well_formed

    def get_environ(self) -> dict[str, Any]:
        """Returns the WSGI environment, with the address that the request was sent to."""
        address = str(self.connection.getsockname()[0])
        return super().get_environ() | {LOCAL_ADDRESS: address.removeprefix("::ffff:")}

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (as inherited)
        """Logs nothing: requests are not worth a line each, and may hold secrets."""


def listen(
    make: Callable[[], Application],
    place: Place,
    port: int,
    *,
    password: str | None = None,
    hosts: Collection[str] = (),
) -> Server:
    """Returns a server of an application, ready to run.

    The application asks nobody who they are, so that beyond loopback nobody gets to it without a
    password.

    Args:
        make: Makes the application, once it is known that it may be served.
        place: The address to listen on.
        port: The port to listen on; 0 picks a free one.
        password: The password that every request must carry; None asks for nothing.
        hosts: Further names under which it is reached, such as a proxy's.

    Raises:
        SpecError: If anyone but this machine could reach it without a password.
        StorageError: If it cannot listen there.
    """
    if password is None and not place.is_loopback:
        raise SpecError(
            f"--host {place.host}: others reach it there, and may read studies and delete them, so "
            "it needs a password: --password-file PATH, or TUNER_DASHBOARD_PASSWORD or "
            f"TUNER_DASHBOARD_PASSWORD_FILE in the environment. For yourself: --host {LOOPBACK}."
        )
    guard = Guard(make(), password=password, hosts=(place.host, place.address, *hosts))
    try:
        return Server(place, port, guard)
    except OSError as error:
        raise StorageError(
            f"--host {place.host} --port {port}: cannot listen there: {error.strerror}. "
            "Try another port, such as --port 0, or an address of this machine."
        ) from error
