"""The confirmation of a study as reports show it: its finalists, their race and the verdict."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from tuner.analysis.arms import Arm
from tuner.analysis.heats import Heats
from tuner.analysis.race import Race
from tuner.analysis.runs import (
    Run,
    count_over,
    find_failed,
    find_protected,
    name_runs,
    read_arms,
    read_tests,
    redraws_splits,
    run_confirmation,
)
from tuner.analysis.verdict import Verdict, judge
from tuner.domain.catalog.averages import NO_AVERAGE
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.confirmation import CONFIRMS, Confirmation, Finalist
from tuner.domain.spec import StudySpec
from tuner.domain.trials import (
    DEFAULT,
    Outcome,
    Proposal,
    TrialConfig,
    TrialRecord,
    decode,
    default_proposal,
)


@dataclass(frozen=True)
class Tested:
    """The values of a finalist over test data, by one metric.

    Attributes:
        values: A value for each of its seeds; None where there is none, or it is not finite.
    """

    values: tuple[float | None, ...]

    @property
    def known(self) -> list[float]:
        """The values that there are."""
        return [value for value in self.values if value is not None]

    @property
    def mean(self) -> float | None:
        """Their mean, or None of none."""
        return statistics.fmean(self.known) if self.known else None

    @property
    def deviation(self) -> float | None:
        """Their standard deviation, or None of fewer than two."""
        return statistics.stdev(self.known) if len(self.known) > 1 else None


@dataclass(frozen=True)
class Confirmed:
    """The confirmation of a study so far.

    Attributes:
        name: The name of the study that confirms.
        spec: Its resolved spec.
        confirmation: The finalists.
        configs: Their configurations, by the number of the trial.
        heats: The finalists with the values of their runs, and those of a comparison that race.
        race: How their race stands.
        verdict: The verdict on what is known.
        runs: The runs that are over.
        failed: The numbers of the runs that failed and have not run again, by finalist.
        began_at: When the first run started, naive UTC; None before.
        examples: A complete run of each finalist that has one, as a trial of the study that is
            confirmed.
        tests: The metrics over test data of runs, by name; they choose nothing.
        redrawn: Whether each seed has split the data anew.
    """

    name: str
    spec: StudySpec
    confirmation: Confirmation
    configs: Mapping[int, TrialConfig]
    heats: Heats
    race: Race
    verdict: Verdict
    runs: int
    failed: Mapping[int, tuple[int, ...]]
    began_at: datetime | None
    examples: Mapping[int, TrialRecord]
    tests: Mapping[Run, Mapping[str, float | None]]
    redrawn: bool

    @property
    def arms(self) -> tuple[Arm, ...]:
        """The finalists that race, with the values that count."""
        return self.heats.arms

    @property
    def winner(self) -> int | None:
        """The trial to use; None until the race is over, or if no finalist is fit to be used."""
        return self.verdict.winner if self.race.settled else None

    def mean_of(self, trial: int) -> float | None:
        """Returns a finalist's mean over the fresh seeds on which it has a value."""
        return next(arm.mean for arm in self.verdict.arms if arm.trial == trial)

    @property
    def tested(self) -> tuple[str, ...]:
        """The names of the metrics over test data, that of the study first."""
        names = dict.fromkeys(name for values in self.tests.values() for name in values)
        return tuple(sorted(names, key=lambda name: name != self.spec.study.metric))

    def test_of(self, trial: int, name: str) -> Tested:
        """Returns a finalist's values over test data on the seeds that count.

        Args:
            trial: The number of the trial that it was found by.
            name: The name of the metric.
        """
        seeds = next(arm.seeds for arm in self.verdict.arms if arm.trial == trial)
        first = self.heats.first
        runs = (self.tests.get(Run(trial, repeat), {}) for repeat in range(first, first + seeds))
        return Tested(tuple(values.get(name) for values in runs))

    def tell(self, trial: int) -> str:
        """Returns the name of a finalist: its optimizer, schedule and average, or "defaults".

        Where several in the race have them alike, the number of the trial is named too.
        """
        names = {number: self._name(number) for number in {trial, *(a.trial for a in self.arms)}}
        alike = [number for number, name in names.items() if name == names[trial]]
        return names[trial] if len(alike) == 1 else f"{names[trial]} (trial {trial})"

    def _name(self, trial: int) -> str:
        config, params = self.configs[trial], self._finalist(trial).params
        if params == default_proposal(self.spec, config.optimizer).params:
            return f"{config.optimizer}'s defaults"
        averaged = "" if config.average == NO_AVERAGE else f" and {config.average}"
        return f"{config.optimizer} with {config.schedule}{averaged}"

    def rate(self, trial: int) -> float | None:
        """Returns a finalist's learning rate; None where its optimizer has none."""
        config = self.configs[trial]
        value = config.optimizer_values.get(OPTIMIZERS[config.optimizer].rate)
        return float(value) if isinstance(value, int | float) else None

    def _finalist(self, trial: int) -> Finalist:
        return next(f for f in self.confirmation.finalists if f.trial == trial)


def summarize_confirmation(
    name: str, spec: StudySpec, records: Sequence[TrialRecord]
) -> Confirmed | None:
    """Returns the confirmation that a study holds; None if it confirms nothing.

    Args:
        name: The name of the study that confirms.
        spec: Its resolved spec.
        records: Its trials.
    """
    confirmation = spec.confirmation
    if confirmation is None:
        return None
    records = name_runs(confirmation, spec, records)
    heats = read_arms(confirmation, spec, records)
    return Confirmed(
        name=name,
        spec=spec,
        confirmation=confirmation,
        configs={f.trial: decode(spec, Proposal(dict(f.params))) for f in confirmation.finalists},
        heats=heats,
        race=run_confirmation(confirmation, spec, heats),
        verdict=judge(
            heats.arms,
            spec.study.ranking,
            planned=confirmation.seeds,
            protected=find_protected(confirmation, heats),
            compares=confirmation.compares,
        ),
        runs=count_over(records),
        failed=find_failed(records),
        began_at=min((r.started_at for r in records if r.started_at), default=None),
        examples=_find_examples(records),
        tests=read_tests(records),
        redrawn=redraws_splits(records),
    )


def _find_examples(records: Sequence[TrialRecord]) -> dict[int, TrialRecord]:
    found: dict[int, TrialRecord] = {}
    for record in records:
        trial = record.attributes.get(CONFIRMS)
        if record.outcome is Outcome.COMPLETE and isinstance(trial, int):
            preset = DEFAULT if trial < 0 else None
            proposal = replace(record.proposal, preset=preset)
            found.setdefault(trial, replace(record, number=trial, proposal=proposal))
    return found
