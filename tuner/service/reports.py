"""A study's report: in every format, and as an object that shows itself where it is looked at."""

from __future__ import annotations

import html
import io
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tuner.analysis.summary import StudySummary
from tuner.errors import SpecError
from tuner.report.charts.selection import choose_curves
from tuner.report.charts.view import View
from tuner.report.files import write_file
from tuner.report.html import to_html
from tuner.report.json import to_json
from tuner.report.markdown import to_markdown
from tuner.report.terminal import TextConsole, print_report
from tuner.service.summaries import read_results
from tuner.store import Database, StudyHandle
from tuner.store.events import read_events
from tuner.store.records import read_some

_STYLES = {
    ".html": "html",
    ".htm": "html",
    ".md": "markdown",
    ".json": "json",
    ".txt": "terminal",
}
"""The format of a report by the ending of its file."""

_FRAME = (
    '<iframe srcdoc="{page}" sandbox="allow-scripts" title="{title}" '
    'style="width:100%;height:80vh;border:1px solid #8884"></iframe>'
)


@dataclass(frozen=True)
class Report:
    """What a study has found by a moment: it prints as text, and shows its page in a notebook.

    Attributes:
        view: All that is shown of the study.
        at: The moment, in UTC.
    """

    view: View
    at: datetime

    def render(self, style: str = "terminal") -> str:
        """Returns the report as text.

        Args:
            style: ``terminal``, ``json``, ``markdown`` or ``html``.

        Raises:
            SpecError: If there is no such format.
        """
        if style == "html":
            return to_html(self.view, self.at)
        return render_summary(style, self.view.summary)

    def write(self, path: str | Path, *, force: bool = False) -> Path:
        """Writes the report to a file, in the format of its ending, and returns the path.

        Args:
            path: The file: ``.html``, ``.md``, ``.json`` or ``.txt``.
            force: Whether to write over a file that is no report or export of tuner.

        Raises:
            SpecError: If the ending is another one, or such a file is there.
            StorageError: If it cannot be written.
        """
        path = Path(path)
        style = _STYLES.get(path.suffix.lower())
        if style is None:
            raise SpecError(
                f"{path}: the format of a report follows from the file's ending: name one that "
                f"ends in {', '.join(_STYLES)}."
            )
        write_file(path, self.render(style), force=force)
        return path

    def __str__(self) -> str:
        return self.render().rstrip("\n")

    def __repr__(self) -> str:
        return str(self)

    def _repr_html_(self) -> str:
        """Returns the page in a frame of its own, so that its style touches nothing else."""
        page = html.escape(self.render("html"))
        return _FRAME.format(page=page, title=html.escape(self.view.summary.name))


def read_report(database: Database, study: StudyHandle) -> Report:
    """Returns a study's report as of now."""
    summary = read_results(database, study)
    drawn = read_some(database, study, choose_curves(summary))
    curves = {record.number: record.evaluations for record in drawn}
    return Report(View(summary, curves, read_events(database, study.uuid)), datetime.now(UTC))


def render_summary(style: str, summary: StudySummary) -> str:
    """Returns a report that needs no more than the summary of a study.

    Args:
        style: ``terminal``, ``json`` or ``markdown``.
        summary: The summary, with advice.

    Raises:
        SpecError: If there is no such format.
    """
    match style:
        case "json":
            return json.dumps(to_json(summary), indent=2, ensure_ascii=False)
        case "markdown":
            return to_markdown(summary)
        case "terminal":
            text = io.StringIO()
            print_report(summary, TextConsole(text, plain=True))
            return text.getvalue()
        case _:
            styles = ", ".join(dict.fromkeys(_STYLES.values()))
            raise SpecError(f"{style!r}: no format of a report. Choose one of {styles}.")
