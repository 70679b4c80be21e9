"""Figures for Optuna Dashboard, as plotly writes them: what it does not draw by itself."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from tuner.analysis.summary import StudySummary
from tuner.domain.catalog.hyperparameters import Hyperparameter
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.trials import Outcome, TrialRecord
from tuner.report.charts.scales import is_positive
from tuner.report.charts.view import View

_SYMBOLS = {Outcome.COMPLETE: "circle", Outcome.PRUNED: "circle-open"}


def to_figures(summary: StudySummary) -> dict[str, dict[str, Any]]:
    """Returns figures of a study by name, each a ``Figure`` of plotly as JSON has it.

    They are values against learning rates and against momenta, a colour for each optimizer;
    a trial that was pruned or still trains is hollow, at its last value. One without points is
    left out.

    Args:
        summary: The study.
    """
    view = View(summary, {})
    found = {
        "learning-rates": _draw(view, "learning rate", _find_rate),
        "momenta": _draw(view, "momentum, or first beta", _find_momentum),
    }
    return {name: figure for name, figure in found.items() if figure["data"]}


Finder = Callable[[str], str | None]
"""Returns the name of an optimizer's hyperparameter, or None where it has no such one."""


def _find_rate(optimizer: str) -> str | None:
    return OPTIMIZERS[optimizer].rate


def _find_momentum(optimizer: str) -> str | None:
    ones: tuple[Hyperparameter, ...] = tuple(OPTIMIZERS[optimizer].hyperparameters)
    return next((one.name for one in ones if one.is_momentum), None)


def _draw(view: View, title: str, find: Finder) -> dict[str, Any]:
    traces = []
    for optimizer, records in view.by_optimizer.items():
        name = find(optimizer)
        points = [] if name is None else _points(view, records, name)
        if points:
            xs, ys, numbers, symbols = zip(*points, strict=True)
            traces.append(
                {
                    "type": "scatter",
                    "mode": "markers",
                    "name": optimizer,
                    "x": list(xs),
                    "y": list(ys),
                    "text": [f"trial {number}" for number in numbers],
                    "marker": {"symbol": list(symbols), "size": 9},
                }
            )
    everywhere = {axis: [v for trace in traces for v in trace[axis]] for axis in ("x", "y")}
    layout = {
        "title": {"text": f"{view.objective} by {title}"},
        "xaxis": _axis(title, everywhere["x"], log=title == "learning rate"),
        "yaxis": _axis(view.objective, everywhere["y"], log=True),
        "hovermode": "closest",
    }
    return {"data": traces, "layout": layout}


def _axis(title: str, values: list[float], *, log: bool) -> dict[str, Any]:
    kind = "log" if log and is_positive(values) else "linear"
    return {"type": kind, "title": {"text": title}}


def _points(
    view: View, records: list[TrialRecord], name: str
) -> list[tuple[float, float, int, str]]:
    points = []
    for record in records:
        at, value = view.config(record).optimizer_values.get(name), view.value(record)
        if isinstance(at, int | float) and value is not None:
            symbol = _SYMBOLS.get(record.outcome, "circle-open")
            points.append((float(at), value, record.number, symbol))
    return points
