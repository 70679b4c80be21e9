"""Lines that are no trial's metric: the learning rate by schedule, the way to averaged weights."""

from __future__ import annotations

from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.domain.printable import printable
from tuner.domain.trials import TrialRecord
from tuner.report.charts.frame import Frame, draw, line, mark
from tuner.report.charts.scales import Scale, Tick, fit_scale
from tuner.report.charts.svg import Chart, Key, Panel
from tuner.report.charts.view import View

_POINTS = 120
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
    panels, rows = [], []
    for record in ordered:
        panels.append(_panel(view, record))
        config = view.configs[record.number]
        own = ", ".join(f"{key}={value:.3g}" if isinstance(value, float) else f"{key}={value}" for key, value in config.schedule_values.items())
        rows.append((record.schedule, view.tell(view.ranked[record.number]), str(record.number), record.optimizer, own or "–"))
    first = ordered[0]
    finding = f"The best trial used {first.schedule}: {view.tell(view.ranked[first.number])}."
    note = "Each panel is the best trial of a schedule: how it scales the learning rate as it trains. Its own lowering when the metric stalls is not drawn." if any(SCHEDULES[s].follows_metric for s in best) else "Each panel is the best trial of a schedule: how it scales the learning rate as it trains."
    head = ("schedule", view.objective, "trial", "optimizer", "its settings")
    return Chart("schedules", "Schedules, as the best trial of each had them", finding, tuple(panels), (), (note,), head, tuple(rows))


def _panel(view: View, record: TrialRecord) -> Panel:
    config = view.configs[record.number]
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
    lines = {a.average: (a, [(x, y) for x, y in a.line if y is not None]) for a in view.summary.averages if a.line}
    lines = {name: pair for name, pair in lines.items() if pair[1]}
    if not lines:
        return None
    values = [y for _, points in lines.values() for _, y in points]
    ends = (Tick(0, "last weights"), Tick(0.5, "half way"), Tick(1, "average"))
    frame = Frame(Scale(0, 1), fit_scale(values), 220, "", view.study.metric, ends)
    drawn, marks, legend = [], [], []
    dashes = ("", " dashed", " dotted")
    shapes = ("circle", "square", "up", "down", "plus")
    for place, (name, (average, points)) in enumerate(lines.items()):
        shape = shapes[place % len(shapes)]
        drawn.append(line(frame, points, f"ink best{dashes[place % 3]}"))
        marks += [mark(frame, x, y, shape, "ink") for x, y in points]
        legend.append(Key(f"{name}, trial {average.best_trial}", "ink", shape))
    name, (average, points) = next(iter(lines.items()))
    finding = f"{name}, trial {average.best_trial}: from {points[0][1]:.4g} to {points[-1][1]:.4g}."
    rows = tuple((n, str(a.best_trial), *(f"{dict(p).get(x, float('nan')):.4g}" for x in (0.0, 0.5, 1.0))) for n, (a, p) in lines.items())
    head = ("average", "trial", "last weights", "half way", "average of weights")
    return Chart("averages", "From the last weights to their average", finding, (Panel(draw(frame, finding, lines=drawn, marks=marks)),), tuple(legend), (), head, rows)
