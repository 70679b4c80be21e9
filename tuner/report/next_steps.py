"""What to do next with a study, and what made the difference, where the analysis tells it."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from tuner.analysis.summary import StudySummary
from tuner.domain.printable import printable
from tuner.report.charts.bars import draw_shares
from tuner.report.charts.progress import Band
from tuner.report.charts.svg import Chart
from tuner.report.charts.view import View


@dataclass(frozen=True)
class Step:
    """A thing to do next.

    Attributes:
        sentence: Why.
        command: How, ready to be typed.
    """

    sentence: str
    command: str


def next_steps(summary: StudySummary) -> list[Step]:
    """Returns what to do next, the most useful first."""
    advice: Any = getattr(summary, "advice", ())
    steps = [Step(one.sentence, one.command) for one in advice] or _usual_steps(summary)
    return [Step(printable(step.sentence), printable(step.command)) for step in steps]


def _usual_steps(summary: StudySummary) -> list[Step]:
    steps = []
    started, planned = sum(summary.counts.values()), summary.spec.budget.trials
    if summary.exhausted is None and started < planned:
        run = shlex.join(("tuner", "study", "run", summary.name))
        steps.append(Step(f"{planned - started} of {planned} trials have not started.", run))
    elif summary.best and not summary.confirmed and not summary.spec.confirmation:
        confirm = shlex.join(("tuner", "study", "confirm", summary.name))
        steps.append(Step("The best value is of one seed: run the finalists again.", confirm))
    return steps


def draw_importance(view: View) -> list[Chart]:
    """Draws the shares that choices explain: that of the optimizer, then those inside of each."""
    importance: Any = getattr(view.summary, "importance", None)
    if importance is None:
        return []
    charts: list[Chart] = []
    among = [one for one in (importance.choice, *importance.inside) if one is not None]
    for one in among:
        if one.explained is None or not one.shares:
            continue
        inside = f"the settings of {one.optimizer}" if one.optimizer else "the choice of optimizer"
        share = f"{one.explained:.0%} of the differences"
        name = f"importance-{len(charts)}"
        told = f"Among {one.trials} trials, {inside} explain {share}."
        left = (f"Too few trials for {', '.join(one.left_out)}.",) if one.left_out else ()
        shares = [(share.name, share.share) for share in one.shares]
        charts.append(draw_shares(name, f"Importance of {inside}", shares, told, left))
    return charts


def random_bands(view: View) -> list[Band]:
    """Returns what random search reaches over the range of each optimizer of a comparison."""
    compared = view.summary.compared
    if compared is None:
        return []
    curves = [(tuning.optimizer, tuning.draws.curve) for tuning in compared.tunings]
    return [
        Band(name, curve.median, curve.best, curve.worst, curve.open_from)
        for name, curve in curves
        if curve is not None
    ]
