"""The evidence that rules read, and the advice that they return."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from tuner.analysis.importance import Importance
from tuner.analysis.order import order_trials
from tuner.analysis.summary import StudySummary
from tuner.domain.lengths import split_by_length
from tuner.domain.objective import sign_of
from tuner.domain.trials import Outcome, TrialRecord


@dataclass(frozen=True)
class Advice:
    """A piece of advice on a study.

    Attributes:
        kind: The rule that gives it, a stable name for programs.
        sentence: The reason, in words and numbers.
        command: The command to act on it, ready to be typed.
    """

    kind: str
    sentence: str
    command: str


@dataclass(frozen=True)
class Evidence:
    """The results of a study that rules read.

    Attributes:
        summary: The study.
        curves: The evaluations of its trials by progress, by the number of the trial; of a large
            study, those of a part.
        importance: The shares that its choices explain.
    """

    summary: StudySummary
    curves: Mapping[int, Mapping[int, float]]
    importance: Importance

    @cached_property
    def ordered(self) -> list[TrialRecord]:
        """The trials that tell something, the best first."""
        return [record for _, record in order_trials(self.summary.spec, self.summary.records)]

    @cached_property
    def ranked(self) -> list[TrialRecord]:
        """The complete trials that are ranked, the best first."""
        complete = {record.number for record in split_by_length(self.summary.records)[0]}
        return [record for record in self.ordered if record.number in complete]

    @property
    def compared(self) -> int:
        """The number of trials that are over, and did not fail."""
        return self.summary.finished - self.summary.counts[Outcome.FAILED]

    @property
    def goes_on(self) -> bool:
        """Whether the study still has trials to start, which may change what is told."""
        summary = self.summary
        started = sum(summary.counts.values())
        return summary.exhausted is None and started < summary.spec.budget.trials

    @property
    def sign(self) -> float:
        """1 where smaller values are better, -1 where larger ones are."""
        return sign_of(self.summary.spec.study.ranking)

    def costs(self, record: TrialRecord) -> Sequence[float]:
        """Returns the evaluations of a trial in order, as numbers that are to be small."""
        points = self.curves.get(record.number, {})
        return [self.sign * points[progress] for progress in sorted(points)]


Rule = Callable[[Evidence], list[Advice]]
"""A rule: it returns the advice that the results of a study give rise to, or none."""
