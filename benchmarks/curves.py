"""Curves as an SVG picture: panels side by side, both axes in powers of ten."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from html import escape

_WIDTH, _HEIGHT = 380, 300
_LEFT, _RIGHT, _TOP, _BOTTOM = 62, 14, 34, 46
_LEGEND = 18

_STYLE = """
text { font-size: 12px; fill: #1f2328 } .title { font-weight: bold }
path { fill: none; stroke-width: 2 } .frame { stroke: #afb8c1; stroke-width: 1 }
.grid { stroke: #afb8c1; stroke-width: 0.5; stroke-dasharray: 2 3 }
.c0 { stroke: #0969da } .c1 { stroke: #bc4c00 } .c2 { stroke: #1a7f37 } .c3 { stroke: #8250df }
.c4 { stroke: #bf3989 } .c5 { stroke: #6e7781 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .frame, .grid { stroke: #57606a } }
"""


@dataclass(frozen=True)
class Panel:
    """A diagram.

    Attributes:
        title: What it shows.
        x: What is on the horizontal axis.
        y: What is on the vertical axis.
        lines: Points (x, y), both above 0, by name; at most six.
    """

    title: str
    x: str
    y: str
    lines: dict[str, list[tuple[float, float]]] = field(default_factory=dict)


def draw(panels: list[Panel], title: str) -> str:
    """Returns the picture.

    >>> draw([Panel("t", "n", "s", {"a": [(1, 1), (10, 20)]})], "A test").startswith("<svg")
    True
    """
    height = _HEIGHT + _LEGEND * max(len(panel.lines) for panel in panels)
    width = _WIDTH * len(panels)
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" font-family="sans-serif">',
        f"<title>{escape(title)}</title>",
        f"<style>{_STYLE}</style>",
    ]
    for place, panel in enumerate(panels):
        parts += [f'<g transform="translate({place * _WIDTH} 0)">', *_draw(panel), "</g>"]
    return "\n".join([*parts, "</svg>", ""])


def _draw(panel: Panel) -> list[str]:
    points = [point for line in panel.lines.values() for point in line]
    x_axis = _Axis([x for x, _ in points], _LEFT, _WIDTH - _RIGHT)
    y_axis = _Axis([y for _, y in points], _HEIGHT - _BOTTOM, _TOP)
    right, bottom = _WIDTH - _RIGHT, _HEIGHT - _BOTTOM
    middle = (_LEFT + right) / 2
    parts = [
        f'<text class="title" x="{_LEFT}" y="20">{escape(panel.title)}</text>',
        f'<path class="frame" d="M{_LEFT} {_TOP}H{right}V{bottom}H{_LEFT}Z"/>',
        f'<text x="{middle}" y="{_HEIGHT - 10}" text-anchor="middle">{escape(panel.x)}</text>',
        f'<text transform="translate(14 {(_TOP + bottom) / 2}) rotate(-90)" '
        f'text-anchor="middle">{escape(panel.y)}</text>',
    ]
    for at, label in x_axis.ticks:
        parts.append(f'<path class="grid" d="M{at:.1f} {_TOP}V{bottom}"/>')
        parts.append(f'<text x="{at:.1f}" y="{bottom + 16}" text-anchor="middle">{label}</text>')
    for at, label in y_axis.ticks:
        parts.append(f'<path class="grid" d="M{_LEFT} {at:.1f}H{right}"/>')
        parts.append(f'<text x="{_LEFT - 5}" y="{at + 4:.1f}" text-anchor="end">{label}</text>')
    for number, (name, line) in enumerate(panel.lines.items()):
        spots = "L".join(f"{x_axis(x):.1f} {y_axis(y):.1f}" for x, y in sorted(line))
        legend = _HEIGHT + _LEGEND * number
        parts.append(f'<path class="c{number}" d="M{spots}"/>')
        parts.append(f'<path class="c{number}" d="M{_LEFT} {legend}h24"/>')
        parts.append(f'<text x="{_LEFT + 32}" y="{legend + 4}">{escape(name)}</text>')
    return parts


class _Axis:
    """Places values between two ends by their logarithm; whole powers of ten are marked."""

    def __init__(self, values: list[float], start: float, end: float) -> None:
        self._low = math.floor(math.log10(min(values)))
        self._high = max(math.ceil(math.log10(max(values))), self._low + 1)
        self._start, self._end = start, end

    def __call__(self, value: float) -> float:
        share = (math.log10(value) - self._low) / (self._high - self._low)
        return self._start + share * (self._end - self._start)

    @property
    def ticks(self) -> list[tuple[float, str]]:
        powers = range(self._low, self._high + 1)
        return [(self(10.0**power), _label(power)) for power in powers]


def _label(power: int) -> str:
    if power >= 6:
        return f"{10 ** (power - 6)}M"
    if power >= 3:
        return f"{10 ** (power - 3)}k"
    return f"{10.0**power:g}"
