"""A study's report as one HTML page with tables and plots, which loads no other file."""

from __future__ import annotations

import base64
import gzip
from collections.abc import Sequence
from typing import TYPE_CHECKING

import jinja2
from plotly.offline import get_plotlyjs

from tuner.analysis.summary import StudySummary
from tuner.domain.objective import tell_aim
from tuner.domain.trials import Outcome, TrialRecord
from tuner.report.comparison import comparison_tables
from tuner.report.conclusion import conclude
from tuner.report.figures import draw_figures, draw_profiles
from tuner.report.suite_tables import suite_tables
from tuner.report.suite_words import conclude_suite, tell_suite
from tuner.report.tables import best_tables, facts, ranking

if TYPE_CHECKING:
    from tuner.analysis.suite import SuiteSummary


def to_html(summary: StudySummary, curves: Sequence[TrialRecord]) -> str:
    """Returns a study's report as an HTML page.

    Args:
        summary: The study's results.
        curves: The trials chosen by :func:`tuner.report.figures.choose_curves`, with their
            evaluations.
    """
    verdict, *doubts = conclude(summary)
    table = ranking(summary)
    figures = draw_figures(summary, curves) if summary.counts[Outcome.COMPLETE] else []
    return _load("report.html").render(
        aim=tell_aim(summary.spec.study),
        summary=summary,
        verdict=verdict,
        doubts=doubts,
        tables=[table, *comparison_tables(summary), *best_tables(summary), facts(summary)],
        advice=summary.advice,
        plotly=_packed(get_plotlyjs()) if figures else "",
        figures=figures,
    )


def to_suite_html(summary: SuiteSummary) -> str:
    """Returns a suite's report as an HTML page."""
    verdict, *doubts = conclude_suite(summary)
    figures = [draw_profiles(summary)] if summary.steps else []
    return _load("suite.html").render(
        about=tell_suite(summary),
        summary=summary,
        verdict=verdict,
        doubts=doubts,
        tables=suite_tables(summary),
        plotly=_packed(get_plotlyjs()) if figures else "",
        figures=figures,
    )


def _load(name: str) -> jinja2.Template:
    """Returns the template of a page."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tuner.report"), autoescape=True, trim_blocks=True
    )
    return environment.get_template(name)


def _packed(script: str) -> str:
    """Returns a script as gzip in base64, which browsers unpack: two fifths of plotly's size."""
    return base64.b64encode(gzip.compress(script.encode(), mtime=0)).decode()
