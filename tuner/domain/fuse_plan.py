"""The number of trials of a study that train as one: as asked for, and as chosen, with reason."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from tuner.errors import SpecError

AUTO = "auto"
OFF = "off"

MOST_LANES = 512
"""The most trials that train as one."""

COHORTS = 8
"""The least number of cohorts of a study: trials of one cohort do not learn from one another."""


def parse_fuse(text: str) -> str:
    """Returns the number of trials to train as one, as a user asks for it.

    Args:
        text: ``auto``, ``off``, or a number from 1 to :data:`MOST_LANES`.

    Raises:
        SpecError: If it is something else.

    >>> parse_fuse("auto"), parse_fuse("064")
    ('auto', '64')
    """
    if text in (AUTO, OFF):
        return text
    if text.isascii() and text.isdecimal() and 1 <= int(text) <= MOST_LANES:
        return str(int(text))
    raise SpecError(
        f"--fuse {text!r}: auto, off, or how many trials train as one, from 1 to {MOST_LANES}."
    )


def largest_cohort(trials: int) -> int:
    """Returns the most trials that may train as one in a study: a power of two, or 1.

    Args:
        trials: The study's budget.

    >>> [largest_cohort(trials) for trials in (5, 60, 1000, 10**6)]
    [1, 4, 64, 512]
    """
    at_most = min(MOST_LANES, trials // COHORTS)
    return 1 << (at_most.bit_length() - 1) if at_most > 1 else 1


@dataclass(frozen=True)
class FusePlan:
    """The way that the trials of a study train on a kind of device.

    Attributes:
        lanes: The number that train as one; 1 is one at a time.
        compiled: Whether their step is compiled.
        single_s: Seconds of a step of one trial, or 0 where that was not measured.
        lane_s: Seconds of a step of a cohort, divided among its lanes, likewise.
        trials: The study's budget of trials when the plan was chosen.
        reason: The reason for it, in words.
    """

    lanes: int
    compiled: bool = False
    single_s: float = 0.0
    lane_s: float = 0.0
    trials: int = 0
    reason: str = ""

    def __str__(self) -> str:
        """Returns the plan in one line.

        >>> str(FusePlan(8, reason="asked for")), str(FusePlan(1, reason="too few"))
        ('Up to 8 trials as one: asked for', 'One trial at a time: too few')
        """
        how = f"Up to {self.lanes} trials as one" if self.lanes > 1 else "One trial at a time"
        return f"{how}: {self.reason}"

    def to_json(self) -> dict[str, Any]:
        """Returns the plan as plain values."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: Mapping[str, Any]) -> FusePlan:
        """Returns a plan from the values of :meth:`to_json`, perhaps of another version."""
        return cls(**{one.name: values[one.name] for one in fields(cls) if one.name in values})
