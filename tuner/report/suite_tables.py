"""The tables that every format of a suite's report shows, as plain text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuner.report.tables import TextTable, number

if TYPE_CHECKING:  # numpy comes with these
    from tuner.analysis.profiles import Score, Speedup
    from tuner.analysis.suite import Standing, SuiteSummary, WorkloadResult


def suite_tables(summary: SuiteSummary) -> list[TextTable]:
    """Returns the tables of a suite's report; before a workload is scored, its workloads alone."""
    if not summary.steps:
        return [workloads(summary)]
    return [
        scores(summary, summary.steps, "steps"),
        *([scores(summary, summary.seconds, "seconds")] if summary.seconds else []),
        profiles(summary.steps),
        standings(summary),
        workloads(summary),
    ]


def scores(summary: SuiteSummary, found: Sequence[Score], unit: str) -> TextTable:
    """Returns the table of optimizers by score, the best first.

    Args:
        summary: The suite's results.
        found: The scores.
        unit: What the time to a target is counted in.
    """
    count = len(summary.scored)
    over = "one workload" if count == 1 else f"{count} workloads"
    return TextTable(
        f"Optimizers by score over {over}, by {unit} to the target",
        ("optimizer", "score", f"speed-up over {summary.baseline}", "targets reached"),
        tuple(
            (
                score.optimizer,
                f"{score.area:.3f}",
                tell_speedup(score.speedup, count),
                f"{score.speedup.both + score.speedup.alone} of {count}",
            )
            for score in found
        ),
        lit=0,
    )


def tell_speedup(speedup: Speedup, count: int) -> str:
    """Returns a speed-up, and the workloads that it is over where these are not all.

    Args:
        speedup: The speed-up.
        count: The workloads of the suite that are scored.
    """
    if speedup.factor is None:
        return "–"
    over = "" if speedup.both == count else f" on {speedup.both} of {count}"
    return f"{speedup.factor:.2f}{over}"


def profiles(found: Sequence[Score]) -> TextTable:
    """Returns the table of performance profiles at some ratios."""
    return TextTable(
        "Share of the targets reached within τ times the fewest steps",
        ("optimizer", *(f"τ = {tau:g}" for tau in found[0].profile)),
        tuple(
            (score.optimizer, *(f"{share:.0%}" for share in score.profile.values()))
            for score in found
        ),
        lit=0,
    )


def standings(summary: SuiteSummary) -> TextTable:
    """Returns the table of all optimizers on all workloads that are scored, the fastest first."""
    seconds = ["seconds"] if summary.seconds else []
    return TextTable(
        "Runs on fresh seeds: their median value, and the steps to the target",
        (
            "workload",
            "optimizer",
            "value",
            "steps",
            *seconds,
            "of the fewest",
            "runs that reach it",
        ),
        tuple(
            (
                workload.name,
                standing.speed.optimizer,
                number(standing.value),
                "–" if standing.speed.steps is None else f"{standing.speed.steps:,.0f}",
                *(number(standing.speed.seconds) for _ in seconds),
                "missed" if standing.ratio is None else f"{standing.ratio:.2f} ×",
                f"{standing.speed.reached} of {standing.speed.runs}",
            )
            for workload in summary.scored
            for standing in sorted(workload.standings, key=_slowness)
        ),
    )


def workloads(summary: SuiteSummary) -> TextTable:
    """Returns the table of a suite's workloads: their studies, their targets, what is missing."""
    return TextTable(
        "Workloads",
        ("workload", "study", "target", "set by", "state"),
        tuple(
            (
                workload.name,
                workload.study or "–",
                tell_target(workload),
                _tell_setter(workload),
                workload.missing or "scored",
            )
            for workload in summary.workloads
        ),
    )


def tell_target(workload: WorkloadResult) -> str:
    """Returns a workload's target in words, such as ``val_loss ≤ 0.1``; – where it has none yet."""
    if workload.target is None or workload.spec is None:
        return "–"
    study = workload.spec.study
    sign = "≤" if study.direction == "minimize" else "≥"
    return f"{study.metric} {sign} {number(workload.target.value)}"


def _tell_setter(workload: WorkloadResult) -> str:
    if workload.target is None:
        return "–"
    setter = workload.target.reached_by
    return "the suite file" if setter is None else f"{setter}'s runs"


def _slowness(standing: Standing) -> float:
    return math.inf if standing.ratio is None else standing.ratio
