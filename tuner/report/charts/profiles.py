"""Performance profiles of a suite: the targets that each optimizer reaches, and how soon."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tuner.analysis.profiles import MOST_TAU
from tuner.report.charts.frame import Frame, draw, line, mark
from tuner.report.charts.palette import Palette
from tuner.report.charts.scales import Scale
from tuner.report.charts.svg import Chart, Panel

if TYPE_CHECKING:
    from tuner.analysis.suite import SuiteSummary


def draw_profiles(summary: SuiteSummary) -> Chart | None:
    """Draws a suite's performance profiles by steps; None where it has no scores.

    A profile rises where an optimizer reaches the target of one more workload.
    """
    if not summary.steps:
        return None
    palette = Palette(summary.optimizers)
    shares = Scale(0, 1.05, label=lambda value: f"{value:.0%}")
    frame = Frame(Scale(1, MOST_TAU), shares, 280, "τ, times the fewest steps", "targets reached")
    lines, marks, rows = [], [], []
    for score in summary.steps:
        points = _profile(summary, score.optimizer)
        kind, symbol = palette.kind(score.optimizer), palette.symbol(score.optimizer)
        lines.append(line(frame, points, f"{kind} best", steps=True))
        marks += [mark(frame, *point, symbol, kind) for point in points[1:]]
        reached = ", ".join(f"{x:.3g}" for x, _ in points[1:-1])
        rows.append((score.optimizer, reached or "none", f"{points[-1][1]:.0%}"))
    first = summary.steps[0].optimizer
    finding = (
        f"{first} reaches {rows[0][2]} of the targets within {MOST_TAU:g} times the fewest steps."
    )
    return Chart(
        "profiles",
        "Performance profiles",
        finding,
        (Panel(draw(frame, finding, lines=lines, marks=marks)),),
        palette.legend([score.optimizer for score in summary.steps]),
        (),
        ("optimizer", "reaches a target at τ", f"of the targets by τ = {MOST_TAU:g}"),
        tuple(rows),
    )


def _profile(summary: SuiteSummary, optimizer: str) -> list[tuple[float, float]]:
    """Returns the corners of an optimizer's profile, from 1 to the largest τ."""
    ratios = sorted(
        standing.ratio
        for workload in summary.scored
        for standing in workload.standings
        if standing.speed.optimizer == optimizer
        and standing.ratio is not None
        and standing.ratio <= MOST_TAU
    )
    shares = [place / len(summary.scored) for place in range(len(ratios) + 1)]
    return list(zip([1.0, *ratios, MOST_TAU], [*shares, shares[-1]], strict=True))
