"""Answers 403 with a reason where the dashboard's database role lacks a right."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

import sqlalchemy as sa

from tuner.domain.printable import printable
from tuner.errors import DeniedError
from tuner.store import Database
from tuner.store.connection.errors import translate

Application = Callable[[dict[str, Any], Any], Iterable[bytes]]


class DeniedWritesMiddleware:
    """Answers 403 where an application fails because the database's role lacks a right.

    The application, which takes it for a fault of its own, would answer 500 and log a traceback.
    What is logged instead is one line.

    Args:
        application: The application.
        database: The database it works on.
        log: The name of the logger above the application's own.
    """

    def __init__(self, application: Application, database: Database, log: str) -> None:
        self._application = application
        self._url = database.url
        self._of_request = threading.local()
        self._log = logging.getLogger(log)
        sa.event.listen(database.engine, "handle_error", self._note)
        handler = logging.StreamHandler()
        handler.addFilter(lambda record: self._reason is None or record.name == log)
        self._log.handlers = [handler]

    def __call__(self, environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
        """Answers a request by the application, or with 403 if the database denied it."""
        self._of_request.reason = None
        answer: list[Any] = []

        def keep(*arguments: Any) -> None:
            answer[:] = arguments

        body = self._application(environ, keep)
        status, *rest = answer
        if self._reason is None or not status.startswith("5"):
            start_response(status, *rest)
            return body
        self._log.warning(
            "%s %s: %s",
            environ["REQUEST_METHOD"],
            printable(environ["PATH_INFO"]),
            self._reason,
        )
        start_response("403 Forbidden", [("Content-Type", "application/json")])
        return [json.dumps({"reason": self._reason}).encode()]

    @property
    def _reason(self) -> str | None:
        """The reason the request that this thread answers was denied, None if it was not."""
        return getattr(self._of_request, "reason", None)

    def _note(self, context: sa.ExceptionContext) -> None:
        if context.sqlalchemy_exception is None:
            return
        error = translate(context.sqlalchemy_exception, self._url)
        if isinstance(error, DeniedError):
            self._of_request.reason = str(error)
