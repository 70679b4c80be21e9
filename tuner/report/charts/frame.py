"""The frame of a chart: its axes, and marks at numbers.

A chart is as wide as its place on the page. So places along x are per cent, those along y pixels;
lines lie in a layer that is stretched, and texts and marks keep their size on every screen.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tuner.domain.printable import printable
from tuner.report.charts.scales import Scale, Tick
from tuner.report.charts.svg import write_element, write_number

WIDE = 1000
"""The width of the stretched layer, in its own units."""

_LETTER = 6.6
"""About the width of a letter, in pixels."""


@dataclass(frozen=True)
class Frame:
    """The axes of a drawing.

    Attributes:
        x: The scale from left to right.
        y: The scale from bottom to top.
        height: The height of the plot without its labels, in pixels.
        x_title: What runs along x.
        y_title: What runs along y.
        x_ticks: The ticks of x; None for those of the scale.
        y_ticks: The ticks of y; None for those of the scale.
    """

    x: Scale
    y: Scale
    height: int = 200
    x_title: str = ""
    y_title: str = ""
    x_ticks: Sequence[Tick] | None = None
    y_ticks: Sequence[Tick] | None = None

    def across(self, value: float) -> str:
        """Returns the place of a number along x, in per cent."""
        return f"{write_number(100 * self.x.place(value), 2)}%"

    def stretched(self, value: float) -> str:
        """Returns the place of a number along x in the stretched layer."""
        return write_number(WIDE * self.x.place(value))

    def up(self, value: float) -> str:
        """Returns the place of a number along y, in pixels from the top."""
        return write_number(self.height * (1 - self.y.place(value)))


def draw(
    frame: Frame, label: str, *, lines: Iterable[Markup] = (), marks: Iterable[Markup] = ()
) -> Markup:
    """Returns a drawing with its axes.

    Args:
        frame: Its axes.
        label: What it shows, for those who cannot see it.
        lines: What lies in the stretched layer.
        marks: What lies above it.
    """
    y_ticks = list(frame.y.ticks(5) if frame.y_ticks is None else frame.y_ticks)
    x_ticks = list(frame.x.ticks(5) if frame.x_ticks is None else frame.x_ticks)
    left = 12 + round(_LETTER * max([2, *(len(tick.label) for tick in y_ticks)]))
    grid = [
        write_element("line", x1="0", x2="100%", y1=frame.up(t.value), y2=frame.up(t.value))
        for t in y_ticks
    ]
    names = [
        write_element("text", t.label, x=-6, y=frame.up(t.value), class_="ty") for t in y_ticks
    ]
    bottom = frame.height
    for tick in x_ticks:
        at = frame.across(tick.value)
        grid.append(write_element("line", x1=at, x2=at, y1=bottom, y2=bottom + 4))
        kind = f"tx{_anchor(frame.x.place(tick.value))}"
        names.append(write_element("text", tick.label, x=at, y=bottom + 17, class_=kind))
    layer = write_element(
        "svg",
        *lines,
        width="100%",
        height=frame.height,
        viewBox=f"0 0 {WIDE} {frame.height}",
        preserveAspectRatio="none",
        class_="lines",
    )
    drawn = write_element(
        "svg",
        write_element("g", *grid, class_="grid"),
        write_element("line", x1=0, x2="100%", y1=bottom, y2=bottom, class_="axis"),
        write_element("g", *names),
        layer,
        write_element("g", *marks),
        width="100%",
        height=frame.height + 24,
        role="img",
        aria_label=printable(label),
    )
    parts = [_title(frame.y_title, "y-title"), drawn, _title(frame.x_title, "x-title")]
    return write_element("div", *parts, class_="plot", style=f"--left:{left}px")


def _title(text: str, kind: str) -> Markup:
    return write_element("span", printable(text), class_=kind) if text else Markup("")


def mark(
    frame: Frame, x: float, y: float, symbol: str, kind: str = "", trial: int | None = None
) -> Markup:
    """Returns a mark at a point.

    Args:
        frame: The axes.
        x: Its number along x.
        y: Its number along y.
        symbol: The name of its shape.
        kind: Its classes.
        trial: The number of its trial, so that the page tells more of it.
    """
    return write_element(
        "use",
        href=f"#s-{symbol}",
        x=frame.across(x),
        y=frame.up(y),
        class_=kind or None,
        data_t=trial,
    )


def line(
    frame: Frame,
    points: Iterable[tuple[float, float]],
    kind: str = "",
    *,
    steps: bool = False,
    trial: int | None = None,
) -> Markup:
    """Returns a line through points.

    Args:
        frame: The axes.
        points: Its points.
        kind: Its classes.
        steps: Whether it goes across before it goes up or down.
        trial: The number of its trial.
    """
    path: list[str] = []
    before = ""
    for x, y in points:
        across, up = frame.stretched(x), frame.up(y)
        if not path:
            path.append(f"M{across},{up}")
        elif steps:
            path.append(f"H{across}" if up == before else f"H{across}V{up}")
        else:
            path.append(f"L{across},{up}")
        before = up
    return write_element("path", d="".join(path), class_=kind or None, data_t=trial)


def band(
    frame: Frame,
    points: Sequence[tuple[float, float, float]],
    kind: str = "",
    *,
    steps: bool = False,
) -> Markup:
    """Returns the area between two lines.

    Args:
        frame: The axes.
        points: Triples of a number along x, the lower and the upper number along y.
        kind: Its classes.
        steps: Whether its edges go across before they go up or down.
    """
    if not points:
        return Markup("")

    lower = [(x, low) for x, low, _ in points]
    upper = [(x, high) for x, _, high in points]
    if steps:
        lower, upper = _corners(lower), _corners(upper)
    around = [f"{frame.stretched(x)},{frame.up(y)}" for x, y in [*upper, *reversed(lower)]]
    return write_element("path", d=f"M{'L'.join(around)}z", class_=f"band {kind}".strip())


def _corners(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Returns the corners of a line that goes across before it goes up or down."""
    corners = list(points[:1])
    for (_, before), (x, y) in itertools.pairwise(points):
        corners += [(x, before), (x, y)]
    return corners


