"""The plots of a study's HTML page; of a large study each draws a part, and notes which."""

from __future__ import annotations

import itertools
import shlex
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, TypeVar

from plotly.graph_objects import Figure as Drawing
from plotly.subplots import make_subplots

from tuner.analysis.profiles import MOST_TAU
from tuner.analysis.summary import StudySummary
from tuner.domain.objective import is_reached, tell_objective, tell_value
from tuner.domain.printable import printable
from tuner.domain.trials import Outcome, TrialRecord

if TYPE_CHECKING:
    from tuner.analysis.compared import Compared
    from tuner.analysis.random_search import RandomCurve
    from tuner.analysis.suite import SuiteSummary

CURVES = 200
"""The most curves that a page draws."""

POINTS = 2_000
"""The most points or bars that a plot of all trials draws."""

_COLOURS = {
    Outcome.COMPLETE: "#1f6feb",
    Outcome.PRUNED: "#e8912d",
    Outcome.DIVERGED: "#a371f7",
    Outcome.FAILED: "#d1242f",
    Outcome.RUNNING: "#1a7f37",
    Outcome.WAITING: "#8c959f",
    Outcome.PAUSED: "#57606a",
}

T = TypeVar("T")


@dataclass(frozen=True)
class Figure:
    """A plot.

    Attributes:
        title: The heading above it.
        data: Its traces and layout for plotly, as JSON in which nothing ends a script element.
        note: How to read it, or which trials it leaves out; empty where nothing needs be said.
    """

    title: str
    data: str
    note: str = ""


def choose_curves(summary: StudySummary) -> list[int]:
    """Returns the numbers of the trials whose curves are drawn, at most :data:`CURVES`.

    Where there are more trials, each optimizer gets an equal share, if it has so many: one half
    of its best trials, the other spread evenly from good to bad.
    """
    trials = _with_curves(summary)
    by_optimizer: dict[str, list[TrialRecord]] = defaultdict(list)
    for record in sorted(trials, key=_badness(summary)):
        by_optimizer[record.optimizer].append(record)
    chosen: list[int] = []
    fewest_first = sorted(by_optimizer.values(), key=len)
    for place, own in enumerate(fewest_first):
        share = (CURVES - len(chosen)) // (len(fewest_first) - place)
        best = share - share // 2
        few = [*own[:best], *_spread(own[best:], share - best)]
        chosen += [record.number for record in few]
    return sorted(chosen)


def draw_figures(summary: StudySummary, curves: Sequence[TrialRecord]) -> list[Figure]:
    """Returns the plots of a study, which must have a complete trial.

    Args:
        summary: The study's results.
        curves: The trials of :func:`choose_curves`, with their evaluations.
    """
    values = [value for record in curves for value in record.evaluations.values()]
    values += [record.value for record in summary.records if record.value is not None]
    scale = "log" if min(values) > 0 else "linear"
    return [
        *([_draw_tuning(summary, summary.compared, scale)] if summary.compared else []),
        *([_draw_lines(summary)] if any(a.line for a in summary.averages) else []),
        _draw_history(summary, scale),
        _draw_curves(summary, curves, scale),
        _draw_choices(summary),
        _draw_timeline(summary),
    ]


def _draw_tuning(summary: StudySummary, compared: Compared, scale: str) -> Figure:
    """Draws each optimizer's best after n trials, beside random search over its range."""
    drawn = Drawing()
    for place, tuning in enumerate(compared.tunings):
        colour = _HUES[place % len(_HUES)]
        drawn.add_scatter(
            x=list(range(1, len(tuning.curve) + 1)),
            y=tuning.curve,
            mode="lines",
            line={"shape": "hv", "color": colour},
            name=printable(tuning.optimizer),
        )
        random = tuning.draws.curve
        if random is not None:
            shown = True if place < _SHOWN_BANDS else "legendonly"
            own: dict[str, Any] = {
                "legendgroup": f"random {place}",
                "mode": "lines",
                "visible": shown,
            }
            own |= {"x": list(range(1, len(random.median) + 1))}
            edges = _close_band(summary, compared, random)
            for edge, filled in zip(edges, (None, "tonexty"), strict=True):
                band = {"line": {"width": 0, "color": colour}, "fill": filled}
                drawn.add_scatter(y=edge, hoverinfo="skip", showlegend=False, **band, **own)
            dots = {"line": {"dash": "dot", "color": colour}}
            name = f"{printable(tuning.optimizer)}, random search"
            drawn.add_scatter(y=random.median, name=name, **dots, **own)
    drawn.update_xaxes(title="trials of the optimizer")
    drawn.update_yaxes(title=tell_objective(summary.spec.study), type=scale)
    drawn.update_layout(showlegend=True)
    return _finish("Tuning curves: the best after n trials", drawn, _TUNING_NOTE)


_HUES = ("#1f6feb", "#d1242f", "#1a7f37", "#a371f7", "#e8912d", "#0e7490", "#8c6d46", "#57606a")

_SHOWN_BANDS = 2

