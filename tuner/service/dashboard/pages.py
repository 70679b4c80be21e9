"""Sends what reads studies to the pages for people, and what changes them to the plain storage.

A page is made to fit on a phone on its way.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

_READS = ("GET", "HEAD")
_NARROW = b"<style>main{min-width:0}</style></head>"
"""A style, put at the end of a page's head: it keeps a page as narrow as a phone, though a note has
one long line."""

_DETAIL = re.compile(r"/api/studies/(\d{1,18})/?")  # no id is longer


class Pages:
    """Answers reading requests by one application, and all others by another.

    A study that is renamed is copied by the dashboard, so what changes one must never see it as it
    is shown.

    Args:
        shown: The application over the studies as they are shown.
        stored: The application over the studies as they are stored.
        open_page: Is told, before each reading request, the study whose page is asked for, or None.
    """

    def __init__(
        self,
        shown: Application,
        stored: Application,
        open_page: Callable[[int | None], object],
    ) -> None:
        self._shown, self._stored, self._open_page = shown, stored, open_page

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answers a request."""
        if environ["REQUEST_METHOD"] not in _READS:
            return self._stored(environ, start_response)
        asked = _DETAIL.fullmatch(environ.get("PATH_INFO", ""))
        self._open_page(int(asked[1]) if asked else None)
        if environ["REQUEST_METHOD"] == "GET":
            return _narrow(self._shown, environ, start_response)
        return self._shown(environ, start_response)


def _narrow(application: Application, environ: dict[str, Any], start_response: Any) -> list[bytes]:
    """Answers a request by an application whose pages are to fit on a phone."""
    begun: list[Any] = []

    def start(status: str, headers: list[tuple[str, str]], *error: Any) -> None:
        begun[:] = status, headers, *error

    answer = application(environ, start)
    try:
        body = b"".join(answer)
    finally:
        if hasattr(answer, "close"):
            answer.close()
    status, headers, *error = begun
    known = {name.lower(): value for name, value in headers}
    if known.get("content-type", "").startswith("text/html") and "content-encoding" not in known:
        body = body.replace(b"</head>", _NARROW, 1)
        headers = [(n, v) for n, v in headers if n.lower() != "content-length"]
        headers.append(("Content-Length", str(len(body))))
    start_response(status, headers, *error)
    return [body]
