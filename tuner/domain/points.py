"""The points of a search space that can be counted."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Float, Int, Value
from tuner.domain.space import walk
from tuner.domain.spec import StudySpec

_COUNTED = 50_000
"""Points that are counted at most, which takes a few seconds."""


class EndlessError(Exception):
    """A search space holds a real range, so its points cannot be counted."""


def points_of(spec: StudySpec) -> Iterator[dict[str, Value]]:
    """Yields every point of a search space, one by one, in a fixed order.

    Args:
        spec: A resolved spec.

    Raises:
        EndlessError: If a real range is met.
    """
    # Which option each decision on the way to a point takes; the last one turns fastest.
    turns: list[int] = []
    while True:
        counts: list[int] = []

        def take(name: str, axis: Dimension, counts: list[int] = counts) -> Value:
            options = _options(axis)
            if len(counts) == len(turns):
                turns.append(0)
            counts.append(len(options))
            return options[turns[len(counts) - 1]]

        yield walk(spec, take)
        while turns and turns[-1] + 1 == counts[len(turns) - 1]:
            turns.pop()
        if not turns:
            return
        turns[-1] += 1


def _options(axis: Dimension) -> Sequence[Value]:
    match axis:
        case Fixed():
            return (axis.value,)
        case Choice():
            return axis.choices
        case Int():
            return range(axis.low, axis.high + 1)
        case Float():
            if axis.low < axis.high:
                raise EndlessError
            return (axis.low,)


def count_configurations(spec: StudySpec) -> int | None:
    """Returns the number of configurations of a study, if it is below the number of trials.

    Args:
        spec: A resolved spec.

    Returns:
        The points of its space, or None where they are enough for the budget, or more than can be
        counted in a few seconds. The defaults that a study ends with may lie at none of them.
    """
    trials = spec.budget.trials
    try:
        points = list(itertools.islice(points_of(spec), min(trials, _COUNTED)))
    except EndlessError:
        return None
    if len(points) >= min(trials, _COUNTED):
        return None
    return len(points)
