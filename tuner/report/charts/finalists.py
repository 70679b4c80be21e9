"""The finalists on fresh seeds: the mean of each with its interval, and every seed's value."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from markupsafe import Markup

from tuner.report.charts.frame import draw_rows
from tuner.report.charts.scales import Scale, fit_scale
from tuner.report.charts.svg import Chart, Key, Panel, write_element, write_number
from tuner.report.charts.view import View
from tuner.report.tables import finalists
from tuner.report.verdict_words import tell_confirmed

if TYPE_CHECKING:
    from tuner.analysis.confirmed import Confirmed
    from tuner.analysis.verdict import ArmResult

_HEIGHT = 40
_LANES = 5


def draw_finalists(view: View) -> Chart | None:
    """Draws the finalists; None where none has run again yet."""
    confirmed = view.summary.confirmed
    if confirmed is None or not any(arm.seeds for arm in confirmed.verdict.arms):
        return None
    seeds = {arm.trial: _finite(arm.values) for arm in confirmed.arms}
    ends = [end for arm in confirmed.verdict.arms for end in arm.interval or ()]
    values = [*ends, *(value for own in seeds.values() for value in own)]
    if not values:
        return None
    scale = fit_scale(values)
    rows = [
        (_name(confirmed, arm), _HEIGHT, _draw(view, confirmed, arm, seeds[arm.trial], scale))
        for arm in confirmed.verdict.arms
    ]
    table = finalists(confirmed)
    finding = tell_confirmed(confirmed)[0]
    return Chart(
        "finalists",
        table.title,
        finding,
        (Panel(draw_rows(rows, finding, scale, view.objective)),),
        (
            Key("one seed", "ink hollow", "dot"),
            Key("mean", "ink", "diamond"),
            Key("95% interval of the mean", "ink stroke thick", "line"),
        ),
        ("Seeds on which a finalist diverged are not drawn; the table counts them.",)
        if any(arm.diverged for arm in confirmed.verdict.arms)
        else (),
        table.columns,
        table.rows,
    )


def _name(confirmed: Confirmed, arm: ArmResult) -> str:
    rate = confirmed.rate(arm.trial)
    told = confirmed.tell(arm.trial) + ("" if rate is None else f", lr {rate:.2g}")
    lost = f", diverged on {arm.diverged} of {arm.seeds} seeds" if arm.diverged else ""
    return f"{told} – {arm.standing}{lost}"


def _draw(
    view: View, confirmed: Confirmed, arm: ArmResult, seeds: list[float], scale: Scale
) -> list[Markup]:
    kind = view.palette.kind(confirmed.configs[arm.trial].optimizer)
    middle = _HEIGHT / 2

    def across(value: float) -> str:
        return f"{write_number(100 * scale.place(value), 2)}%"

    drawn = []
    if arm.interval is not None:
        low, high = map(across, arm.interval)
        drawn.append(
            write_element("line", x1=low, x2=high, y1=middle, y2=middle, class_=f"{kind} interval")
        )
    for place, value in enumerate(seeds):
        y = middle + (place % _LANES - _LANES // 2) * 5
        drawn.append(_put("dot", across(value), y, f"{kind} hollow"))
    if arm.mean is not None:
        drawn.append(_put("diamond", across(arm.mean), middle, f"{kind} mean"))
    return drawn


def _put(symbol: str, x: str, y: float, kind: str) -> Markup:
    return write_element("use", href=f"#s-{symbol}", x=x, y=write_number(y), class_=kind)


def _finite(values: tuple[float | None, ...]) -> list[float]:
    return [value for value in values if value is not None and math.isfinite(value)]