_TUNING_NOTE = (
    "Lines are the trials of this study in their order, defaults first. Bands are not theirs: they "
    "hold, with 95% confidence for all n at once, the median of random search, dotted, as far as "
    "there are points drawn evenly from the range (library opda; Lourie, Cho and He 2023). Where "
    "the draws set no bound, a band ends at the best or worst value of the study. The bands of the "
    "first two are shown; a click on a name shows or hides another."
)


def _close_band(
    summary: StudySummary, compared: Compared, random: RandomCurve
) -> tuple[list[float], list[float]]:
    """Returns a band's worse and better edge, at the edge of the plot where it is open."""
    curves = [tuning.curve for tuning in compared.tunings]
    drawn = [tuning.draws.curve for tuning in compared.tunings]
    curves += [curve.worst for curve in drawn if curve is not None]
    known = [value for curve in curves for value in curve if value is not None]
    ends = (min(known), max(known))
    best, worst = ends if summary.spec.study.ranking == "minimize" else ends[::-1]
    opens = random.open_from or len(random.best) + 1
    better = [
        (best if n >= opens else worst) if value is None else value
        for n, value in enumerate(random.best, start=1)
    ]
    return [worst if value is None else value for value in random.worst], better


def draw_profiles(summary: SuiteSummary) -> Figure:
    """Returns the plot of a suite's performance profiles by steps, of which it must have some.

    A profile rises where an optimizer reaches the target of one more workload.
    """
    drawn = Drawing()
    for score in summary.steps:
        ratios = sorted(
            standing.ratio
            for workload in summary.scored
            for standing in workload.standings
            if standing.speed.optimizer == score.optimizer
            and standing.ratio is not None
            and standing.ratio <= MOST_TAU
        )
        shares = [place / len(summary.scored) for place in range(len(ratios) + 1)]
        drawn.add_scatter(
            x=[1.0, *ratios, MOST_TAU],
            y=[*shares, shares[-1]],
            mode="lines",
            line={"shape": "hv"},
            name=score.optimizer,
        )
    drawn.update_xaxes(title="τ, times the fewest steps", range=[1, MOST_TAU])
    drawn.update_yaxes(title="share of targets reached", range=[0, 1.05], tickformat=".0%")
    drawn.update_layout(showlegend=True)
    return _finish("Performance profiles", drawn)


def _draw_lines(summary: StudySummary) -> Figure:
    """Draws the metric from the last weights of each average's best trial to their average."""
    drawn = Drawing()
    for average in summary.averages:
        if average.line:
            places, values = zip(*average.line, strict=True)
            name = f"{average.average}, trial {average.best_trial}"
            drawn.add_scatter(x=places, y=values, mode="lines+markers", name=name)
    ends = {"tickvals": [0, 0.5, 1], "ticktext": ["last weights", "half way", "average"]}
    drawn.update_xaxes(**ends)
    drawn.update_yaxes(title=_metric(summary))
    drawn.update_layout(showlegend=True)
    return _finish("From the last weights to their average", drawn)


