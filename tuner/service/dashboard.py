"""Optuna Dashboard, served on the loopback interface only."""

from __future__ import annotations

from collections.abc import Callable
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from tuner.errors import StorageError
from tuner.store import Database

_HOST = "127.0.0.1"


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (as inherited)
        """Says nothing: requests are not worth a line each."""


def serve(database: Database, port: int, on_ready: Callable[[str], None]) -> None:
    """Serves the dashboard until interrupted.

    Optuna Dashboard asks nobody who they are and lets anyone delete studies, so it listens on
    the loopback interface only.

    Args:
        database: The studies' database.
        port: Where to listen; 0 picks a free port.
        on_ready: Called with the address once it listens.

    Raises:
        StorageError: If the port is taken.
    """
    from optuna_dashboard import wsgi  # noqa: PLC0415 (takes a second)

    application = wsgi(database.storage)
    try:
        server = make_server(_HOST, port, application, server_class=_Server, handler_class=_Quiet)
    except OSError as error:
        raise StorageError(
            f"--port {port}: cannot listen there: {error.strerror}. Try another: --port 0."
        ) from error
    with server:
        on_ready(f"http://{_HOST}:{server.server_port}/")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return
