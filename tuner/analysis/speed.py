"""How fast optimizers train: the steps and seconds until their runs first reach a target."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from statistics import median

from tuner.domain.objective import reaches, sign_of
from tuner.domain.spec import StudySpec
from tuner.domain.study_section import StudySection
from tuner.domain.trials import Outcome, TrialRecord, steps_at


@dataclass(frozen=True)
class Target:
    """The metric that all optimizers are to reach.

    Attributes:
        value: The metric.
        reached_by: The optimizer whose tuned trial, or whose runs in the median, reached it; None
            where it is the study's own target.
        seeds: Whether the runs on fresh seeds count, and not the best trial of each optimizer.
    """

    value: float
    reached_by: str | None
    seeds: bool


@dataclass(frozen=True)
class Speed:
    """How fast one optimizer reached a target.

    Attributes:
        optimizer: Its name.
        runs: The runs that count.
        reached: How many of them reached it.
        steps: Their median number of optimizer steps up to there; None where half or more of the
            runs did not reach it.
        seconds: The same of seconds of training.
    """

    optimizer: str
    runs: int
    reached: int
    steps: float | None
    seconds: float | None


def choose_target(
    spec: StudySpec, runs: Mapping[str, Sequence[TrialRecord]], usual: str, *, seeds: bool
) -> Target | None:
    """Returns the study's own target, or else one that the usual choice's runs reach.

    It is the metric that they end with, in the median over their runs, or the next worse one; where
    the usual choice has none, that of the optimizer in the middle.

    Args:
        spec: The resolved spec.
        runs: The runs of each optimizer that count, with their evaluations.
        usual: The usual choice.
        seeds: Whether they are on fresh seeds.
    """
    study = spec.study
    if study.target is not None:
        return Target(study.target, None, seeds)
    ends = {name: end for name, own in runs.items() if (end := _end(study, own)) is not None}
    if not ends:
        return None
    sign = sign_of(study.direction)
    ranked = sorted(ends, key=lambda name: (sign * ends[name], name))
    chosen = usual if usual in ends else ranked[len(ranked) // 2]
    return Target(ends[chosen], chosen, seeds)


def measure_speed(
    spec: StudySpec, optimizer: str, runs: Sequence[TrialRecord], target: Target
) -> Speed:
    """Returns how fast the runs of one optimizer reach a target.

    Args:
        spec: The resolved spec.
        optimizer: Its name.
        runs: Its runs that count, with their evaluations; those that are not complete reach none.
        target: The target.
    """
    aim = spec.study.model_copy(update={"target": target.value})
    steps = [_steps_to(spec, aim, record) for record in runs]
    # A run's seconds are spread evenly over its steps.
    seconds = [
        at * float(record.attributes.get("train_s", math.inf)) / (record.attributes["steps"])
        if math.isfinite(at)
        else math.inf
        for at, record in zip(steps, runs, strict=True)
    ]
    return Speed(
        optimizer=optimizer,
        runs=len(runs),
        reached=sum(map(math.isfinite, steps)),
        steps=_middle(steps),
        seconds=_middle(seconds),
    )


def _end(study: StudySection, runs: Iterable[TrialRecord]) -> float | None:
    """Returns the metric at the end of runs, the one in the middle or the next worse."""
    sign = sign_of(study.direction)
    ends = sorted(
        sign * record.evaluations[max(record.evaluations)]
        if record.outcome is Outcome.COMPLETE and record.evaluations
        else math.inf
        for record in runs
    )
    end = ends[len(ends) // 2] if ends else math.inf
    return sign * end if math.isfinite(end) else None


def _steps_to(spec: StudySpec, aim: StudySection, record: TrialRecord) -> float:
    """Returns the steps that a run took to its target; infinitely many if it has not reached it."""
    taken = record.attributes.get("steps")
    if record.outcome is not Outcome.COMPLETE or not isinstance(taken, int) or taken < 1:
        return math.inf
    total = int(record.attributes.get("total_steps", taken))
    for progress, metric in sorted(record.evaluations.items()):
        if reaches(aim, metric):
            return float(min(taken, steps_at(spec, progress, total)))
    return math.inf


def _middle(amounts: Sequence[float]) -> float | None:
    """Returns the median of amounts; None where it is infinite, or there are none."""
    found = median(amounts) if amounts else math.inf
    return found if math.isfinite(found) else None
