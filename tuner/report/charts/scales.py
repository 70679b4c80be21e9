"""Scales: the place of a number along an axis, and the numbers that the axis names."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

_WIDE = 2.0
"""Decades from which on a logarithmic axis names powers of ten, and not steps of one width."""


@dataclass(frozen=True)
class Tick:
    """A number that an axis names.

    Attributes:
        value: The number.
        label: How it is written.
    """

    value: float
    label: str


@dataclass(frozen=True)
class Scale:
    """A map from numbers to places along an axis.

    Attributes:
        low: The number at place 0.
        high: The number at place 1, above ``low``.
        log: Whether equal ratios have equal distances; only of numbers above 0.
        backward: Whether the axis runs from ``high`` to ``low``.
        label: How a number is written.
    """

    low: float
    high: float
    log: bool = False
    backward: bool = False
    label: Callable[[float], str] | None = field(default=None, compare=False)

    def place(self, value: float) -> float:
        """Returns where a number lies: from 0 to 1, and clipped to the axis.

        >>> Scale(0.01, 1, log=True).place(0.1)
        0.5
        """
        if self.log:
            tiny = value <= 0
            at = 0.0 if tiny else _ratio(math.log(value), math.log(self.low), math.log(self.high))
        else:
            at = _ratio(value, self.low, self.high)
        at = min(1.0, max(0.0, at))
        return 1 - at if self.backward else at

    def holds(self, value: float) -> bool:
        """Tells whether a number lies on the axis."""
        slack = 1e-9 * max(abs(self.low), abs(self.high))
        return self.low - slack <= value <= self.high + slack

    def ticks(self, count: int = 5) -> list[Tick]:
        """Returns the numbers to name.

        Args:
            count: About how many there may be.

        >>> [tick.label for tick in Scale(0.001, 1, log=True).ticks()]
        ['0.001', '0.01', '0.1', '1']
        """
        values = self._decades(count) if self.log else even_values(self.low, self.high, count)
        held = [value for value in values if self.holds(value)]
        return [Tick(value, label) for value, label in zip(held, self._tell(held), strict=True)]

    def _tell(self, values: Sequence[float]) -> list[str]:
        """Returns numbers as text, in as few digits as tell them apart."""
        if self.label is not None:
            return [self.label(value) for value in values]
        labels: list[str] = []
        for digits in (4, 6, 9, 12, 17):
            labels = [write_value(value, digits) for value in values]
            if len(set(labels)) == len(labels):
                break
        return labels

    def _decades(self, count: int) -> list[float]:
        low, high = math.log10(self.low), math.log10(self.high)
        if high - low < 0.3:
            return even_values(self.low, self.high, count)
        first, last = math.floor(low), math.ceil(high)
        if high - low < _WIDE:
            for steps in ((1, 2, 5), (1, 3)):
                powers = range(first, last + 1)
                named = [step * 10.0**power for power in powers for step in steps]
                named = [value for value in named if self.holds(value)]
                if len(named) <= count + 1:
                    return named
        every = math.ceil((math.floor(high + 1e-9) - math.ceil(low - 1e-9) + 1) / count)
        return [10.0**power for power in range(first, last + 1) if power % every == 0]


def fit_scale(values: Iterable[float], *, log: bool = False, pad: float = 0.04) -> Scale:
    """Returns a scale that holds all of some numbers, with some room around them.

    Args:
        values: The numbers.
        log: Whether to make it logarithmic, if all of them are above 0.
        pad: The room at each end, as a part of the axis.
    """
    known = [value for value in values if math.isfinite(value)]
    if not known:
        return Scale(0.0, 1.0)
    low, high = min(known), max(known)
    if log and low > 0:
        room = pad * math.log(high / low) if high > low else math.log(1.5)
        return Scale(math.exp(math.log(low) - room), math.exp(math.log(high) + room), log=True)
    room = pad * (high - low) if high > low else abs(low) * 0.1 or 1.0
    return Scale(low - room, high + room)


def is_positive(values: Iterable[float]) -> bool:
    """Tells whether numbers can have a logarithmic axis: all lie above 0, and there are any."""
    known = list(values)
    return bool(known) and min(known) > 0


def cap_values(values: Iterable[float], *, log: bool, worse: int) -> float | None:
    """Returns the number from which on values are too bad for the axis; None where none is.

    That is beyond the worse quartile by more than one and a half times the distance of the
    quartiles, as in Tukey's box plots ("Exploratory Data Analysis", 1977).

    Args:
        values: The numbers.
        log: Whether distances are ratios.
        worse: 1 where larger ones are worse, -1 where smaller ones are.
    """
    known = sorted(math.log(value) if log else value for value in values)
    if len(known) < 8:
        return None
    low, high = _quantile(known, 0.25), _quantile(known, 0.75)
    fence = high + 1.5 * (high - low) if worse > 0 else low - 1.5 * (high - low)
    kept = [value for value in known if worse * value <= worse * fence]
    if len(kept) == len(known) or not kept:
        return None
    edge = max(kept) if worse > 0 else min(kept)
    return math.exp(edge) if log else edge


def write_value(value: float, digits: int = 4) -> str:
    """Returns a number as an axis has it, in few characters.

    Args:
        value: The number.
        digits: Its significant digits, at most.

    >>> [write_value(v) for v in (0.00001, 0.25, 1500, 2e6)]
    ['1e-5', '0.25', '1,500', '2e6']
    """
    if value and not 1e-4 <= abs(value) < 1e5:
        mantissa, power = f"{value:.{digits - 1}e}".split("e")
        return f"{mantissa.rstrip('0').rstrip('.')}e{int(power)}"
    return f"{value:.{digits}g}" if abs(value) < 1000 else _whole(value, digits)


def _whole(value: float, digits: int) -> str:
    """Returns a number of at least 1,000, its thousands set apart."""
    after = max(0, digits - 4)
    text = f"{value:,.{after}f}"
    return text.rstrip("0").rstrip(".") if after else text


def even_values(low: float, high: float, count: int) -> list[float]:
    """Returns round numbers of equal distance between two numbers, about as many as asked for."""
    if high <= low:
        return [low]
    rough = (high - low) / max(1, count - 1)
    size = 10.0 ** math.floor(math.log10(rough))
    step = next(size * factor for factor in (1, 2, 2.5, 5, 10) if size * factor >= rough * 0.99)
    first = math.ceil(low / step - 1e-9)
    last = math.floor(high / step + 1e-9)
    return [float(f"{place * step:.12g}") for place in range(first, last + 1)]


def _quantile(known: list[float], share: float) -> float:
    at = share * (len(known) - 1)
    low = math.floor(at)
    high = min(low + 1, len(known) - 1)
    return known[low] + (at - low) * (known[high] - known[low])


def _ratio(value: float, low: float, high: float) -> float:
    return 0.5 if high == low else (value - low) / (high - low)
