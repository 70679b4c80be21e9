"""Lines that are no trial's metric: the learning rate by schedule, the way to averaged weights."""

from __future__ import annotations

from tuner.domain.catalog.dimensions import format_value
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.domain.printable import printable
from tuner.domain.trials import TrialRecord
from tuner.report.charts.frame import Frame, draw, line, mark
from tuner.report.charts.scales import Scale, Tick, fit_scale
from tuner.report.charts.svg import Chart, Key, Panel
from tuner.report.charts.view import View
from tuner.report.tables import number

_POINTS = 120
_DASHES = ("", " dashed", " dotted")
_SHAPES = ("circle", "square", "up", "down", "plus")
_EVEN = (Tick(0, "0"), Tick(0.25, "25%"), Tick(0.5, "50%"), Tick(0.75, "75%"), Tick(1, "100%"))


def draw_schedules(view: View) -> Chart | None:
    """Draws the learning rate of the best complete trial of each schedule over its training."""
    best: dict[str, TrialRecord] = {}
    for record in view.summary.records:
        if (value := view.ranked.get(record.number)) is not None:
            held = best.get(record.schedule)
            if held is None or view.worse * value < view.worse * view.ranked[held.number]:
                best[record.schedule] = record
    if not best:
        return None
    ordered = sorted(best.values(), key=lambda r: view.worse * view.ranked[r.number])
    first = ordered[0]
    finding = f"The best trial used {first.schedule}: {view.tell(view.ranked[first.number])}."
    note = "Each panel is the best trial of a schedule: how it scales the learning rate."
    if any(SCHEDULES[name].follows_metric for name in best):
        note += " What it lowers when the metric no longer improves is not drawn."
    return Chart(
        "schedules",
        "Schedules, as the best trial of each had them",
        finding,
        tuple(_panel(view, record) for record in ordered),
        (),
        (note,),
        ("schedule", view.objective, "trial", "optimizer", "its settings"),
        tuple(_row(view, record) for record in ordered),
    )


def _row(view: View, record: TrialRecord) -> tuple[str, ...]:
    values = view.config(record).schedule_values.items()
    own = ", ".join(f"{key}={format_value(value)}" for key, value in values)
    value = view.tell(view.ranked[record.number])
    return record.schedule, value, str(record.number), record.optimizer, own or "–"


def _panel(view: View, record: TrialRecord) -> Panel:
    config = view.config(record)
    factor = SCHEDULES[config.schedule].factor(config.schedule_values, _POINTS)
    points = [(step / (_POINTS - 1), factor(step)) for step in range(_POINTS)]
    top = max(1.0, *(value for _, value in points))
    frame = Frame(Scale(0, 1), Scale(0, top * 1.06), 80, "", "", _EVEN[::2])
    kind = view.palette.kind(record.optimizer)
    rate = config.optimizer_values.get(OPTIMIZERS[config.optimizer].rate)
    told = f"{view.tell(view.ranked[record.number])} with {record.optimizer}"
    if isinstance(rate, float):
        told += f", times lr {rate:.2g}"
    label = f"The factor of {record.schedule} on the learning rate over a trial. {told}."
    drawn = draw(frame, label, lines=[line(frame, points, f"{kind} best")])
    return Panel(drawn, printable(record.schedule), f"{told}.", None)


def draw_averages(view: View) -> Chart | None:
    """Draws the metric from the last weights of each average's best trial to their average."""
    known = [average for average in view.summary.averages if average.line]
    lines = [(one, [(x, y) for x, y in one.line or () if y is not None]) for one in known]
    lines = [(one, points) for one, points in lines if points]
    if not lines:
        return None
    values = [y for _, points in lines for _, y in points]
    ends = (Tick(0, "last weights"), Tick(0.5, "half way"), Tick(1, "average"))
    frame = Frame(Scale(0, 1), fit_scale(values), 220, "", view.study.metric, ends)
    drawn, marks, legend, rows = [], [], [], []
    for place, (one, points) in enumerate(lines):
        shape, dash = _SHAPES[place % len(_SHAPES)], _DASHES[place % len(_DASHES)]
        drawn.append(line(frame, points, f"ink best{dash}"))
        marks += [mark(frame, x, y, shape, "ink") for x, y in points]
        legend.append(Key(f"{one.average}, trial {one.best_trial}", "ink", shape))
        at = dict(points)
        rows.append((one.average, str(one.best_trial), *(number(at.get(e.value)) for e in ends)))
    first, points = lines[0]
    way = f"from {number(points[0][1])} to {number(points[-1][1])}"
    finding = f"{first.average}, trial {first.best_trial}: {way}."
    return Chart(
        "averages",
        "From the last weights to their average",
        finding,
        (Panel(draw(frame, finding, lines=drawn, marks=marks)),),
        tuple(legend),
        (),
        ("average", "trial", "last weights", "half way", "average of weights"),
        tuple(rows),
    )
