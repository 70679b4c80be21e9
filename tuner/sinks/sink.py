"""The contract of sinks: tools that curves of trials are written to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from tuner.sinks.sheets import Ending, Point, StudySheet, TrialSheet


@dataclass(frozen=True)
class Held:
    """The part of a trial that a sink holds already.

    Attributes:
        ended: Whether it holds all of it, its end included.
        before: The step before which it holds every point.
        points: Further (step, name) pairs that it holds.
    """

    ended: bool = False
    before: int = 0
    points: frozenset[tuple[int, str]] = frozenset()

    def lacks(self, point: Point) -> bool:
        """Tells whether a point is not there yet."""
        return point.step >= self.before and (point.step, point.name) not in self.points


class Sink(Protocol):
    """Writes studies and their trials to a tool.

    All methods raise :class:`~tuner.errors.SinkAwayError` where the tool cannot be reached right
    now, after which the same call may be made again, and :class:`~tuner.errors.SpecError` where it
    refuses what it is asked to keep.
    """

    def open(self, study: StudySheet) -> None:
        """Finds the study in the tool, or makes it; what follows is about this study."""
        ...

    def look(self, trial: TrialSheet) -> Held:
        """Returns what the tool holds of a trial, whoever wrote it and from wherever."""
        ...

    def write(self, trial: TrialSheet, points: Sequence[Point], ending: Ending | None) -> None:
        """Writes points that the tool lacks, and how the trial ended.

        Args:
            trial: The trial.
            points: Points by ascending step; there may be none.
            ending: The end of the trial; None while it trains.
        """
        ...

    def close(self) -> None:
        """Writes what is on its way, and lets go of the tool."""
        ...
