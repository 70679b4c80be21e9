"""Runs many searches of one workload side by side, on whatever tells the curves of trials.

A search is a generator: it yields the configurations that it wants trained, and is sent their
curves. So the searches of many seeds wait for one another, and their trials are trained, or looked
up, together.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import rankdata

from benchmarks.search.training import Curves, Params
from tuner.domain.trials import TrialRecord

Curve = Sequence[float]
Searching = Generator[list[Params], list[Curve], "Search"]
CurvesOf = Callable[[list[Params]], Curves]


class End(NamedTuple):
    """The end of a complete trial.

    Attributes:
        spent: The evaluations spent by all trials when it ended.
        value: Its value.
        optimizer: Its optimizer.
    """

    spent: int
    value: float
    optimizer: str


@dataclass
class Search:
    """How far a search has come.

    Attributes:
        evaluations: Evaluations taken by all trials: the training spent, in parts of a trial.
        ends: The ends of complete trials, in their order.
        records: The trials of tuner's own searches.
    """

    evaluations: int = 0
    ends: list[End] = field(default_factory=list)
    records: list[TrialRecord] = field(default_factory=list)

    def end(self, params: Params, value: float) -> None:
        """Notes that a trial is complete."""
        self.ends.append(End(self.evaluations, value, str(params["optimizer"])))

    def best_by(self, evaluations: float) -> float:
        """Returns the best value of the trials complete when so much was spent."""
        return min((e.value for e in self.ends if e.spent <= evaluations), default=math.inf)

    def spent_to(self, target: float) -> float:
        """Returns the evaluations spent until a trial was complete that reaches a value."""
        return min((end.spent for end in self.ends if end.value <= target), default=math.inf)

    def best_of(self, optimizer: str) -> float:
        """Returns the best value of an optimizer's complete trials."""
        return min((e.value for e in self.ends if e.optimizer == optimizer), default=math.inf)


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


def ratios_to(
    plain: Sequence[Search], others: Sequence[Search], rng: np.random.Generator, draws: int = 1000
) -> npt.NDArray[np.float64]:
    """Returns the ratios that other seeds might have given, by drawing from these with repetition.

    They tell how far a ratio can be trusted (the bootstrap of Efron, 1979).
    """
    ends = np.array([search.best_by(math.inf) for search in plain])
    wholes = np.array([search.evaluations for search in plain])
    own = rng.integers(len(plain), size=(draws, len(plain)))
    theirs = rng.integers(len(others), size=(draws, len(others)))
    targets, which = np.unique(np.median(ends[own], axis=1), return_inverse=True)
    spent = np.array([[search.spent_to(target) for search in others] for target in targets])
    medians = np.median(np.take_along_axis(spent[which], theirs, axis=1), axis=1)
    ratios: npt.NDArray[np.float64] = medians / np.median(wholes[own], axis=1)
    return ratios


def rank_correlation(searches: Sequence[Search], truth: Mapping[str, float]) -> float:
    """Returns how well searches rank optimizers: Spearman's coefficient, their mean.

    Args:
        searches: The searches; optimizers without a complete trial are level, and last.
        truth: The best value of each optimizer in a long search.
    """
    names = list(truth)
    expected = rankdata([truth[name] for name in names])
    found = [rankdata([search.best_of(name) for name in names]) for search in searches]
    return float(np.mean([np.corrcoef(ranks, expected)[0, 1] for ranks in found]))
