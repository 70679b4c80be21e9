"""Colours and shapes of optimizers, the same on all of a page; colour means nothing else.

The hues were chosen by search: against the paper each has a contrast of 3 to 1 at least, and any
two differ for people with each kind of colour blindness. From the ninth optimizer on they come
again, with another shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from tuner.report.charts.svg import Key, write_element

PAPER = ("#ffffff", "#14181f")
"""The colour behind the charts: light, dark."""

HUES = (
    ("#0472ff", "#81a4ff"),
    ("#f65f13", "#fc3814"),
    ("#034645", "#128057"),
    ("#a67ba7", "#c23f9d"),
    ("#663804", "#f0df00"),
    ("#2503eb", "#8a52ff"),
    ("#00a566", "#81f3fe"),
    ("#940699", "#d5f7a4"),
)
"""The hues of optimizers: light, dark."""

_SHAPES = {
    "circle": "M-4,0a4,4 0 1,0 8,0a4,4 0 1,0 -8,0z",
    "square": "M-3.6,-3.6h7.2v7.2h-7.2z",
    "up": "M0,-4.6L4.4,3.4H-4.4z",
    "down": "M0,4.6L4.4,-3.4H-4.4z",
    "plus": "M-1.5,-4.5h3v3h3v3h-3v3h-3v-3h-3v-3h3z",
    "hexagon": "M-4.4,0L-2.2,-3.9H2.2L4.4,0L2.2,3.9H-2.2z",
    "bow": "M-4.2,-4L4.2,4V-4L-4.2,4z",
    "bar": "M-1.7,-4.8h3.4v9.6h-3.4z",
}
"""The shapes of optimizers, where lines and dots of several meet."""

_MARKS = {
    "dot": "M-3.5,0a3.5,3.5 0 1,0 7,0a3.5,3.5 0 1,0 -7,0z",
    "diamond": "M0,-6L5,0L0,6L-5,0z",
    "cross": "M-4,-4L4,4M4,-4L-4,4",
    "arrow": "M0,-5L4,2H-4z",
    "ring": "M-7,0a7,7 0 1,0 14,0a7,7 0 1,0 -14,0z",
    "tick": "M-1.2,-10h2.4v10h-2.4z",
    "line": "M-8,0H8",
    "bracket": "M0,-7V7",
    "bar-solid": "M-8,-4H8V4H-8z",
}
"""The marks of how trials ended, where the panel tells the optimizer."""


@dataclass(frozen=True)
class Palette:
    """The colours and shapes of a study's optimizers.

    Attributes:
        optimizers: Their names, in the order of the study file.
    """

    optimizers: tuple[str, ...]

    def kind(self, optimizer: str) -> str:
        """Returns the class that gives a mark its optimizer's colour."""
        return f"h{self._place(optimizer) % len(HUES)}"

    def symbol(self, optimizer: str) -> str:
        """Returns the name of an optimizer's shape."""
        place = self._place(optimizer)
        shapes = list(_SHAPES)
        return shapes[(place + place // len(HUES)) % len(shapes)]

    def key(self, optimizer: str, count: int | None = None) -> Key:
        """Returns an optimizer's entry of a legend."""
        return Key(optimizer, self.kind(optimizer), self.symbol(optimizer), count)

    def legend(self, optimizers: Sequence[str]) -> tuple[Key, ...]:
        """Returns the legend of some optimizers."""
        return tuple(self.key(optimizer) for optimizer in optimizers)

    def _place(self, optimizer: str) -> int:
        if optimizer in self.optimizers:
            return self.optimizers.index(optimizer)
        return len(self.optimizers)


def define_symbols() -> Markup:
    """Returns the shapes that all charts of a page use, defined once."""
    shapes = [
        write_element("path", id=f"s-{name}", d=path) for name, path in (_SHAPES | _MARKS).items()
    ]
    hatch = write_element(
        "pattern",
        write_element("path", d="M0,6L6,0", stroke="currentColor", stroke_width="1.5"),
        id="hatch",
        width=6,
        height=6,
        patternUnits="userSpaceOnUse",
    )
    defined = write_element("defs", *shapes, hatch)
    return write_element("svg", defined, width=0, height=0, class_="defs", aria_hidden="true")


def write_hues() -> str:
    """Returns the style sheet's rules for the optimizers' colours, in light and dark."""
    rules = [f".h{at}{{--c:light-dark({light},{dark})}}" for at, (light, dark) in enumerate(HUES)]
    return "\n".join(rules)


def write_paper() -> str:
    """Returns the style sheet's declaration of the colour behind the charts."""
    return f"--paper:light-dark({PAPER[0]},{PAPER[1]});"
