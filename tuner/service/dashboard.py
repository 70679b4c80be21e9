"""Optuna Dashboard, served on the loopback interface only."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import Any
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from tuner.errors import StorageError
from tuner.store import Database

_HOST = "127.0.0.1"
_NAMES = (_HOST, "localhost")

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True


class _Quiet(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (as inherited)
        """Says nothing: requests are not worth a line each."""


def _only_from_here(application: Application) -> Application:
    """Refuses requests that a page of another site has a browser send."""

    def guarded(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        host = str(environ.get("HTTP_HOST", ""))
        origin = environ.get("HTTP_ORIGIN")
        local = host.partition(":")[0] in _NAMES and origin in (None, f"http://{host}")
        if local:
            return application(environ, start_response)
        start_response("403 Forbidden", [("Content-Type", "text/plain")])
        return [b"The dashboard answers requests to 127.0.0.1 and localhost only.\n"]

    return guarded


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

    application = _only_from_here(wsgi(database.storage))
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
