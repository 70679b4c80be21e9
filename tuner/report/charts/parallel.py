"""Parallel coordinates: a line for each trial, across an axis for each setting that varies."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from tuner.domain.catalog.dimensions import format_value
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.printable import cut, printable
from tuner.domain.trials import TrialRecord
from tuner.report.charts.frame import WIDE
from tuner.report.charts.scales import Scale, Tick, fit_scale, is_positive
from tuner.report.charts.selection import spread
from tuner.report.charts.svg import Chart, Panel, write_element, write_number
from tuner.report.charts.view import View

LINES = 400
"""The most trials that are drawn."""

_AXES = 9
_HEIGHT = 240
_APART = 96
_NAMES = 20  # that have room on an axis


@dataclass(frozen=True)
class _Axis:
    """An axis: a scale for numbers, or places for names."""

    name: str
    scale: Scale | None = None
    names: tuple[str, ...] = ()

    def place(self, value: Any) -> float | None:
        """Returns where a value lies, from 0 at the bottom to 1; None where there is none."""
        if self.scale is not None:
            return self.scale.place(float(value)) if _is_number(value) else None
        known = None if value is None else _name(value)
        if known not in self.names:
            return None
        return 0.5 if len(self.names) == 1 else 1 - self.names.index(known) / (len(self.names) - 1)

    def ticks(self) -> list[Tick]:
        if self.scale is not None:
            return [Tick(self.scale.place(t.value), t.label) for t in self.scale.ticks(4)]
        return [Tick(self.place(name) or 0, cut(name, 14)) for name in self.names[:_NAMES]]


def draw_parallel(view: View) -> Chart | None:
    """Draws trials that have a value across their settings; None of fewer than three."""
    known = [r for r in view.listed if view.value(r) is not None]
    if len(known) < 3:
        return None
    settings = {record.number: _settings(view, record) for record in known}
    axes, left_out = _choose(view, settings)
    ordered = sorted(known, key=lambda r: -view.worse * (view.value(r) or 0.0))
    shown = spread(ordered, LINES)
    lines = [
        _line(view, record, [axis.place(settings[record.number].get(axis.name)) for axis in axes])
        for record in shown
    ]
    finding = f"{len(shown)} trials on {len(axes)} axes; the table of trials has the numbers."
    notes = [
        "A trial without a setting passes below its axis. Trials that are not complete are faint."
    ]
    if len(shown) < len(known):
        notes.append(f"Drawn are {len(shown):,} of {len(known):,} trials, evenly from good to bad.")
    if left_out:
        notes.append(f"Not drawn: {', '.join(left_out)}.")
    drawn = _draw(axes, lines, finding)
    legend = view.palette.legend(view.optimizers)
    return Chart(
        "parallel", "Settings of all trials", finding, (Panel(drawn),), legend, tuple(notes)
    )


def _settings(view: View, record: TrialRecord) -> dict[str, Any]:
    config = view.config(record)
    rate = OPTIMIZERS[config.optimizer].rate
    values: dict[str, Any] = {"optimizer": config.optimizer, "schedule": config.schedule}
    values["lr"] = config.optimizer_values.get(rate)
    values |= {k: v for k, v in config.optimizer_values.items() if k != rate}
    values["batch size"] = config.batch_size
    values["average"] = config.average
    values |= config.own
    return values | {view.objective: view.value(record)}


def _choose(view: View, settings: Mapping[int, Mapping[str, Any]]) -> tuple[list[_Axis], list[str]]:
    """Returns the axes of settings that vary, the objective's last, and the names of others."""
    values: dict[str, list[Any]] = {}
    for own in settings.values():
        for name, value in own.items():
            if value is not None:
                values.setdefault(name, []).append(value)
    first = ("optimizer", "schedule", "lr")
    own_names = {name for record in view.listed for name in view.config(record).own}
    varied = [
        n for n, known in values.items() if len(set(map(repr, known))) > 1 and n != view.objective
    ]
    varied.sort(key=lambda n: (n not in first, n not in own_names, -len(values[n])))
    kept = sorted(varied[: _AXES - 1], key=varied.index)
    axes = [_axis(name, values[name]) for name in kept]
    return [*axes, _Axis(view.objective, view.scale)], varied[_AXES - 1 :]


def _axis(name: str, values: Sequence[Any]) -> _Axis:
    if all(map(_is_number, values)):
        numbers = [float(value) for value in values]
        log = is_positive(numbers) and max(numbers) > 20 * min(numbers)
        return _Axis(name, fit_scale(numbers, log=log, pad=0.0))
    return _Axis(name, names=tuple(dict.fromkeys(map(_name, values))))


def _line(view: View, record: TrialRecord, places: Sequence[float | None]) -> Markup:
    gap = WIDE / len(places)
    heights = [_HEIGHT + 14 if place is None else _HEIGHT * (1 - place) for place in places]
    points = [
        f"{write_number(gap * (at + 0.5))},{write_number(height)}"
        for at, height in enumerate(heights)
    ]
    kind = view.palette.kind(record.optimizer)
    faint = "" if record.number in view.ranked else " faint"
    return write_element(
        "path", d=f"M{'L'.join(points)}", class_=f"{kind} curve{faint}", data_t=record.number
    )


def _draw(axes: Sequence[_Axis], lines: Sequence[Markup], label: str) -> Markup:
    parts = [
        write_element(
            "svg",
            *lines,
            y=26,
            width="100%",
            height=_HEIGHT + 18,
            viewBox=f"0 0 {WIDE} {_HEIGHT + 18}",
            preserveAspectRatio="none",
            class_="lines",
        )
    ]
    for at, axis in enumerate(axes):
        x = f"{write_number(100 * (at + 0.5) / len(axes), 2)}%"
        parts.append(write_element("line", x1=x, x2=x, y1=26, y2=_HEIGHT + 26, class_="axis"))
        name = cut(printable(axis.name), 15)
        parts.append(write_element("text", name, x=x, y=12, class_="axis-name"))
        for tick in axis.ticks():
            y = write_number(26 + _HEIGHT * (1 - tick.value) + 4)
            parts.append(write_element("text", printable(tick.label), x=x, y=y, class_="halo"))
    svg = write_element(
        "svg", *parts, width="100%", height=_HEIGHT + 48, role="img", aria_label=printable(label)
    )
    return write_element("div", svg, class_="plot flat", style=f"min-width:{_APART * len(axes)}px")


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _name(value: object) -> str:
    return (
        "none"
        if value is None
        else format_value(value)
        if isinstance(value, bool | int | float | str)
        else str(value)
    )
