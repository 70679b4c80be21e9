"""The configurations that a study has tried, so that none is tried twice, and those left."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Mapping

from tuner.domain.catalog.dimensions import Value
from tuner.domain.points import EndlessError, points_of
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialRecord


def key_of(params: Mapping[str, Value]) -> Hashable:
    """Returns a key that equal points of a search space share."""
    return frozenset(params.items())


class Tried:
    """The configurations that have started, or will since a study starts with them.

    All trials of a study share its seed, so a second trial of one would tell nothing new.

    Args:
        openings: The points that the study starts with.

    Attributes:
        open_ended: Whether trials were seen to draw hyperparameters of their own while they train.
            No configuration is then known when a trial is proposed, and none is a repeat.
    """

    def __init__(self, openings: Iterable[Mapping[str, Value]]) -> None:
        self._points: set[Hashable] = set()
        for point in openings:
            self.plan(point)
        self.open_ended = False

    def add(self, record: TrialRecord) -> None:
        """Takes in a trial."""
        self.open_ended = self.open_ended or bool(record.own_axes)
        if not record.is_default:
            self._points.add(key_of(record.proposal.params))

    def plan(self, point: Mapping[str, Value]) -> None:
        """Takes in a point that the study will try."""
        self._points.add(key_of(point))

    def __contains__(self, params: Mapping[str, Value]) -> bool:
        """Tells whether a point need not be tried again."""
        return not self.open_ended and key_of(params) in self._points


class Remainder:
    """The points left of a search space that can be counted.

    Args:
        spec: The resolved spec.
        tried: The configurations that have been tried; it only grows.

    Attributes:
        endless: Whether the space was seen to hold a real range.
        count: Points seen so far.
    """

    def __init__(self, spec: StudySpec, tried: Tried) -> None:
        self._tried = tried
        self._unseen = points_of(spec)
        self._seen: deque[dict[str, Value]] = deque()
        self.endless = False
        self.count = 0

    @property
    def is_empty(self) -> bool:
        """Whether every point has been tried."""
        return self.find() is None and not self.endless

    def find(
        self, fits: Callable[[dict[str, Value]], bool] = lambda point: True
    ) -> dict[str, Value] | None:
        """Returns a point that has not been tried, or None if there is none, or no end of them.

        Args:
            fits: Returns whether a point is wanted.
        """
        for _ in range(len(self._seen)):
            point = self._seen[0]
            if point in self._tried:
                self._seen.popleft()
            elif fits(point):
                return point
            else:
                self._seen.rotate(-1)
        while (fresh := self._look()) is not None:
            if fresh not in self._tried:
                self._seen.append(fresh)
                if fits(fresh):
                    return fresh
        return None

    def _look(self) -> dict[str, Value] | None:
        if self.endless:
            return None
        try:
            point = next(self._unseen, None)
        except EndlessError:
            self.endless = True
            self._seen.clear()
            return None
        self.count += point is not None
        return point
