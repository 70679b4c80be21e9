"""The tuning of one optimizer in a comparison: what it brings, and how hard it is."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.analysis.random_search import EvenDraws, Share, to_share
from tuner.domain.lengths import share_trained, split_by_length
from tuner.domain.objective import is_missed, sign_of
from tuner.domain.spec import StudySpec
from tuner.domain.study_section import Direction
from tuner.domain.trials import RANDOM, RERUN_OF, Outcome, TrialRecord

NEAR = 0.05
"""How far a value may be from the best to be near it, as a part of the best."""


@dataclass(frozen=True)
class Tuning:
    """The tuning of one optimizer. A trial that diverged, failed or missed its target has no value.

    Attributes:
        optimizer: Its name.
        trials: Its trials that are over.
        trained: What all of its trials have trained, in full trials.
        default_value: The value that its defaults reached, or None.
        best_value: The best value of its trials, or None.
        best_trial: The number of the trial that reached it, or None.
        best_after: How many of its trials it took to reach it, or None.
        curve: The best after n of its trials, in the order in which they started; None before the
            first value.
        draws: Its trials that were drawn evenly from its range, up to the first that is not over.
        near_own: The part of its range, by those draws, whose values lie within 5% of its own best.
        near_best: The part whose values lie within 5% of the best of all optimizers.
        diverged: The part of its trials that diverged.
    """

    optimizer: str
    trials: int
    trained: float
    default_value: float | None
    best_value: float | None
    best_trial: int | None
    best_after: int | None
    curve: tuple[float | None, ...]
    draws: EvenDraws
    near_own: Share | None
    near_best: Share | None
    diverged: Share | None

    @property
    def gain(self) -> float | None:
        """How much closer tuning came than the defaults, at least 0; None if one has no value."""
        if self.best_value is None or self.default_value is None:
            return None
        return abs(self.default_value - self.best_value)

    @property
    def relative_gain(self) -> float | None:
        """The gain as a part of what the defaults reached; None unless both are above 0."""
        if self.gain is None or min(self.best_value or 0, self.default_value or 0) <= 0:
            return None
        return self.gain / (self.default_value or 1)


def describe_tunings(
    spec: StudySpec, optimizers: Sequence[str], records: Sequence[TrialRecord]
) -> tuple[Tuning, ...]:
    """Returns the tuning of each optimizer of a study that compares them.

    Args:
        spec: The resolved spec.
        optimizers: Their names, in the order of the result.
        records: The trials of the study, in any order.
    """
    ranked, _ = split_by_length(records)
    values = {
        record.number: record.value
        for record in ranked
        if record.value is not None and not is_missed(spec.study, record.value)
    }
    better = min if spec.study.ranking == "minimize" else max
    best = better(values.values(), default=None)
    own: dict[str, list[TrialRecord]] = {name: [] for name in optimizers}
    for record in sorted(records, key=lambda record: record.number):
        own[record.optimizer].append(record)
    direction = spec.study.ranking
    return tuple(_describe(name, own[name], values, best, direction) for name in optimizers)


def _describe(
    optimizer: str,
    records: Sequence[TrialRecord],
    values: Mapping[int, float],
    best: float | None,
    direction: Direction,
) -> Tuning:
    """Returns the tuning of one optimizer from its trials, which are sorted by number."""
    over = [record for record in records if record.outcome.is_over]
    curve = _follow_best([values.get(record.number) for record in over], direction)
    own = curve[-1] if curve else None
    after = curve.index(own) + 1 if own is not None else None
    drawn = [values.get(record.number) for record in _first_over(records)]
    diverged = sum(record.outcome is Outcome.DIVERGED for record in over)
    return Tuning(
        optimizer=optimizer,
        trials=len(over),
        trained=sum(share_trained(record.attributes) for record in records),
        default_value=next((values.get(r.number) for r in records if r.is_default), None),
        best_value=own,
        best_trial=None if after is None else over[after - 1].number,
        best_after=after,
        curve=curve,
        draws=EvenDraws(tuple(drawn), direction),
        near_own=_near(drawn, own, direction),
        near_best=_near(drawn, best, direction),
        diverged=to_share(diverged, len(over)),
    )


def _follow_best(values: Sequence[float | None], direction: Direction) -> tuple[float | None, ...]:
    """Returns the best value so far, for every value."""
    better = min if direction == "minimize" else max
    bests: list[float | None] = []
    best: float | None = None
    for value in values:
        if value is not None:
            best = value if best is None else better(best, value)
        bests.append(best)
    return tuple(bests)


def _first_over(records: Sequence[TrialRecord]) -> list[TrialRecord]:
    """Returns the even draws up to the first that is not over.

    Whatever is over among the later ones may be so because it diverged: these alone would count.
    """
    drawn = [r for r in records if r.proposal.preset == RANDOM and RERUN_OF not in r.attributes]
    going = (at for at, record in enumerate(drawn) if not record.outcome.is_over)
    return drawn[: next(going, len(drawn))]


def _near(values: Sequence[float | None], best: float | None, direction: Direction) -> Share | None:
    """Returns the part of values that are near a best one; those that are better count too."""
    if best is None:
        return to_share(0, len(values))
    sign = sign_of(direction)
    limit = sign * best + NEAR * abs(best)
    return to_share(sum(v is not None and sign * v <= limit for v in values), len(values))
