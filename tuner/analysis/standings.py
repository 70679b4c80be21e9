"""The standings of a study in training: counted trial by trial, so that a display costs little."""

from __future__ import annotations

from collections import Counter, defaultdict
from dataclasses import dataclass
from fractions import Fraction

from tuner.analysis.summary import best_of
from tuner.domain.lengths import length_of, ranked_length
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, TrialRecord


@dataclass(frozen=True)
class Standing:
    """The trials of one optimizer so far.

    Attributes:
        optimizer: Its name.
        best: Its best complete trial among those that are ranked, or None.
        counts: Its trials by outcome.
    """

    optimizer: str
    best: TrialRecord | None
    counts: Counter[Outcome]


class Standings:
    """Counts the trials of a study by outcome and optimizer, and knows the best of each optimizer.

    Args:
        spec: The study.

    Attributes:
        counts: The trials by outcome.
        running: The numbers of the trials that are not over.
        started: How many trials there are.
        steps: Optimizer steps that the trials that are over have taken.
    """

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        self._outcomes: dict[int, Outcome] = {}
        self._own: dict[str, Counter[Outcome]] = defaultdict(Counter)
        # The best complete trial of each length and optimizer, and how many there are of a length.
        self._best: dict[Fraction, dict[str, TrialRecord]] = defaultdict(dict)
        self._lengths: Counter[Fraction] = Counter()
        self._leaders: dict[Fraction, TrialRecord] = {}
        # When the best of a length became better: how many trials were over, and its value.
        self._gains: dict[Fraction, list[tuple[int, float]]] = defaultdict(list)
        self.counts: Counter[Outcome] = Counter()
        self.running: set[int] = set()
        self.steps = 0

    def add(self, record: TrialRecord) -> None:
        """Counts a trial that has started or ended; one that was counted before counts anew."""
        own, before = self._own[record.optimizer], self._outcomes.get(record.number)
        if before is not None:
            self.counts[before] -= 1
            own[before] -= 1
        self._outcomes[record.number] = record.outcome
        self.counts[record.outcome] += 1
        own[record.outcome] += 1
        if record.outcome is Outcome.RUNNING:
            self.running.add(record.number)
            return
        self.running.discard(record.number)
        steps = record.attributes.get("steps")
        self.steps += steps if isinstance(steps, int) else 0
        if record.outcome is Outcome.COMPLETE and record.value is not None:
            self._rank(record)

    def _rank(self, record: TrialRecord) -> None:
        length = length_of(record.attributes)
        self._lengths[length] += 1
        bests = self._best[length]
        own = self._better(record, bests.get(record.optimizer))
        bests[record.optimizer] = own
        if own is not record:
            return
        leader = self._leaders[length] = self._better(record, self._leaders.get(length))
        if leader is record and record.value is not None:
            self._gains[length].append((self.finished, record.value))

    def _better(self, record: TrialRecord, before: TrialRecord | None) -> TrialRecord:
        """Returns the better of two complete trials of one length."""
        return record if before is None else best_of(self._spec, [before, record]) or before

    @property
    def started(self) -> int:
        """How many trials there are."""
        return len(self._outcomes)

    @property
    def finished(self) -> int:
        """How many trials are over."""
        return len(self._outcomes) - len(self.running)

    @property
    def best(self) -> TrialRecord | None:
        """The best complete trial among those that are ranked, or None."""
        return self._leaders.get(ranked_length(self._lengths))

    def has(self, number: int) -> bool:
        """Tells whether a trial has been counted."""
        return number in self._outcomes

    def by_optimizer(self) -> list[Standing]:
        """Returns the standing of each optimizer of the study, the best first."""
        bests = dict(self._best[ranked_length(self._lengths)])
        ranked: list[str] = []
        while (best := best_of(self._spec, list(bests.values()))) is not None:
            ranked.append(best.optimizer)
            del bests[best.optimizer]
        names = [*ranked, *(name for name in self._spec.space.optimizers if name not in ranked)]
        own = self._best[ranked_length(self._lengths)]
        return [Standing(name, own.get(name), self._own[name]) for name in names]

    def course(self, points: int) -> list[float]:
        """Returns the best value so far after equal shares of the trials that are over.

        Args:
            points: How many values to return, at most.

        Returns:
            The values, the oldest first, from the first complete trial on; none before that.
        """
        gains = self._gains[ranked_length(self._lengths)]
        if not gains:
            return []
        first, last = gains[0][0], max(self.finished, gains[0][0])
        count = min(points, last - first + 1)
        marks = [first + (last - first) * place // max(1, count - 1) for place in range(count)]
        values, at = [], 0
        for mark in marks:
            while at + 1 < len(gains) and gains[at + 1][0] <= mark:
                at += 1
            values.append(gains[at][1])
        return values