def shade(frame: Frame, low: float, high: float, kind: str) -> Markup:
    """Returns a band from the bottom to the top between two numbers along x."""
    ends = sorted(100 * frame.x.place(value) for value in (low, high))
    return write_element(
        "rect",
        x=f"{write_number(ends[0], 2)}%",
        width=f"{write_number(max(0.6, ends[1] - ends[0]), 2)}%",
        y=0,
        height=frame.height,
        class_=kind,
    )


def rule(frame: Frame, x: float, kind: str) -> Markup:
    """Returns a line from the bottom to the top at a number along x."""
    at = frame.across(x)
    return write_element("line", x1=at, x2=at, y1=0, y2=frame.height, class_=kind)


def draw_rows(
    rows: Sequence[tuple[str, int, Sequence[Markup]]], label: str, scale: Scale, title: str
) -> Markup:
    """Returns named rows above one axis, as of bars or intervals.

    Args:
        rows: The name of each row, its height in pixels, and what lies in it.
        label: What the drawing shows, for those who cannot see it.
        scale: The axis.
        title: What runs along it.
    """
    ticks = scale.ticks(5)
    places = [(f"{write_number(100 * scale.place(t.value), 2)}%", t) for t in ticks]
    drawn = []
    for name, height, inside in rows:
        lines = [
            write_element("line", x1=at, x2=at, y1=0, y2=height, class_="rule") for at, _ in places
        ]
        svg = write_element("svg", *lines, *inside, width="100%", height=height)
        told = write_element("div", printable(name), class_="row-name")
        drawn.append(write_element("div", told, svg, class_="row"))
    names = [
        write_element("text", t.label, x=at, y=14, class_=f"tx{_anchor(scale.place(t.value))}")
        for at, t in places
    ]
    axis = write_element("svg", *names, width="100%", height=20)
    drawn.append(write_element("div", write_element("div", "\u00a0"), axis, class_="row"))
    drawn.append(write_element("span", printable(title), class_="x-title"))
    return write_element("div", *drawn, class_="plot rows", role="img", aria_label=printable(label))


def _anchor(place: float) -> str:
    """Returns the class that keeps a label at an end of the axis inside of the drawing."""
    return " start" if place < 0.04 else " end" if place > 0.96 else ""


def thin(points: Sequence[tuple[float, float]], most: int) -> list[tuple[float, float]]:
    """Returns at most some number of points of a curve, evenly, with the first and the last."""
    if len(points) <= most:
        return list(points)
    step = (len(points) - 1) / (most - 1)
    return [points[math.floor(place * step + 0.5)] for place in range(most)]
