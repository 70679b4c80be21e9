"""The best value after k trials of each optimizer: what more trials of it brought."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from markupsafe import Markup

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


_HEIGHT, _SMALL = 280, 170

Curve = Sequence[tuple[int, float]]
"""The best value so far, by the count of an optimizer's trials."""


def draw_progress(view: View, bands: Mapping[str, RandomCurve] | None = None) -> Chart | None:
    """Draws the best value after k trials of each optimizer; None before any is complete.

    Bands of several optimizers would hide each other. So where there are any, each optimizer has a
    panel of its own, on axes that all share, with the others as faint lines.

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
    counts = [tick for tick in x.ticks(5) if tick.value == int(tick.value)]
    height = _SMALL if bands else _HEIGHT
    what = view.study.metric if view.study.target is None else view.objective
    title = f"best {what}" if bands else f"best {what} so far"
    frame = Frame(x, y, height, "its trials" if bands else "trials of the optimizer", title, counts)
    finding = _tell(view, known)
    if bands:
        panels = [_draw_own(view, frame, name, known, bands.get(name)) for name in known]
    else:
        panels = [_draw_all(view, frame, known, finding)]
    notes = ["A mark is a trial that was better than all before it."]
    if bands:
        notes += ["Thin lines are the other optimizers.", _BANDS]
    if cap is not None:
        notes.append(f"The axis leaves out first values that were far {_worse(view)}.")
    return Chart(
        "progress",
        "Best after k trials, by optimizer",
        finding,
        tuple(panels),
        () if bands else view.palette.legend(list(known)),
        tuple(notes),
        ("optimizer", "trials", "best", "found by its trial number"),
        tuple(_row(view, name, curve) for name, curve in known.items()),
    )


def _draw_all(view: View, frame: Frame, known: Mapping[str, Curve], finding: str) -> Panel:
    """Returns one panel with the lines of all optimizers."""
    lines, marks = [], []
    for name, curve in known.items():
        lines.append(_draw_line(view, frame, name, curve, "best"))
        marks += _draw_turns(view, frame, name, curve)
    return Panel(draw(frame, finding, lines=lines, marks=marks))


def _draw_own(
    view: View, frame: Frame, name: str, known: Mapping[str, Curve], own: RandomCurve | None
) -> Panel:
    """Returns the panel of one optimizer: its line and band, the other lines faint."""
    kind = view.palette.kind(name)
    others = [(other, curve) for other, curve in known.items() if other != name]
    lines = []
    if own is not None:
        lines.append(band(frame, _edges(view, own, frame.y), kind))
    lines += [_draw_line(view, frame, other, curve, "other") for other, curve in others]
    if own is not None:
        middle = [(float(n), v) for n, v in enumerate(own.median, start=1) if v is not None]
        lines.append(line(frame, middle, f"{kind} dotted"))
    lines.append(_draw_line(view, frame, name, known[name], "best"))
    finding = _tell(view, {name: known[name]})
    marks = _draw_turns(view, frame, name, known[name])
    drawn = draw(frame, finding, lines=lines, marks=marks)
    return Panel(drawn, name, finding.removeprefix(f"{name} "), view.palette.key(name))


def _draw_line(view: View, frame: Frame, name: str, curve: Curve, kind: str) -> Markup:
    last = (len(view.by_optimizer[name]), curve[-1][1])
    own = kind if kind == "other" else f"{view.palette.kind(name)} {kind}"
    return line(frame, [*curve, last], own, steps=True)


def _draw_turns(view: View, frame: Frame, name: str, curve: Curve) -> list[Markup]:
    """Returns a mark for each trial that was better than all before it."""
    kind, symbol = view.palette.kind(name), view.palette.symbol(name)
    turns = [curve[0], *(b for a, b in itertools.pairwise(curve) if b[1] != a[1])]
    return [mark(frame, x, value, symbol, kind) for x, value in turns if frame.y.holds(value)]


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


def _tell(view: View, known: Mapping[str, Curve]) -> str:
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
