"""Runs on fresh seeds of the workloads of a suite, and what it is scored by, made by hand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tuner.analysis.suite import SuiteSummary, WorkloadResult, measure_workload, summarize_suite
from tuner.domain.confirmation import CONFIRMS, REPEAT, Confirmation, Finalist
from tuner.domain.spec import StudySpec
from tuner.domain.suite import SuitePlan
from tuner.domain.trials import Outcome, Proposal, TrialRecord

OPTIMIZERS = ("adam", "adamw", "muon")
STEPS, EVALUATIONS = 100, 10

Curve = Sequence[float] | None
"""The metric at each tenth of a run; None for a run that diverged."""


def plan_of(**targets: float | None) -> SuitePlan:
    return SuitePlan(
        name="mine", baseline="adamw", optimizers=OPTIMIZERS, targets=targets or {"digits": None}
    )


def spec_of(direction: str = "minimize") -> StudySpec:
    study = {"name": "mine.digits", "workload": "models.digits:Digits", "direction": direction}
    tree = {
        "study": study,
        "budget": {"trials": 12, "steps": STEPS, "evaluations": EVALUATIONS},
        "space": {"optimizers": list(OPTIMIZERS)},
        "search": {"mode": "compare"},
    }
    return StudySpec.model_validate(tree).resolve()


def falling(*, reaches: int, end: float = 0.1, start: float = 1.0) -> list[float]:
    """Returns a curve that reaches its end at the evaluation of that number, from 1."""
    return [start] * (reaches - 1) + [end] * (EVALUATIONS - reaches + 1)


def runs_of(curves: Mapping[str, Sequence[Curve]], **attributes: Any) -> list[TrialRecord]:
    """Returns the runs of optimizers, one a seed."""
    records: list[TrialRecord] = []
    for trial, (optimizer, own) in enumerate(curves.items()):
        for repeat, curve in enumerate(own):
            noted = {CONFIRMS: trial, REPEAT: repeat, "steps": STEPS, "total_steps": STEPS}
            records.append(
                TrialRecord(
                    len(records),
                    Outcome.DIVERGED if curve is None else Outcome.COMPLETE,
                    Proposal({"optimizer": optimizer, "schedule": "constant"}),
                    value=None if curve is None else curve[-1],
                    evaluations={10 * at: v for at, v in enumerate(curve or (), start=1)},
                    attributes=noted | {"train_s": 2.0} | attributes,
                )
            )
    return records


def result_of(
    curves: Mapping[str, Sequence[Curve]],
    plan: SuitePlan | None = None,
    name: str = "digits",
    direction: str = "minimize",
    **attributes: Any,
) -> WorkloadResult:
    records = runs_of(curves, **attributes)
    spec = spec_of(direction)
    confirmation = confirmation_of(tuple(curves))
    return measure_workload(name, f"mine.{name}", spec, confirmation, records, plan or plan_of())


def confirmation_of(optimizers: Sequence[str]) -> Confirmation:
    """Returns finalists 0, 1, ..., one of each optimizer."""
    finalists = tuple(
        Finalist(trial=trial, params={"optimizer": name, "schedule": "constant"})
        for trial, name in enumerate(optimizers)
    )
    return Confirmation(study="0" * 32, finalists=finalists, runs=100, compares=True)


def even(adam: int, adamw: int, muon: int) -> dict[str, list[Curve]]:
    """Returns the curves of three seeds that reach 0.1 at evaluations of these numbers."""
    reaching = {"adam": adam, "adamw": adamw, "muon": muon}
    return {name: [falling(reaches=at)] * 3 for name, at in reaching.items()}


def suite_of(**workloads: Mapping[str, Sequence[Curve]] | str) -> SuiteSummary:
    """Returns a suite of these workloads; of a text, that is what is missing of one."""
    plan = plan_of(**dict.fromkeys(workloads, 0.1))
    results = [
        WorkloadResult(name, missing=found)
        if isinstance(found, str)
        else result_of(found, plan, name)
        for name, found in workloads.items()
    ]
    return summarize_suite(plan, results)
