"""The trials that a page shows of a large study: all of a small one."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

from tuner.analysis.summary import StudySummary
from tuner.domain.objective import sign_of
from tuner.domain.trials import Outcome, TrialRecord

LISTED = 1500
"""The most trials that a page lists, and draws as marks."""

CURVES = 200
"""The most curves that a page draws."""

T = TypeVar("T")


def choose_listed(summary: StudySummary) -> list[int]:
    """Returns the numbers of the trials that a page lists, at most :data:`LISTED`."""
    return _choose(summary, summary.records, LISTED)


def choose_curves(summary: StudySummary) -> list[int]:
    """Returns the numbers of the trials whose curves are drawn, at most :data:`CURVES`."""
    return _choose(summary, with_curves(summary), CURVES)


def _choose(summary: StudySummary, records: Iterable[TrialRecord], most: int) -> list[int]:
    """Returns the numbers of at most so many trials.

    Where there are more, each optimizer gets an equal share, if it has so many: one half of its
    best trials, the other spread evenly from good to bad.
    """
    by_optimizer: dict[str, list[TrialRecord]] = defaultdict(list)
    for record in sorted(records, key=badness(summary)):
        by_optimizer[record.optimizer].append(record)
    chosen: list[int] = []
    fewest_first = sorted(by_optimizer.values(), key=len)
    for place, own in enumerate(fewest_first):
        share = (most - len(chosen)) // (len(fewest_first) - place)
        best = share - share // 2
        few = [*own[:best], *spread(own[best:], share - best)]
        chosen += [record.number for record in few]
    return sorted(chosen)


def spread(items: Sequence[T], count: int) -> list[T]:
    """Returns at most ``count`` items, evenly spaced from the first to the last."""
    if len(items) <= count:
        return list(items)
    if count < 2:
        return list(items[: max(0, count)])
    return [items[place * (len(items) - 1) // (count - 1)] for place in range(count)]


def with_curves(summary: StudySummary) -> list[TrialRecord]:
    """Returns the trials whose curves may be drawn: all that did not fail."""
    return [record for record in summary.records if record.outcome is not Outcome.FAILED]


def badness(summary: StudySummary) -> Callable[[TrialRecord], tuple[bool, float, int]]:
    """Returns a sort key from good to bad: complete trials by value, then all others."""
    sign = sign_of(summary.spec.study.ranking)

    def key(record: TrialRecord) -> tuple[bool, float, int]:
        value = float("inf") if record.value is None else sign * record.value
        return record.outcome is not Outcome.COMPLETE, value, record.number

    return key
