"""A study's page as an application: made again once trials have ended, and only if it is asked for.

The page asks every few seconds for another version than its own. So most requests are answered
from an overview of the study, and many readers cost no more than one.
"""

from __future__ import annotations

import hashlib
import secrets
import threading
import time
from collections.abc import Callable, Iterable
from typing import Any

from tuner.errors import NotFoundError, TunerError, UnavailableError
from tuner.report.html import to_html
from tuner.service.liveness import is_dead
from tuner.service.reports import read_report
from tuner.service.summaries import find_readable_companion
from tuner.store import Database, Studies, StudyHandle

_READS = ("GET", "HEAD")
_REST = 2.0
"""A page is kept for so many times the time it took, so that readers take little from workers."""

_POLICY = (
    "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = [
    ("Content-Type", "text/html; charset=utf-8"),
    ("Content-Security-Policy", _POLICY),
    ("Referrer-Policy", "no-referrer"),
    ("Cache-Control", "no-store"),
]


class StudyPage:
    """Answers requests for the page of one study.

    Args:
        database: The database that holds the study.
        name: The study's name.
        clock: Returns seconds; it only goes forward.
    """

    def __init__(
        self, database: Database, name: str, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._database = database
        self._name = name
        self._clock = clock
        self._lock = threading.Lock()
        self._process = secrets.token_hex(4)  # another server's page may look different
        self._version, self._page, self._fresh_until = "", b"", float("-inf")

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answers a request."""
        if environ["REQUEST_METHOD"] not in _READS:
            return _refuse(start_response, "405 Method Not Allowed", "The page can only be read.")
        if environ.get("PATH_INFO", "/") not in ("", "/"):
            return _refuse(start_response, "404 Not Found", "There is one page, at /.")
        try:
            version, page = self._renew()
        except TunerError as error:
            return _refuse(start_response, *self._tell(error))
        tag = ("ETag", f'"{version}"')
        if environ.get("HTTP_IF_NONE_MATCH") == tag[1]:
            start_response("304 Not Modified", [tag])
            return []
        start_response("200 OK", [*_HEADERS, tag, ("Content-Length", str(len(page)))])
        return [] if environ["REQUEST_METHOD"] == "HEAD" else [page]

    def _tell(self, error: TunerError) -> tuple[str, str]:
        """Returns the status and the words for an error."""
        if isinstance(error, NotFoundError):
            return "404 Not Found", f"The study {self._name!r} is no longer in the database."
        if isinstance(error, UnavailableError):
            return "503 Service Unavailable", "The database does not answer."
        return "500 Internal Server Error", str(error)

    def _renew(self) -> tuple[str, bytes]:
        """Returns the page and its version, made again if the study has changed."""
        with self._lock:
            began = self._clock()
            if began >= self._fresh_until:
                study = Studies(self._database).find(self._name)
                version = self._read_version(study)
                if version != self._version:
                    report = read_report(self._database, study)
                    page = to_html(report.view, report.at, live=f'"{version}"')
                    self._version, self._page = version, page.encode()
                    ended = self._clock()
                    self._fresh_until = ended + _REST * (ended - began)
            return self._version, self._page

    def _read_version(self, study: StudyHandle) -> str:
        """Returns a text that changes as trials end, and with the state of the study."""
        seen: list[object] = [self._process]
        for one in (study, find_readable_companion(self._database, study)):
            if one is not None:
                overview = Studies(self._database).look(one, is_dead)
                going = overview.running + overview.waiting + overview.paused
                ended = overview.started - going
                seen += [one.uuid, ended, overview.best_value, overview.activity, overview.trials]
        return hashlib.sha256(repr(seen).encode()).hexdigest()[:16]


def _refuse(start_response: Any, status: str, message: str) -> Iterable[bytes]:
    body = f"{message}\n".encode()
    headers = [("Content-Type", "text/plain; charset=utf-8"), ("Content-Length", str(len(body)))]
    start_response(status, headers)
    return [body]
