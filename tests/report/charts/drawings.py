"""The charts of one small study as text; ``python -m tests.report.charts.drawings`` writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from tests.report.strange import Recipe, make_spec_of, view_of
from tests.report.summaries import averaging_summary
from tuner.analysis.random_search import RandomCurve
from tuner.report.charts.bars import draw_cost, draw_rungs, draw_shares
from tuner.report.charts.curves import draw_curves, draw_winner
from tuner.report.charts.finalists import draw_finalists
from tuner.report.charts.knobs import draw_momenta, draw_rates
from tuner.report.charts.pair import draw_pair
from tuner.report.charts.parallel import draw_parallel
from tuner.report.charts.progress import draw_progress
from tuner.report.charts.schedules import draw_averages, draw_schedules
from tuner.report.charts.svg import Chart
from tuner.report.charts.timeline import draw_timeline
from tuner.report.charts.view import View

GOLDEN = Path(__file__).parent / "golden"

_BAND = RandomCurve((0.3, 0.2, None), (0.15, None, None), (None, 0.4, 0.3), open_from=2)

_DRAWN: dict[str, Callable[[View], Chart | None]] = {
    "cost": draw_cost,
    "curves": draw_curves,
    "finalists": draw_finalists,
    "momenta": draw_momenta,
    "parallel": draw_parallel,
    "progress": lambda view: draw_progress(view, {"adam": _BAND}),
    "rates": draw_rates,
    "rungs": draw_rungs,
    "schedules": draw_schedules,
    "timeline": draw_timeline,
    "winner": draw_winner,
}


def small_view() -> View:
    """Returns a study of twelve trials in which something of everything happened."""
    spec = make_spec_of("small", 12, space={"optimizers": ["adam", "sgd"]})
    return view_of(Recipe(spec, 12, diverged=0.2, pruned=0.3), confirm=True)


def drawings() -> dict[str, str]:
    """Returns every chart as text, by its name."""
    view = small_view()
    averaged = averaging_summary()
    charts = {name: draw(view) for name, draw in _DRAWN.items()}
    charts["averages"] = draw_averages(View(averaged, {}))
    charts["shares"] = draw_shares("importance", "Importance", [("lr", 0.5), ("eps", None)], "lr")
    other = view_of(Recipe(make_spec_of("other", 9, space={"optimizers": ["sgd", "lion"]}), 9))
    charts["pair"] = draw_pair(view.summary, other.summary)
    return {name: write(chart) for name, chart in charts.items() if chart is not None}


def write(chart: Chart) -> str:
    """Returns a chart as text, a line for each element."""
    told = [chart.title, chart.finding, *chart.notes, *(key.name for key in chart.legend)]
    told += [f"{panel.title} {panel.finding}".strip() for panel in chart.panels]
    told += [" | ".join(row) for row in (chart.head, *chart.rows) if row]
    drawn = "\n".join(str(panel.drawn).replace("><", ">\n<") for panel in chart.panels)
    return "\n".join([*(f"<!-- {line} -->" for line in told if line), drawn, ""])


if __name__ == "__main__":
    GOLDEN.mkdir(exist_ok=True)
    for name, text in drawings().items():
        (GOLDEN / f"{name}.svg.html").write_text(text, encoding="utf-8")
