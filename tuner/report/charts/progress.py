"""The best value after k trials of each optimizer: what more trials of it brought."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tuner.report.charts.frame import Frame, band, draw, line, mark
from tuner.report.charts.scales import Scale, cap_values, fit_scale, is_positive
from tuner.report.charts.svg import Chart, Panel
from tuner.report.charts.view import View

Values = Sequence[float | None]


@dataclass(frozen=True)
class Band:
    """What random search over an optimizer's range reaches after n trials, for n = 1, 2, ….

    Attributes:
        optimizer: The optimizer.
        best: The better edge of the band; None where nothing bounds it.
        worst: The worse edge; None where nothing bounds it.
    """

    optimizer: str
    best: Values
    worst: Values


def draw_progress(view: View, bands: Sequence[Band] = ()) -> Chart | None:
    """Draws the best value after k trials of each optimizer; None before any is complete.

    Args:
        view: The study.
        bands: What random search reaches, where it is known.
    """
    curves = {name: _follow(view, name) for name in view.optimizers}
    known = {name: curve for name, curve in curves.items() if curve}
    if not known:
        return None
    values = [value for curve in known.values() for _, value in curve]
    most = max(len(view.by_optimizer[name]) for name in known)
    log = is_positive(values) and max(values) > 3 * min(values)
    cap = cap_values(values, log=log, worse=view.worse)
    y = fit_scale([v for v in values if cap is None or view.worse * v <= view.worse * cap], log=log)
    frame = Frame(Scale(1, max(2, most)), y, 280, "trials of the optimizer", f"best {view.objective} so far")
    lines, marks = [], []
    for own in bands:
        kind = view.palette.kind(own.optimizer)
        lines.append(band(frame, _edges(own, y), f"{kind}", steps=True))
    for name, curve in known.items():
        kind, symbol = view.palette.kind(name), view.palette.symbol(name)
        last = (len(view.by_optimizer[name]), curve[-1][1])
        lines.append(line(frame, [*curve, last], f"{kind} best", steps=True))
        turns = [curve[0], *(b for a, b in zip(curve, curve[1:], strict=False) if b[1] != a[1])]
        marks += [mark(frame, x, value, symbol, kind) for x, value in turns if y.holds(value)]
    notes = ["A mark is a trial that was better than all before it."]
    if bands:
        notes.append("Bands: where random search over the optimizer's range gets, as its even draws tell.")
    if cap is not None:
        notes.append(f"The axis leaves out first values that were far {_worse(view)}.")
    finding = _tell(view, known)
    return Chart(
        "progress",
        "Best after k trials, by optimizer",
        finding,
        (Panel(draw(frame, finding, lines=lines, marks=marks)),),
        view.palette.legend(list(known)),
        tuple(notes),
        ("optimizer", "trials", "best", "found by its trial number"),
        tuple(_row(view, name, curve) for name, curve in known.items()),
    )


def _follow(view: View, name: str) -> list[tuple[int, float]]:
    """Returns the best value so far by the count of an optimizer's trials, from its first value."""
    found: list[tuple[int, float]] = []
    for place, record in enumerate(view.by_optimizer[name], start=1):
        value = view.ranked.get(record.number)
        if value is None:
            continue
        best = value if not found else found[-1][1]
        found.append((place, min(value, best) if view.worse > 0 else max(value, best)))
    return found


def _row(view: View, name: str, curve: Sequence[tuple[int, float]]) -> tuple[str, ...]:
    best = curve[-1][1]
    found = next(place for place, value in curve if value == best)
    return name, str(len(view.by_optimizer[name])), view.tell(best), str(found)


def _tell(view: View, known: dict[str, list[tuple[int, float]]]) -> str:
    name, curve = next(iter(known.items()))
    best = curve[-1][1]
    found = next(place for place, value in curve if value == best)
    many = len(view.by_optimizer[name])
    return f"{name} reached its best, {view.tell(best)}, with trial {found} of its {many}."


def _edges(own: Band, y: Scale) -> list[tuple[float, float, float]]:
    pairs = zip(own.best, own.worst, strict=True)
    edges = []
    for n, (best, worst) in enumerate(pairs, start=1):
        ends = sorted((y.low if best is None else best, y.high if worst is None else worst))
        edges.append((float(n), ends[0], ends[1]))
    return edges


def _worse(view: View) -> str:
    return "higher" if view.worse > 0 else "lower"
