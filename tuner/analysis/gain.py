"""The gain that a study may expect of going on, and whether so little is left that it may end.

The best values of many draws thin out towards the very best, and their distances tell how fast. If
the i-th and the next best of k values lie d apart, i times d estimates the same number s for each
small i, where the tail of the values falls off exponentially (Rényi 1953; Weissman, JASA 1978). The
best of n more draws is then expected to be s · (1/(k+1) + ... + 1/(k+n)) better. Real tails end, so
it rather expects too much, and a search ends late rather than early.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from tuner.domain.lengths import split_by_length
from tuner.domain.objective import is_reached, sign_of
from tuner.domain.search import COMPARE
from tuner.domain.spec import StudySpec
from tuner.domain.trials import RERUN_OF, Outcome, TrialRecord

AHEAD = 10
"""Trials that the gain is told of."""

ENOUGH = 0.005
"""The gain, as a share of what there is to gain, below which a study may end."""

TRIED = 20
"""Trials that a study has tried before it may end so: replays end too early with fewer."""

_SPACINGS = 3
"""Distances between the best values that are averaged; with 5, replays expect twice the gain."""


@dataclass(frozen=True)
class ExpectedGain:
    """The gain that more trials are expected to bring.

    Attributes:
        trials: The number of trials.
        value: The amount by which they are expected to better the best value, at least 0.
        share: The same as a share of what there is to gain, or None where that is nothing: of the
            best value itself, and of its distance from 1 for a share that is to grow.
        to_one: Whether that is its distance from 1.
    """

    trials: int
    value: float
    share: float | None
    to_one: bool = False


def expect_gain(spec: StudySpec, records: Collection[TrialRecord]) -> ExpectedGain | None:
    """Returns the gain that another ten trials are expected to bring; None where little is known.

    Complete trials tell the best values. All others count as worse, as pruners take them to be;
    failed ones and reruns do not count. A comparison's trials go to all optimizers alike, and not
    where there is something to gain: nothing is expected of them. Nor is it where a share, such as
    an accuracy, would grow above 1: its values do not tell then.

    Args:
        spec: The study.
        records: Its trials.
    """
    if spec.search.mode == COMPARE:
        return None
    tried = _tried(records)
    sign = sign_of(spec.study.ranking)
    values = [r.value for r in split_by_length(tried)[0] if r.value is not None]
    if spec.study.target is not None:
        values = [value for value in values if is_reached(spec.study, value)]
    costs = sorted(sign * value for value in values)
    if len(costs) <= _SPACINGS:
        return None
    # The mean of i times the i-th distance.
    spread = sum(costs[_SPACINGS] - cost for cost in costs[:_SPACINGS]) / _SPACINGS
    value = spread * sum(1 / (len(tried) + more) for more in range(1, AHEAD + 1))
    best = sign * costs[0]
    to_one = spec.study.ranking == "maximize" and all(0 <= sign * cost <= 1 for cost in costs)
    whole = 1 - best if to_one else abs(best)
    if spec.study.target is not None:  # no time is less than none
        value = min(value, whole)
    if to_one and value >= whole:
        return None
    return ExpectedGain(AHEAD, value, value / whole if whole else None, to_one)


def is_enough(spec: StudySpec, records: Collection[TrialRecord], gain: ExpectedGain | None) -> bool:
    """Tells whether so little is left to gain that a study may end.

    It may not before it has tried every optimizer, and :data:`TRIED` trials.

    Args:
        spec: The study.
        records: Its trials.
        gain: The gain expected, by :func:`expect_gain`.
    """
    if gain is None or gain.share is None or gain.share >= ENOUGH:
        return False
    tried = [record for record in _tried(records) if record.outcome is not Outcome.RUNNING]
    untried = set(spec.space.optimizers) - {record.optimizer for record in tried}
    return len(tried) >= TRIED and not untried


def _tried(records: Iterable[TrialRecord]) -> list[TrialRecord]:
    return [
        record
        for record in records
        if record.outcome is not Outcome.FAILED and RERUN_OF not in record.attributes
    ]
