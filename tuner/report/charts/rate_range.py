"""The losses of a learning-rate range test, a panel for each optimizer."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from tuner.analysis.rate_range import RateCurve, RateRange
from tuner.domain.catalog.dimensions import Float
from tuner.report.charts.frame import Frame, draw, line, rule, shade
from tuner.report.charts.palette import Palette
from tuner.report.charts.scales import Scale, fit_scale
from tuner.report.charts.svg import Chart, Panel
from tuner.report.tables import number

HEAD = ("optimizer", "range to search", "steepest at", "least loss", "ended")


def draw_rate_range(curves: Sequence[RateCurve]) -> Chart:
    """Draws the loss of each optimizer by its learning rate, with the range to search shaded."""
    palette = Palette(tuple(curve.optimizer for curve in curves))
    known = [curve.optimizer for curve in curves if curve.find_range() is not None]
    finding = (
        f"The loss falls within the range of {', '.join(known)}."
        if known
        else "The loss falls nowhere, or hardly."
    )
    return Chart(
        "rate-range",
        "Loss by learning rate, which grows with every step",
        finding,
        tuple(_panel(curve, palette) for curve in curves),
        (),
        (
            "Faint: the loss of each step. Thick: their mean over neighbours. Shaded: the range to "
            "search, up to the least loss; dashed: where it falls fastest.",
        ),
        HEAD,
        tuple(rate_row(curve) for curve in curves),
    )


def rate_row(curve: RateCurve) -> tuple[str, ...]:
    """Returns what a test found of an optimizer, as the cells under :data:`HEAD`."""
    found = curve.find_range()
    at = curve.rates[-1]
    return (
        curve.optimizer,
        "none" if found is None else tell_axis(found.axis),
        "–" if found is None else number(found.steepest),
        number(min(curve.smoothed)),
        f"diverged at {at:.2g}" if curve.diverged else f"at {at:.2g}",
    )


def tell_axis(axis: Float) -> str:
    """Returns a range of learning rates in words.

    >>> tell_axis(Float(low=1e-3, high=0.1, log=True))
    '0.001 to 0.1'
    """
    return f"{axis.low:g} to {axis.high:g}"


def cap_losses(curve: RateCurve) -> tuple[float, float]:
    """Returns the least and the largest loss that a picture of a curve shows.

    What diverges would leave no room for the rest: a third of the fall above the start is enough.
    """
    smoothed = curve.smoothed
    few = max(1, len(smoothed) // 10)
    start, least = sum(smoothed[:few]) / few, min(smoothed)
    return least, max(start + max(start - least, 1e-9 * abs(start)) / 3, *smoothed[:few])


def _panel(curve: RateCurve, palette: Palette) -> Panel:
    key = palette.key(curve.optimizer)
    found = curve.find_range()
    x = Scale(curve.rates[0], curve.rates[-1], log=True)
    frame = Frame(x, fit_scale(cap_losses(curve)), 200, "learning rate", "loss")
    losses = line(frame, zip(curve.rates, curve.losses, strict=True), f"{key.kind} faint")
    means = line(frame, zip(curve.rates, curve.smoothed, strict=True), f"{key.kind} best")
    told = _tell(curve, found)
    marks = () if found is None else _mark_range(frame, found, key.kind)
    label = f"Loss of {curve.optimizer} by learning rate. {told}"
    return Panel(draw(frame, label, lines=[losses, means], marks=marks), key.name, told, key)


def _mark_range(frame: Frame, found: RateRange, kind: str) -> tuple[Markup, ...]:
    axis = found.axis
    low, high = max(axis.low, frame.x.low), min(axis.high, frame.x.high)
    return shade(frame, low, high, f"near {kind}"), rule(frame, found.steepest, "ends")


def _tell(curve: RateCurve, found: RateRange | None) -> str:
    if found is None:
        return "The loss falls nowhere, or hardly more than its noise."
    told = f"Search {tell_axis(found.axis)}; it falls fastest at {found.steepest:.2g}."
    if found.open_above:
        told += " It still falls at the end."
    return told
