"""Sends what reads studies to the pages for people, and what changes them to the plain storage."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]

_READS = ("GET", "HEAD")
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
        return self._shown(environ, start_response)
