"""SVG as text: elements whose attributes and texts are escaped, numbers in few digits."""

from __future__ import annotations

from dataclasses import dataclass

from markupsafe import Markup, escape

from tuner.domain.printable import printable


def write_number(value: float, digits: int = 1) -> str:
    """Returns a coordinate as text, the same on every machine.

    Args:
        value: The coordinate.
        digits: Digits after the point, at most.

    >>> write_number(12.04), write_number(-0.01), write_number(2 / 3, 2)
    ('12', '0', '0.67')
    """
    text = f"{value:.{digits}f}"
    text = text.rstrip("0").rstrip(".") if "." in text else text
    return "0" if text == "-0" else text


def write_element(tag: str, *children: str, **attributes: object) -> Markup:
    """Returns an element.

    Args:
        tag: Its name.
        children: What it holds: markup as it is, any other text escaped.
        attributes: Its attributes; one that is None is left out. A ``_`` stands for a ``-``, and
            one at the end of a name is dropped, so that ``class_`` can be given.

    >>> print(write_element("text", "a<b", x=1, class_="t"))
    <text x="1" class="t">a&lt;b</text>
    """
    told = "".join(
        f' {name.rstrip("_").replace("_", "-")}="{escape(value)}"'
        for name, value in attributes.items()
        if value is not None
    )
    inner = "".join(map(escape, children))
    # Every part is escaped; names of tags and attributes are written by charts.
    return Markup(f"<{tag}{told}>{inner}</{tag}>" if inner else f"<{tag}{told}/>")  # noqa: S704


@dataclass(frozen=True)
class Key:
    """An entry of a legend.

    Attributes:
        name: What it stands for.
        kind: The classes of its mark, such as ``h3``.
        symbol: The name of its mark.
        count: How many there are, or None.
    """

    name: str
    kind: str
    symbol: str
    count: int | None = None

    def __post_init__(self) -> None:
        object.__setattr__(self, "name", printable(self.name))


@dataclass(frozen=True)
class Panel:
    """A drawing of a chart.

    Attributes:
        drawn: Its SVG.
        title: The heading above it; empty where the chart has but one.
        finding: What it shows, in words.
        key: The mark of its optimizer, or None.
    """

    drawn: Markup
    title: str = ""
    finding: str = ""
    key: Key | None = None


@dataclass(frozen=True)
class Chart:
    """A figure of the page.

    Attributes:
        name: Its anchor in the page.
        title: Its heading.
        finding: What it shows, in words, for those too who cannot see it.
        panels: Its drawings, side by side where there is room.
        legend: What its marks mean.
        notes: How to read it, and what it leaves out.
        head: The heads of the columns of its numbers.
        rows: Its numbers as a table; empty where the table of trials has them.
    """

    name: str
    title: str
    finding: str
    panels: tuple[Panel, ...]
    legend: tuple[Key, ...] = ()
    notes: tuple[str, ...] = ()
    head: tuple[str, ...] = ()
    rows: tuple[tuple[str, ...], ...] = ()
