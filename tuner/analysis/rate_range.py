"""The curve of a learning-rate range test: losses in, the range that is worth searching out.

The rate grows from step to step while the model trains. Where the loss begins to fall, rates begin
to be large enough; where it falls no further, they begin to be too large (Smith, "Cyclical Learning
Rates for Training Neural Networks", arXiv:1506.01186).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from tuner.domain.catalog.dimensions import Float

FEWEST = 10
"""Steps that a test takes at least before its curve is judged."""

_WEIGHT = 0.9
"""The weight of the past in the mean that tells whether a curve has diverged."""

_WIDTH = 0.02
"""The standard deviation of the kernel that smooths a curve, as a part of its steps."""

_FALLEN = 0.1
"""The part of a curve's whole fall from which on the loss counts as falling."""

_LEAST_RATIO = 100.0
"""The least ratio of a range's ends: longer training than a test's wants lower rates."""


@dataclass(frozen=True)
class RateRange:
    """The rates of an optimizer between which a loss falls.

    Attributes:
        low: The rate to search from: where the loss began to fall, and two decades below ``high``
            at most.
        high: The rate to search to: where the loss was least.
        steepest: The rate at which the loss fell fastest.
        open_below: Whether it fell from the first rate on, so that lower ones may do too.
        open_above: Whether it fell up to the last rate, so that higher ones may do too.
    """

    low: float
    high: float
    steepest: float
    open_below: bool
    open_above: bool

    @property
    def axis(self) -> Float:
        """The range as a study file has it, its ends in two digits."""
        return Float(low=_round(self.low, math.floor), high=_round(self.high, math.ceil), log=True)


@dataclass(frozen=True)
class RateCurve:
    """The losses of an optimizer by rising learning rates.

    Attributes:
        optimizer: Its name.
        rates: The rate of each step, rising.
        losses: The loss before each step.
        diverged: Whether the test ended since the loss had grown too large.
    """

    optimizer: str
    rates: tuple[float, ...]
    losses: tuple[float, ...]
    diverged: bool

    @property
    def smoothed(self) -> tuple[float, ...]:
        """The losses without their noise: means over neighbours, weighted by a bell curve."""
        width = max(1.0, _WIDTH * len(self.losses))
        reach = math.ceil(3 * width)
        weights = [math.exp(-0.5 * (step / width) ** 2) for step in range(-reach, reach + 1)]
        smoothed = []
        for at in range(len(self.losses)):
            # Near an end fewer neighbours count, as many on either side.
            own = min(reach, at, len(self.losses) - 1 - at)
            chosen = weights[reach - own : reach + own + 1]
            pairs = zip(chosen, self.losses[at - own : at + own + 1], strict=True)
            smoothed.append(sum(weight * loss for weight, loss in pairs) / sum(chosen))
        return tuple(smoothed)

    def find_range(self) -> RateRange | None:
        """Returns the range worth searching; None where the loss falls nowhere, or hardly."""
        if len(self.losses) < FEWEST:
            return None
        curve = self.smoothed
        begin = max(3, len(curve) // 10)
        start = sum(curve[:begin]) / begin
        least = min(range(len(curve)), key=lambda at: curve[at])
        fall = start - curve[least]
        if least < begin or fall <= max(2 * self._noise(curve), 1e-3 * abs(start)):
            return None
        edge = start - _FALLEN * fall
        first = next(at for at in range(least, -1, -1) if at == 0 or curve[at - 1] > edge)
        slopes = [curve[at] - curve[at - 1] for at in range(max(1, first), least + 1)]
        steepest = max(1, first) + min(range(len(slopes)), key=lambda at: slopes[at])
        high = self.rates[least]
        return RateRange(
            low=min(self.rates[first], high / _LEAST_RATIO),
            high=high,
            steepest=self.rates[steepest],
            open_below=first <= begin,
            open_above=not self.diverged and least >= len(curve) - max(3, len(curve) // 20),
        )

    def _noise(self, curve: Sequence[float]) -> float:
        """Returns the standard deviation of single losses around the curve, where it is flat."""
        few = max(FEWEST, len(curve) // 4)
        pairs = list(zip(self.losses[1:few], curve[1:few], strict=True))
        return math.sqrt(sum((loss - mean) ** 2 for loss, mean in pairs) / max(1, len(pairs)))


class DivergenceWatch:
    """Tells when a loss has grown so large that higher rates need no test.

    That is where its running mean is as far above its start as it had fallen below it and half as
    much again, or beyond what the noise of the first losses explains. It does not depend on the
    loss's unit or zero.
    """

    def __init__(self) -> None:
        self._first: list[float] = []
        self._mean = 0.0
        self._best = math.inf

    def is_over(self, loss: float) -> bool:
        """Takes the loss of one more step; returns whether the loss has diverged.

        Args:
            loss: The loss; one that is not finite has diverged.
        """
        if not math.isfinite(loss):
            return True
        if len(self._first) < FEWEST:
            self._first.append(loss)
            self._mean = sum(self._first) / len(self._first)
            self._best = self._mean
            return False
        self._mean = _WEIGHT * self._mean + (1 - _WEIGHT) * loss
        self._best = min(self._best, self._mean)
        start = sum(self._first) / len(self._first)
        spread = math.sqrt(sum((one - start) ** 2 for one in self._first) / len(self._first))
        room = max(0.5 * (start - self._best), 4 * spread, 1e-6 * abs(start))
        return self._mean > start + room


def _round(rate: float, towards: Callable[[float], int]) -> float:
    """Returns a rate in two significant digits, rounded down or up."""
    unit = 10.0 ** (math.floor(math.log10(rate)) - 1)
    scaled = round(rate / unit, 6)
    return float(f"{towards(scaled) * unit:.2g}")
