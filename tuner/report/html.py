"""A study's report as one HTML page with tables and plots, which loads no other file."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence

import jinja2
from plotly.offline import get_plotlyjs

from tuner.analysis.summary import StudySummary
from tuner.domain.objective import tell_aim
from tuner.domain.trials import Outcome, TrialRecord
from tuner.report.comparison import comparison_tables
from tuner.report.conclusion import conclude
from tuner.report.figures import draw_figures
from tuner.report.tables import best_tables, facts, ranking


def to_html(summary: StudySummary, curves: Sequence[TrialRecord]) -> str:
    """Returns a study's report as an HTML page.

    Args:
        summary: The study's results.
        curves: The trials chosen by :func:`tuner.report.figures.choose_curves`, with their
            evaluations.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tuner.report"), autoescape=True, trim_blocks=True
    )
    verdict, *doubts = conclude(summary)
    table = ranking(summary)
    figures = draw_figures(summary, curves) if summary.counts[Outcome.COMPLETE] else []
    return environment.get_template("report.html").render(
        aim=tell_aim(summary.spec.study),
        summary=summary,
        verdict=verdict,
        doubts=doubts,
        tables=[table, *comparison_tables(summary), *best_tables(summary), facts(summary)],
        advice=summary.advice,
        plotly=_packed(get_plotlyjs()) if figures else "",
        figures=figures,
    )


def _packed(script: str) -> str:
    """Returns a script as gzip in base64, which browsers unpack: two fifths of plotly's size."""
    return base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()
