"""A study as one HTML page that needs nothing else: tables and Optuna's plots."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import Any

import jinja2
import optuna
from optuna import visualization
from plotly import graph_objects
from plotly.offline import get_plotlyjs

from tuner.analysis.summary import StudySummary
from tuner.domain.trials import Outcome
from tuner.errors import DamageWarning
from tuner.report.conclusion import conclude
from tuner.report.tables import best_tables, facts, ranking


@dataclass(frozen=True)
class Figure:
    """A plot.

    Attributes:
        title: What it shows.
        html: A ``div`` that plotly draws into.
    """

    title: str
    html: str


def to_html(summary: StudySummary, study: optuna.Study) -> str:
    """Returns the report as a page.

    Args:
        summary: The study's results.
        study: The same study as Optuna sees it, for its plots.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tuner.report"), autoescape=True, trim_blocks=True
    )
    verdict, *doubts = conclude(summary)
    table = ranking(summary)
    return environment.get_template("report.html").render(
        summary=summary,
        verdict=verdict,
        doubts=doubts,
        ranked=table.title,
        tables=[table, *best_tables(summary), facts(summary)],
        plotly_js=get_plotlyjs(),
        figures=_draw(summary, study) if summary.counts[Outcome.COMPLETE] else [],
    )


def _draw(summary: StudySummary, study: optuna.Study) -> list[Figure]:
    plots = [
        ("Best value over trials", visualization.plot_optimization_history, {}),
        ("Curves of all trials", visualization.plot_intermediate_values, {}),
        ("Values by optimizer and schedule", visualization.plot_slice, _top_level(summary)),
        ("Trials over time", visualization.plot_timeline, {}),
    ]
    figures = [_draw_lines(summary)] if any(a.line for a in summary.averages) else []
    for title, plot, arguments in plots:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
            try:
                drawn: Any = plot(study, **arguments)
            except (LookupError, TypeError, ValueError) as error:  # Optuna reads all or nothing
                warnings.warn(
                    f"{title!r} of {summary.name!r} is left out, since Optuna cannot read the "
                    f"study: {type(error).__name__}: {error}",
                    DamageWarning,
                    stacklevel=2,
                )
                continue
        if plot in _OF_VALUES and all(value > 0 for value in _values(summary)):
            drawn.update_yaxes(type="log")
        figures.append(_finish(title, drawn))
    return figures


def _draw_lines(summary: StudySummary) -> Figure:
    """Draws the metric from the last weights of each average's best trial to their average."""
    drawn: Any = graph_objects.Figure()
    for average in summary.averages:
        if average.line:
            places, values = zip(*average.line, strict=True)
            name = f"{average.average}, trial {average.best_trial}"
            drawn.add_scatter(x=places, y=values, mode="lines+markers", name=name)
    ends = {"tickvals": [0, 0.5, 1], "ticktext": ["last weights", "half way", "average"]}
    drawn.update_xaxes(**ends)
    drawn.update_yaxes(title=summary.spec.study.metric)
    drawn.update_layout(showlegend=True)
    return _finish("From the last weights to their average", drawn)


def _finish(title: str, drawn: Any) -> Figure:
    drawn.update_layout(title=None, template="plotly_white", margin={"t": 30, "b": 40})
    return Figure(title, drawn.to_html(full_html=False, include_plotlyjs=False))


_OF_VALUES = (visualization.plot_optimization_history, visualization.plot_intermediate_values)


def _values(summary: StudySummary) -> list[float]:
    return [value for record in summary.records for value in record.evaluations.values()]


def _top_level(summary: StudySummary) -> dict[str, Any]:
    return {"params": ["optimizer", "schedule"], "target_name": summary.spec.study.metric}
