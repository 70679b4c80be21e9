"""Optuna Dashboard as an application, over studies as people read them."""

from __future__ import annotations

from tuner.service.dashboard.denied_writes import DeniedWritesMiddleware
from tuner.service.dashboard.pages import Pages
from tuner.service.web.authentication import Application
from tuner.store import Database


def make_dashboard(database: Database) -> Application:
    """Returns Optuna Dashboard on a database; it asks nobody who they are, and lets all delete.

    Args:
        database: The studies' database.
    """
    from optuna_dashboard import wsgi  # noqa: PLC0415 (takes a second)

    from tuner.service.dashboard.shown_storage import ShownStorage  # noqa: PLC0415 (likewise)

    shown = ShownStorage(database)
    pages = Pages(wsgi(shown), wsgi(database.storage), shown.open_page)
    return DeniedWritesMiddleware(pages, database, log="optuna_dashboard")
