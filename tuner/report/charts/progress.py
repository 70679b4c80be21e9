"""The best value after k trials of each optimizer: what more trials of it brought."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from tuner.analysis.random_search import RandomCurve
from tuner.report.charts.frame import Frame, band, draw, line, mark
from tuner.report.charts.scales import Scale, cap_values, fit_scale, is_positive
from tuner.report.charts.svg import Chart, Panel
from tuner.report.charts.view import View

_BANDS = (
    "Bands are not of these trials: they hold, with 95% confidence for all n at once, the median "
    "of random search over the optimizer's range, dotted, as far as there are points drawn evenly "
    "from it (Lourie, Cho and He 2023). Where the draws set no bound, a band ends at the edge of "
    "the plot."
)


def draw_progress(view: View, bands: Mapping[str, RandomCurve] | None = None) -> Chart | None:
    """Draws the best value after k trials of each optimizer; None before any is complete.

    Args:
        view: The study.
        bands: The values that random search reaches, by optimizer, where they are known.
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
    x = Scale(1, max(2, most))
    counts = [tick for tick in x.ticks() if tick.value == int(tick.value)]
    what = view.study.metric if view.study.target is None else view.objective
    title = f"best {what} so far"
    frame = Frame(x, y, 280, "trials of the optimizer", title, counts)
    lines, marks = [], []
    for name, own in (bands or {}).items():
        if name not in known:
            continue
        kind = view.palette.kind(name)
        lines.append(band(frame, _edges(view, own, y), kind))
        middle = [(float(n), v) for n, v in enumerate(own.median, start=1) if v is not None]
        lines.append(line(frame, middle, f"{kind} dotted"))
    for name, curve in known.items():
        kind, symbol = view.palette.kind(name), view.palette.symbol(name)
        last = (len(view.by_optimizer[name]), curve[-1][1])
        lines.append(line(frame, [*curve, last], f"{kind} best", steps=True))
        turns = [curve[0], *(b for a, b in itertools.pairwise(curve) if b[1] != a[1])]
        marks += [mark(frame, x, value, symbol, kind) for x, value in turns if y.holds(value)]
    notes = ["A mark is a trial that was better than all before it."]
    if bands:
        notes.append(_BANDS)
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


def random_bands(view: View) -> dict[str, RandomCurve]:
    """Returns the values that random search reaches, by optimizer of a comparison."""
    compared = view.summary.compared
    curves = {own.optimizer: own.draws.curve for own in (compared.tunings if compared else ())}
    return {name: curve for name, curve in curves.items() if curve is not None}


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


def _edges(view: View, own: RandomCurve, y: Scale) -> list[tuple[float, float, float]]:
    """Returns a band as triples of n, its lower and its upper edge; open ends lie at the plot's."""
    good, bad = (y.low, y.high) if view.worse > 0 else (y.high, y.low)
    opens = own.open_from or len(own.best) + 1
    edges = []
    for n, (best, worst) in enumerate(zip(own.best, own.worst, strict=True), start=1):
        better = (good if n >= opens else bad) if best is None else best
        ends = sorted((better, bad if worst is None else worst))
        edges.append((float(n), ends[0], ends[1]))
    return edges


def _worse(view: View) -> str:
    return "higher" if view.worse > 0 else "lower"
