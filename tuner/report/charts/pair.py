"""The best of each optimizer in two studies, side by side."""

from __future__ import annotations

from collections.abc import Mapping

from markupsafe import Markup

from tuner.analysis.summary import StudySummary
from tuner.domain.objective import is_missed, sign_of, tell_objective, tell_value
from tuner.report.charts.frame import draw_rows
from tuner.report.charts.palette import Palette
from tuner.report.charts.scales import Scale, fit_scale, is_positive
from tuner.report.charts.svg import Chart, Key, Panel, write_element, write_number

_HEIGHT = 28

_SYMBOLS = ("dot", "diamond")
"""The marks of the two studies: one hollow, one filled."""


def draw_pair(one: StudySummary, other: StudySummary) -> Chart | None:
    """Draws the best of each optimizer in both studies; None where neither has any.

    Their values must be of one metric: see :func:`~tuner.report.difference.warn_of_difference`.
    """
    found = (_read_bests(one), _read_bests(other))
    values = [value for own in found for value in own.values()]
    if not values:
        return None
    log = is_positive(values) and max(values) > 3 * min(values)
    scale = fit_scale(values, log=log)
    palette = palette_of(one, other)
    rows = [(name, _HEIGHT, _draw(found, name, palette, scale)) for name in _order(found, one)]
    finding = _tell(one, other, found)
    table = tuple(
        (name, *(tell_value(one.spec.study, own.get(name)) for own in found)) for name, _, _ in rows
    )
    return Chart(
        "pair",
        "The best of each optimizer",
        finding,
        (Panel(draw_rows(rows, finding, scale, tell_objective(one.spec.study))),),
        (Key(one.name, "ink hollow", _SYMBOLS[0]), Key(other.name, "ink", _SYMBOLS[1])),
        ("One seed each, as searched; how sure it is, the answers say.",),
        ("optimizer", one.name, other.name),
        table,
    )


def palette_of(one: StudySummary, other: StudySummary) -> Palette:
    """Returns the colours of the optimizers of two studies, the same for both."""
    names = (*one.spec.space.optimizers, *other.spec.space.optimizers)
    return Palette(tuple(dict.fromkeys(names)))


def _read_bests(summary: StudySummary) -> dict[str, float]:
    return {
        row.optimizer: row.best_value
        for row in summary.optimizers
        if row.best_value is not None and not is_missed(summary.spec.study, row.best_value)
    }


def _order(found: tuple[Mapping[str, float], ...], one: StudySummary) -> list[str]:
    """Returns the optimizers, the best in either study first."""
    sign = sign_of(one.spec.study.ranking)
    bests = {
        name: min(sign * own[name] for own in found if name in own)
        for name in dict.fromkeys(name for own in found for name in own)
    }
    return sorted(bests, key=lambda name: (bests[name], name))


def _draw(
    found: tuple[Mapping[str, float], ...], name: str, palette: Palette, scale: Scale
) -> list[Markup]:
    kind, y = palette.kind(name), write_number(_HEIGHT / 2)
    places = [
        None if name not in own else f"{write_number(100 * scale.place(own[name]), 2)}%"
        for own in found
    ]
    drawn = []
    if None not in places:
        drawn.append(
            write_element("line", x1=places[0], x2=places[1], y1=y, y2=y, class_=f"{kind} link")
        )
    for place, symbol, fill in zip(places, _SYMBOLS, (" hollow", ""), strict=True):
        if place is not None:
            drawn.append(
                write_element("use", href=f"#s-{symbol}", x=place, y=y, class_=f"{kind}{fill}")
            )
    return drawn


def _tell(one: StudySummary, other: StudySummary, found: tuple[Mapping[str, float], ...]) -> str:
    """Returns in how many of the optimizers that both have tried which of them is ahead."""
    sign = sign_of(one.spec.study.ranking)
    both = [name for name in found[0] if name in found[1]]
    if not both:
        return "No optimizer has a value in both."
    ahead = [sum(sign * (found[1 - at][n] - found[at][n]) > 0 for n in both) for at in (0, 1)]
    many = f"{len(both)} optimizers" if len(both) > 1 else "one optimizer"
    return (
        f"Of {many} with a value in both, {one.name} is ahead in {ahead[0]}, "
        f"{other.name} in {ahead[1]}."
    )
