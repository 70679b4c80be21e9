"""Runs many searches of one workload side by side, on whatever tells the curves of trials.

A search is a generator: it yields the configurations that it wants trained, and is sent their
curves. So the searches of many seeds wait for one another, and their trials are trained, or looked
up, together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field

import numpy as np

from benchmarks.search.training import Curves, Params

Curve = Sequence[float]
Searching = Generator[list[Params], list[Curve], "Search"]
CurvesOf = Callable[[list[Params]], Curves]


@dataclass
class Search:
    """How far a search has come.

    Attributes:
        evaluations: Evaluations taken by all trials: the training spent, in parts of a trial.
        ends: For each complete trial, the evaluations spent by all when it ended, and its value.
        trials: Each trial's configuration, its evaluations so far, and whether it is complete.
    """

    evaluations: int = 0
    ends: list[tuple[int, float]] = field(default_factory=list)
    trials: list[tuple[Params, list[float], bool]] = field(default_factory=list)

    def best_by(self, evaluations: float) -> float:
        """Returns the best value of the trials complete when so much was spent."""
        return min((value for spent, value in self.ends if spent <= evaluations), default=math.inf)

    def spent_to(self, target: float) -> float:
        """Returns the evaluations spent until a trial was complete that reaches a value."""
        return min((spent for spent, value in self.ends if value <= target), default=math.inf)


def run_side_by_side(searches: Sequence[Searching], curves_of: CurvesOf) -> list[Search]:
    """Returns what searches have found, all of which are run to their end.

    Args:
        searches: The searches.
        curves_of: Returns the curves of configurations, of shape (configurations, evaluations).
    """
    found: list[Search | None] = [None] * len(searches)
    wanted = {place: next(search) for place, search in enumerate(searches)}
    while wanted:
        points = [point for own in wanted.values() for point in own]
        curves = iter(curves_of(points).tolist())
        answers = {place: [next(curves) for _ in own] for place, own in wanted.items()}
        wanted = {}
        for place, answer in answers.items():
            try:
                wanted[place] = searches[place].send(answer)
            except StopIteration as end:
                found[place] = end.value
    return [search for search in found if search is not None]


def ratio_to(plain: Sequence[Search], others: Sequence[Search]) -> float:
    """Returns the training that the median search needs for plain's median end, over plain's."""
    target = float(np.median([search.best_by(math.inf) for search in plain]))
    whole = float(np.median([search.evaluations for search in plain]))
    return float(np.median([search.spent_to(target) for search in others])) / whole