def _draw_history(summary: StudySummary, scale: str) -> Figure:
    """Draws the values of complete trials by number, and the best value so far."""
    study = summary.spec.study
    complete = _complete(summary)
    better = min if summary.spec.study.ranking == "minimize" else max
    values = [record.value for record in complete if record.value is not None]
    bests = list(itertools.accumulate(values, better))
    turns = [place for place, best in enumerate(bests) if place == 0 or best != bests[place - 1]]
    turns = _spread(turns, POINTS // 2)
    kept = {*turns, *_spread(range(len(complete)), POINTS - len(turns))}
    shown = [record for place, record in enumerate(complete) if place in kept]
    drawn = Drawing()
    drawn.add_scatter(
        x=[record.number for record in shown],
        y=[record.value for record in shown],
        mode="markers",
        name=tell_objective(study),
    )
    drawn.add_scatter(
        x=[
            *(complete[place].number for place in turns),
            *(record.number for record in summary.records[-1:] if bests),
        ],
        y=[*(bests[place] for place in turns), *bests[-1:]],
        mode="lines",
        line={"shape": "hv"},
        name="best so far",
    )
    drawn.update_xaxes(title="trial")
    drawn.update_yaxes(title=tell_objective(study), type=scale)
    note = _tell(summary, shown, complete, "complete trials, evenly, and those that were best")
    return _finish("Best value over trials", drawn, note)


def _draw_curves(summary: StudySummary, curves: Sequence[TrialRecord], scale: str) -> Figure:
    drawn = Drawing()
    for record in curves:
        if record.evaluations:
            drawn.add_scatter(
                x=sorted(record.evaluations),
                y=[value for _, value in sorted(record.evaluations.items())],
                mode="lines+markers",
                marker={"maxdisplayed": 10},
                name=f"trial {record.number}",
            )
    drawn.update_xaxes(title="evaluation" if summary.spec.budget.steps is None else "step")
    drawn.update_yaxes(title=_metric(summary), type=scale)
    drawn.update_layout(showlegend=False)
    how = "trials, of each optimizer its best and others evenly from good to bad"
    note = _tell(summary, curves, _with_curves(summary), how)
    return _finish("Curves of all trials" if not note else "Curves of trials", drawn, note)


def _draw_choices(summary: StudySummary) -> Figure:
    """Draws the values of complete trials by optimizer, and by schedule."""
    complete = _complete(summary)
    shown = _spread(sorted(complete, key=_badness(summary)), POINTS)
    drawn = make_subplots(rows=1, cols=2, shared_yaxes=True)
    choices = {"optimizer": summary.spec.space.optimizers, "schedule": summary.spec.space.schedules}
    for column, (name, known) in enumerate(choices.items(), start=1):
        marker = {
            "color": [record.number for record in shown],
            "colorscale": "Blues",
            "showscale": column == 1,
            "colorbar": {"title": "trial"},
            "line": {"width": 0.5, "color": "grey"},
        }
        drawn.add_scatter(
            x=[printable(getattr(record, name)) for record in shown],
            y=[record.value for record in shown],
            mode="markers",
            marker=marker,
            showlegend=False,
            row=1,
            col=column,
        )
        order = {"categoryorder": "array", "categoryarray": list(known)}
        drawn.update_xaxes(title=name, type="category", row=1, col=column, **order)
    drawn.update_yaxes(title=tell_objective(summary.spec.study), row=1, col=1)
    note = _tell(summary, shown, complete, "complete trials, evenly from good to bad")
    return _finish("Values by optimizer and schedule", drawn, note)


def _draw_timeline(summary: StudySummary) -> Figure:
    """Draws a bar from each trial's start to its end, or to the latest time known if it runs."""
    started = [record for record in summary.records if record.started_at is not None]
    shown = _spread(started, POINTS)
    ends = [moment for r in started for moment in (r.started_at, r.finished_at) if moment]
    drawn = Drawing()
    for outcome, colour in _COLOURS.items():
        own = [record for record in shown if record.outcome is outcome]
        if own:
            drawn.add_bar(
                base=[_iso(record.started_at) for record in own],
                x=[_lasted_ms(record, max(ends)) for record in own],
                y=[record.number for record in own],
                text=[_describe(summary, record) for record in own],
                textposition="none",
                hovertemplate="%{text}",
                orientation="h",
                name=outcome.value,
                marker={"color": colour},
            )
    drawn.update_xaxes(title="time", type="date")
    drawn.update_yaxes(title="trial")
    drawn.update_layout(showlegend=True)
    return _finish("Trials over time", drawn, _tell(summary, shown, started, "trials, evenly"))


def _finish(title: str, drawn: Any, note: str = "") -> Figure:
    drawn.update_layout(title=None, template="plotly_white", margin={"t": 30, "b": 40})
    return Figure(title, drawn.to_json(), note)


def _tell(summary: StudySummary, drawn: Sequence[T], every: Sequence[T], which: str) -> str:
    """Returns a sentence on which trials are drawn; nothing where all of them are."""
    if len(drawn) == len(every):
        return ""
    name = shlex.quote(summary.name)
    return (
        f"Drawn are {len(drawn):,} of {len(every):,} {which}. All of them: tuner study show "
        f"{name} --json; the curve of one: tuner trial show {name} NUMBER."
    )


def _spread(items: Sequence[T], count: int) -> list[T]:
    """Returns at most ``count`` items, evenly spaced from the first to the last."""
    if len(items) <= count:
        return list(items)
    if count < 2:
        return list(items[: max(0, count)])
    return [items[place * (len(items) - 1) // (count - 1)] for place in range(count)]


def _complete(summary: StudySummary) -> list[TrialRecord]:
    """Returns the complete trials whose values are drawn: with a target, those that reached it."""
    study = summary.spec.study
    return [
        record
        for record in summary.records
        if record.outcome is Outcome.COMPLETE
        and record.value is not None
        and (study.target is None or is_reached(study, record.value))
    ]


def _with_curves(summary: StudySummary) -> list[TrialRecord]:
    """Returns the trials whose curves may be drawn: all that did not fail."""
    return [record for record in summary.records if record.outcome is not Outcome.FAILED]


def _badness(summary: StudySummary) -> Callable[[TrialRecord], tuple[bool, float, int]]:
    """Returns a sort key from good to bad: complete trials by value, then all others."""
    sign = 1.0 if summary.spec.study.ranking == "minimize" else -1.0

    def key(record: TrialRecord) -> tuple[bool, float, int]:
        value = float("inf") if record.value is None else sign * record.value
        return record.outcome is not Outcome.COMPLETE, value, record.number

    return key


def _metric(summary: StudySummary) -> str:
    return summary.spec.study.metric


def _iso(moment: datetime | None) -> str:
    return moment.isoformat() if moment else ""


def _lasted_ms(record: TrialRecord, last: datetime) -> float:
    if record.started_at is None:
        return 0.0
    return 1e3 * ((record.finished_at or last) - record.started_at).total_seconds()


def _describe(summary: StudySummary, record: TrialRecord) -> str:
    told = tell_value(summary.spec.study, record.value)
    value = "" if record.value is None else f", {told}"
    text = f"trial {record.number}: {record.optimizer}, {record.schedule}{value}"
    return printable(text)
