"""The results of a suite: how fast each optimizer reaches each workload's target, and its score."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from statistics import median

import numpy as np

from tuner.analysis.profiles import Floats, Score, ratios_of, score_all
from tuner.analysis.runs import find_racing
from tuner.analysis.speed import Speed, Target, choose_target, measure_speed
from tuner.domain.confirmation import Confirmation
from tuner.domain.spec import StudySpec
from tuner.domain.suite import SuitePlan
from tuner.domain.trials import Outcome, TrialRecord


@dataclass(frozen=True)
class Standing:
    """How one optimizer did on one workload, by its runs on fresh seeds.

    Attributes:
        speed: The steps and seconds until its runs reach the target; None of them where most do
            not, or where there is no target.
        value: The metric that its runs end with, in the median over those that are complete; None
            without any.
        ratio: Its steps as a multiple of the fewest on this workload; None where it has none.
    """

    speed: Speed
    value: float | None
    ratio: float | None = None


@dataclass(frozen=True)
class WorkloadResult:
    """The results on one workload of a suite.

    Attributes:
        name: The workload's name in the suite.
        study: The name of its study, or None before there is one.
        spec: The spec of its study, likewise.
        missing: What its score still lacks, in a few words; empty if nothing.
        target: The target; None where there is none yet.
        standings: The optimizers in the order of the study file; empty before their runs are over.
        fused: Whether some of the runs shared their seconds with others, as lanes of a cohort.
        failed: How many of the runs failed; they count as runs that miss the target.
    """

    name: str
    study: str | None = None
    spec: StudySpec | None = None
    missing: str = ""
    target: Target | None = None
    standings: tuple[Standing, ...] = ()
    fused: bool = False
    failed: int = 0


@dataclass(frozen=True)
class SuiteSummary:
    """The results of a suite, as far as they are known.

    Attributes:
        name: The suite's name.
        baseline: The optimizer that speed-ups are over.
        optimizers: The optimizers that it compares.
        workloads: The results on all of its workloads.
        steps: The scores by steps to the target, the best first, over the workloads that are
            scored; empty while none is.
        seconds: The same by seconds of training; empty where these cannot be compared.
    """

    name: str
    baseline: str
    optimizers: tuple[str, ...]
    workloads: tuple[WorkloadResult, ...]
    steps: tuple[Score, ...]
    seconds: tuple[Score, ...]

    @property
    def scored(self) -> tuple[WorkloadResult, ...]:
        """The workloads that the scores rest on."""
        return tuple(workload for workload in self.workloads if not workload.missing)

    @property
    def fused(self) -> tuple[str, ...]:
        """The names of the workloads that have no seconds to compare, of those that are scored."""
        return tuple(workload.name for workload in self.scored if workload.fused)


def measure_workload(
    name: str,
    study: str,
    spec: StudySpec,
    confirmation: Confirmation,
    records: Sequence[TrialRecord],
    plan: SuitePlan,
) -> WorkloadResult:
    """Returns the results on a workload whose finalists have run on fresh seeds.

    Args:
        name: The workload's name in the suite.
        study: The name of its study.
        spec: The resolved spec of the study.
        confirmation: Its finalists.
        records: The trials of the study that confirms it, with their evaluations.
        plan: What the suite is scored by.
    """
    runs = find_racing(confirmation, spec, records)
    target = _find_target(spec, runs, plan, name)
    standings = [
        _measure(spec, optimizer, runs.get(optimizer, []), target)
        for optimizer in spec.space.optimizers
    ]
    ratios = ratios_of(_to_costs([[standing.speed.steps for standing in standings]]))[0]
    counted = [record for own in runs.values() for record in own]
    missing = "" if target else f"no target: most runs of {plan.baseline} have no value"
    if spec.space.optimizers != plan.optimizers:
        missing = f"its study compares {', '.join(spec.space.optimizers)}"
    return WorkloadResult(
        name,
        study,
        spec,
        missing=missing,
        target=target,
        standings=tuple(
            replace(standing, ratio=float(ratio) if math.isfinite(ratio) else None)
            for standing, ratio in zip(standings, ratios, strict=True)
        ),
        fused=any(_lanes_of(record) > 1 for record in counted),
        failed=sum(record.outcome is Outcome.FAILED for record in counted),
    )


def summarize_suite(plan: SuitePlan, workloads: Sequence[WorkloadResult]) -> SuiteSummary:
    """Returns the results of a suite, scored over the workloads of which nothing is missing.

    Args:
        plan: What it is scored by.
        workloads: The results on all of its workloads.
    """
    summary = SuiteSummary(plan.name, plan.baseline, plan.optimizers, tuple(workloads), (), ())
    if not summary.scored:
        return summary
    speeds = [[standing.speed for standing in w.standings] for w in summary.scored]
    steps = _to_costs([[speed.steps for speed in row] for row in speeds])
    seconds = _to_costs([[speed.seconds for speed in row] for row in speeds])
    names, baseline = plan.optimizers, plan.baseline
    by_seconds = () if summary.fused else score_all(seconds, names, baseline)
    return replace(summary, steps=score_all(steps, names, baseline), seconds=by_seconds)


def _find_target(
    spec: StudySpec, runs: Mapping[str, Sequence[TrialRecord]], plan: SuitePlan, name: str
) -> Target | None:
    """Returns the target that the suite file gives, or the one that the baseline's runs set."""
    given = plan.targets[name]
    if given is not None:
        return Target(given, None, seeds=True)
    own = {plan.baseline: runs[plan.baseline]} if plan.baseline in runs else {}
    return choose_target(spec, own, plan.baseline, seeds=True)


def _measure(
    spec: StudySpec, optimizer: str, runs: Sequence[TrialRecord], target: Target | None
) -> Standing:
    complete = [r.value for r in runs if r.outcome is Outcome.COMPLETE and r.value is not None]
    speed = Speed(optimizer, len(runs), 0, None, None)
    if target is not None:
        speed = measure_speed(spec, optimizer, runs, target)
    return Standing(speed, median(complete) if complete else None)


def _to_costs(found: Sequence[Sequence[float | None]]) -> Floats:
    return np.array([[math.inf if cost is None else cost for cost in row] for row in found])


def _lanes_of(record: TrialRecord) -> int:
    lanes = record.attributes.get("lanes", 1)
    return lanes if isinstance(lanes, int) else 1
