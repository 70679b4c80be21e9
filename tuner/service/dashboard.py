"""Optuna Dashboard, served on the loopback interface, or elsewhere to those with the password."""

from __future__ import annotations

import ipaddress
import socket
import sys
import threading
from collections.abc import Collection
from dataclasses import dataclass
from socketserver import TCPServer, ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer

from tuner.errors import SpecError, StorageError
from tuner.service.authentication import LOCAL_ADDRESS, Guard
from tuner.service.denials import Denials
from tuner.service.interruption import Interruption
from tuner.store import Database

LOOPBACK = "127.0.0.1"

_ANY = ("0.0.0.0", "::")  # noqa: S104 (to tell them)
_SILENCE_S = 60


@dataclass(frozen=True)
class Place:
    """Where the dashboard listens.

    Args:
        host: What the user calls it.
        address: The IP address it stands for.
    """

    host: str
    address: str

    @classmethod
    def find(cls, host: str) -> Place:
        """Returns the place of a name or an address.

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
    """The dashboard, listening; closed as a context.

    Args:
        place: Where it listens.
        port: Likewise; 0 picks a free port.
        application: What answers.
    """

    daemon_threads = True

    def __init__(self, place: Place, port: int, application: Any) -> None:
        self.address_family = place.family
        self._place = place
        super().__init__((place.address, port), _Handler)
        self.set_app(application)

    @property
    def url(self) -> str:
        """Where a browser on this machine finds it."""
        host = LOOPBACK if self._place.address in _ANY else self._place.address
        name = f"[{host}]" if ":" in host else host
        return f"http://{name}:{self.server_port}/"

    def run(self) -> None:
        """Answers requests until Ctrl-C or SIGTERM."""
        with Interruption() as interruption:
            threading.Thread(target=self.serve_forever, daemon=True).start()
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

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Says nothing of clients that went away or fell silent."""
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


class _Handler(WSGIRequestHandler):
    timeout = _SILENCE_S  # a client that sends nothing keeps no thread

    def get_environ(self) -> dict[str, Any]:
        """Tells to which of the machine's addresses a request was sent."""
        address = str(self.connection.getsockname()[0])
        return super().get_environ() | {LOCAL_ADDRESS: address.removeprefix("::ffff:")}

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (as inherited)
        """Says nothing: requests are not worth a line each, and may hold what is secret."""


def listen(
    database: Database,
    place: Place,
    port: int,
    *,
    password: str | None = None,
    hosts: Collection[str] = (),
) -> Server:
    """Returns the dashboard, ready to run.

    Optuna Dashboard asks nobody who they are and lets anyone delete studies, so that beyond
    loopback nobody gets to it without a password.

    Args:
        database: The studies' database.
        place: Where to listen.
        port: Likewise; 0 picks a free port.
        password: What every request has to know; None asks for nothing.
        hosts: Further names under which it is reached, such as a proxy's.

    Raises:
        SpecError: If anyone but this machine could reach it without a password.
        StorageError: If it cannot listen there.
    """
    if password is None and not place.is_loopback:
        raise SpecError(
            f"--host {place.host}: others reach the dashboard there, and may delete studies, so "
            "it needs a password: --password-file PATH, or TUNER_DASHBOARD_PASSWORD or "
            f"TUNER_DASHBOARD_PASSWORD_FILE in the environment. For yourself: --host {LOOPBACK}."
        )
    from optuna_dashboard import wsgi  # noqa: PLC0415 (takes a second)

    names = (place.host, place.address, *hosts)
    application = Denials(wsgi(database.storage), database, log="optuna_dashboard")
    guard = Guard(application, password=password, hosts=names)
    try:
        return Server(place, port, guard)
    except OSError as error:
        raise StorageError(
            f"--host {place.host} --port {port}: cannot listen there: {error.strerror}. "
            "Try another port, such as --port 0, or an address of this machine."
        ) from error
