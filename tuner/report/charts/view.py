"""A study as charts see it: what each trial reached, its settings, and the axis of all values."""

from __future__ import annotations

import functools
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tuner.analysis.summary import StudySummary
from tuner.domain.lengths import split_by_length
from tuner.domain.objective import is_missed, tell_objective, tell_value
from tuner.domain.study_section import StudySection
from tuner.domain.trials import Decoder, Outcome, TrialConfig, TrialRecord
from tuner.report.charts.palette import Palette
from tuner.report.charts.scales import Scale, cap_values, fit_scale, is_positive
from tuner.report.charts.selection import choose_listed

if TYPE_CHECKING:
    from tuner.store.events import Event


@dataclass(frozen=True)
class View:
    """A study as charts see it.

    Attributes:
        summary: The study's results.
        curves: The evaluations of the trials whose curves are drawn, by number.
        events: What happened to its trials and workers; none where that is not known.
    """

    summary: StudySummary
    curves: Mapping[int, Mapping[int, float]]
    events: Sequence[Event] = ()

    @property
    def study(self) -> StudySection:
        """The study's table of its file."""
        return self.summary.spec.study

    @property
    def objective(self) -> str:
        """The words for the number that ranks trials."""
        return tell_objective(self.study)

    @property
    def worse(self) -> int:
        """1 where larger values are worse, -1 where smaller ones are."""
        return 1 if self.study.ranking == "minimize" else -1

    @property
    def edge(self) -> str:
        """The edge of a plot where bad values lie."""
        return "top" if self.worse > 0 else "bottom"

    @functools.cached_property
    def palette(self) -> Palette:
        """The colours and shapes of the optimizers."""
        return Palette(self.summary.spec.space.optimizers)

    @functools.cached_property
    def listed(self) -> list[TrialRecord]:
        """The trials that the page lists, and draws as marks."""
        chosen = {*choose_listed(self.summary), *self.curves}
        if self.summary.best is not None:
            chosen.add(self.summary.best.record.number)
        return [record for record in self.summary.records if record.number in chosen]

    @property
    def omission(self) -> str:
        """A sentence on the trials that are not listed; empty where all are."""
        many, every = len(self.listed), len(self.summary.records)
        if many == every:
            return ""
        name = shlex.quote(self.summary.name)
        return (
            f"Shown are {many:,} of {every:,} trials, of each optimizer the best and others evenly "
            f"from good to bad. All of them: tuner study show {name} --json"
        )

    @functools.cached_property
    def ranked(self) -> Mapping[int, float]:
        """The values of the complete trials that are ranked and reached the target, by number."""
        ranked, _ = split_by_length(self.summary.records)
        values = {record.number: self.value(record) for record in ranked}
        return {number: value for number, value in values.items() if value is not None}

    @functools.cached_property
    def optimizers(self) -> list[str]:
        """The optimizers that ran, the best first."""
        return [row.optimizer for row in self.summary.optimizers if row.trials]

    @functools.cached_property
    def by_optimizer(self) -> Mapping[str, list[TrialRecord]]:
        """The trials of each optimizer that ran, the best optimizer first."""
        own: dict[str, list[TrialRecord]] = {name: [] for name in self.optimizers}
        for record in self.summary.records:
            own.setdefault(record.optimizer, []).append(record)
        return own

    @functools.cached_property
    def has_values(self) -> bool:
        """Whether any trial has a value."""
        return any(self.value(record) is not None for record in self.summary.records)

    @functools.cached_property
    def scale(self) -> Scale:
        """The axis of values: logarithmic where all are above 0, without those that are far off."""
        shown = list(self.ranked.values())
        stopped = [
            value
            for record in self.summary.records
            if record.outcome is not Outcome.COMPLETE and (value := self.value(record)) is not None
        ]
        log = is_positive([*shown, *stopped]) and _spans(shown or stopped) > 3
        cap = cap_values([*shown, *stopped], log=log, worse=self.worse)
        kept = [v for v in [*shown, *stopped] if cap is None or self.worse * v <= self.worse * cap]
        return fit_scale(kept, log=log)

    def config(self, record: TrialRecord) -> TrialConfig:
        """Returns the settings of a trial, decoded once they are asked for."""
        known = self._configs.get(record.number)
        if known is None:
            known = self._configs[record.number] = self._decoder.decode(record.proposal)
        return known

    @functools.cached_property
    def _configs(self) -> dict[int, TrialConfig]:
        return {}

    @functools.cached_property
    def _decoder(self) -> Decoder:
        return Decoder(self.summary.spec)

    def value(self, record: TrialRecord) -> float | None:
        """Returns what a trial reached last; None where that is nothing, or it missed its target.

        A trial that diverged or failed reached nothing.
        """
        value = record.value
        if value is None or not math.isfinite(value) or is_missed(self.study, value):
            return None
        return None if record.outcome in (Outcome.DIVERGED, Outcome.FAILED) else value

    @functools.cached_property
    def bests(self) -> Mapping[str, TrialRecord]:
        """The best complete trial of each optimizer that has one, the best optimizer first."""
        found: dict[str, TrialRecord] = {}
        for name, records in self.by_optimizer.items():
            own = [r for r in records if r.number in self.ranked]
            if own:
                found[name] = min(own, key=lambda r: (self.worse * self.ranked[r.number], r.number))
        return found

    def best_of(self, optimizer: str) -> TrialRecord | None:
        """Returns an optimizer's best complete trial, or None."""
        return self.bests.get(optimizer)

    def tell(self, value: float | None) -> str:
        """Returns a value in words."""
        return tell_value(self.study, value)


def _spans(values: Sequence[float]) -> float:
    """Returns the ratio of the largest to the smallest of values above 0."""
    return max(values) / min(values) if is_positive(values) else 1.0
