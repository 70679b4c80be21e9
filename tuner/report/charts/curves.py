"""The metric of trials as they train, one line each."""

from __future__ import annotations

import shlex
from collections.abc import Iterable, Sequence

from tuner.domain.objective import tell_metric
from tuner.domain.trials import Outcome, TrialRecord
from tuner.report.charts.frame import Frame, draw, line, mark, thin
from tuner.report.charts.scales import Scale, cap_values, fit_scale, is_positive
from tuner.report.charts.selection import CURVES, with_curves
from tuner.report.charts.svg import Chart, Key, Panel
from tuner.report.charts.view import View
from tuner.report.tables import tell_count

POINTS = 60
"""The most points of one curve that a page draws."""

_MANY = 30
"""Complete trials from which on only the best of each optimizer keep a full line."""


def draw_curves(view: View) -> Chart | None:
    """Draws the curves of trials: colour tells the optimizer; of pruned ones they are faint."""
    drawn = [r for r in view.summary.records if view.curves.get(r.number)]
    if not drawn:
        return None
    frame = _frame(view, drawn, 300)
    bests = {record.number for record in view.bests.values()}
    order = sorted(drawn, key=lambda r: (r.outcome is Outcome.COMPLETE, r.number in bests))
    complete = sum(record.outcome is Outcome.COMPLETE for record in drawn)
    usual = " thin" if complete > _MANY else ""
    lines, marks = [], []
    for record in order:
        points = _points(view, record)
        kind = view.palette.kind(record.optimizer)
        weight = " faint" if record.outcome is not Outcome.COMPLETE else usual
        weight = " best" if record.number in bests else weight
        lines.append(line(frame, points, f"{kind} curve{weight}", trial=record.number))
        if record.number in bests:
            symbol = view.palette.symbol(record.optimizer)
            marks.append(mark(frame, *points[-1], symbol, kind, record.number))
    finding = _tell(view, drawn)
    return Chart(
        "curves",
        f"{tell_metric(view.study)} as trials train",
        finding,
        (Panel(draw(frame, finding, lines=lines, marks=marks)),),
        (
            *view.palette.legend(_names(view, drawn)),
            Key("pruned, or not over", "ink stroke faint", "line"),
            *([Key("the optimizer's best", "ink stroke", "line")] if usual else []),
        ),
        tuple(_notes(view, drawn)),
    )


def draw_winner(view: View) -> Chart | None:
    """Draws the winner's curve among the best curve of each other optimizer."""
    best = view.summary.best
    if best is None:
        return None
    led = best.config.optimizer
    bests = {**view.bests}
    if best.record.number in view.curves:  # which fresh seeds may have chosen
        bests[led] = best.record
    drawn = [record for record in bests.values() if view.curves.get(record.number)]
    if not drawn:
        return None
    frame = _frame(view, drawn, 220)
    lines, marks = [], []
    for record in sorted(drawn, key=lambda record: record.optimizer == led):
        points = _points(view, record)
        kind, symbol = view.palette.kind(record.optimizer), view.palette.symbol(record.optimizer)
        lead = " lead" if record.optimizer == led else ""
        lines.append(line(frame, points, f"{kind} curve{lead}", trial=record.number))
        marks.append(mark(frame, *points[-1], symbol, kind, record.number))
    finding = f"The best trial of each optimizer; {led}, drawn thick, is the answer's."
    return Chart(
        "winner-curve",
        "Its curve among the others' best",
        finding,
        (Panel(draw(frame, finding, lines=lines, marks=marks)),),
        view.palette.legend(_names(view, drawn)),
    )


def _frame(view: View, drawn: Iterable[TrialRecord], height: int) -> Frame:
    points = [point for record in drawn for point in view.curves[record.number].items()]
    values = [value for _, value in points]
    log = is_positive(values) and max(values) > 3 * min(values)
    worse = 1 if view.study.direction == "minimize" else -1
    cap = cap_values(values, log=log, worse=worse)
    shown = [value for value in values if cap is None or worse * value <= worse * cap]
    last = max(progress for progress, _ in points)
    first = min(progress for progress, _ in points)
    x = Scale(0 if last > 1 else first - 1, last)
    title = "evaluation" if view.summary.spec.budget.steps is None else "step"
    return Frame(x, fit_scale(shown, log=log), height, title, tell_metric(view.study))


def _points(view: View, record: TrialRecord) -> list[tuple[float, float]]:
    """Returns the points of a trial's curve that are drawn."""
    return thin(sorted(view.curves[record.number].items()), POINTS)


def _names(view: View, drawn: Iterable[TrialRecord]) -> list[str]:
    """Returns the optimizers of some trials, the best first."""
    names = {record.optimizer for record in drawn}
    return [name for name in view.optimizers if name in names]


def _notes(view: View, drawn: Sequence[TrialRecord]) -> list[str]:
    notes, every = [], with_curves(view.summary)
    name = shlex.quote(view.summary.name)
    if len(every) > CURVES:
        notes.append(
            f"Drawn are {len(drawn):,} of {len(every):,} trials, of each optimizer the best and "
            f"others evenly from good to bad. Any other: tuner trial show {name} NUMBER"
        )
    longest = max(len(view.curves[record.number]) for record in drawn)
    if view.study.rank_by == "best":
        notes.append(
            "A curve is the best evaluation so far, by which the study ranks; all evaluations of a "
            f"trial: tuner trial show {name} NUMBER --json"
        )
    if longest > POINTS:
        told = f"Of a curve's evaluations at most {POINTS} are drawn, evenly"
        notes.append(f"{told}; the longest has {longest:,}.")
    frame = _frame(view, drawn, 1)
    off = sum(any(not frame.y.holds(v) for v in view.curves[r.number].values()) for r in drawn)
    if off:
        told = f"The axis leaves out values that are far off, of {tell_count(off, 'curve')}"
        notes.append(f"{told}: there it follows the edge.")
    return notes


def _tell(view: View, drawn: Sequence[TrialRecord]) -> str:
    complete = sum(record.outcome is Outcome.COMPLETE for record in drawn)
    ended = len(drawn) - complete
    faint = f"; {ended} did not, drawn faint" if ended else ""
    return f"{tell_count(complete, 'trial')} trained to the end{faint}."
