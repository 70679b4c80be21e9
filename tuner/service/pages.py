"""A study's page, read from its database."""

from __future__ import annotations

from datetime import UTC, datetime

from tuner.report.charts.selection import choose_curves
from tuner.report.charts.view import View
from tuner.report.html import to_html
from tuner.service.summaries import read_results
from tuner.store import Database, StudyHandle
from tuner.store.events import read_events
from tuner.store.records import read_some


def read_page(database: Database, study: StudyHandle, live: str | None = None) -> str:
    """Returns a study's report as an HTML page, as of now.

    Args:
        database: The database that holds the study.
        study: The study.
        live: The version of a page whose server renews it; None for a page in a file.
    """
    summary = read_results(database, study)
    drawn = read_some(database, study, choose_curves(summary))
    curves = {record.number: record.evaluations for record in drawn}
    view = View(summary, curves, read_events(database, study.uuid))
    return to_html(view, datetime.now(UTC), live)
