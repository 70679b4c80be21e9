"""The conclusion of a suite in words: who scores best, what it rests on, and what it leaves out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from tuner.domain.printable import printable

if TYPE_CHECKING:  # numpy comes with these
    from tuner.analysis.profiles import Score
    from tuner.analysis.suite import SuiteSummary


def conclude_suite(summary: SuiteSummary) -> list[str]:
    """Returns the conclusion of a suite as sentences, the most important first."""
    return [printable(sentence) for sentence in _conclude(summary)]


def tell_suite(summary: SuiteSummary) -> str:
    """Returns the size of a suite in words, and its baseline."""
    workloads, optimizers = len(summary.workloads), len(summary.optimizers)
    many = "1 workload" if workloads == 1 else f"{workloads} workloads"
    return f"suite of {many}, {optimizers} optimizers, baseline {summary.baseline}"


def _conclude(summary: SuiteSummary) -> list[str]:
    missing = [f"{w.name} is not scored: {w.missing}." for w in summary.workloads if w.missing]
    if not summary.steps:
        return ["No workload is scored yet.", *missing]
    return [
        *_tell_best(summary),
        *missing,
        *_tell_misses(summary),
        *_tell_failures(summary),
        *_tell_targets(summary),
        *_tell_seconds(summary),
        _doubt(summary),
    ]


def _tell_best(summary: SuiteSummary) -> list[str]:
    """Returns sentences on the optimizers of the best score, and how fast the first of them is."""
    best = [s for s in summary.steps if s.area == summary.steps[0].area]
    if not best[0].area:
        return [f"No optimizer scores anything over {_count(summary)}: all targets are missed."]
    names = _join([score.optimizer for score in best])
    verb = "scores" if len(best) == 1 else "score"
    told = [f"{names} {verb} best, {best[0].area:.3f} of at most 1, over {_count(summary)}."]
    return [*told, *(_tell_speed(score, summary) for score in best if _is_faster(score, summary))]


def _is_faster(score: Score, summary: SuiteSummary) -> bool:
    """Tells whether an optimizer may be called faster than the baseline: not if it misses any."""
    speedup = score.speedup
    if score.optimizer == summary.baseline or speedup.missed or speedup.neither:
        return False
    return speedup.factor is not None and speedup.factor > 1


def _tell_speed(score: Score, summary: SuiteSummary) -> str:
    speedup = score.speedup
    many = "the workload" if speedup.both == 1 else f"the {speedup.both} workloads"
    return (
        f"{score.optimizer} reaches the targets {speedup.factor:.2f} times as fast as "
        f"{summary.baseline}, in steps: the geometric mean over {many} where both do."
    )


def _tell_misses(summary: SuiteSummary) -> list[str]:
    """Returns a sentence for each optimizer that misses targets."""
    told = []
    for score in summary.steps:
        missed = [
            workload.name
            for workload in summary.scored
            for standing in workload.standings
            if standing.speed.optimizer == score.optimizer and standing.speed.steps is None
        ]
        if missed:
            others = f"; its speed-up is over the other {score.speedup.both} alone"
            told.append(
                f"{score.optimizer} misses the target of {_join(missed)}, where it counts as "
                f"infinitely slow{others if score.speedup.factor is not None else ''}."
            )
    return told


def _tell_failures(summary: SuiteSummary) -> list[str]:
    return [
        f"{w.failed} {'run' if w.failed == 1 else 'runs'} on fresh seeds of {w.study} failed and "
        f"count as misses: see 'tuner study report {w.study}'."
        for w in summary.scored
        if w.failed
    ]


def _tell_targets(summary: SuiteSummary) -> list[str]:
    """Returns a sentence on the targets that the baseline's runs set."""
    by_rule = [w.name for w in summary.scored if w.target and w.target.reached_by is not None]
    if not by_rule:
        return []
    return [
        f"The target of {_join(by_rule)} is the value that {summary.baseline}'s runs end with, in "
        f"the median: so {summary.baseline} reaches it."
    ]


def _tell_seconds(summary: SuiteSummary) -> list[str]:
    """Returns a sentence on the seconds, or on the reason that there are none."""
    if not summary.fused:
        return [
            "Seconds are those of the machine that trained these runs, and what else ran there."
        ]
    return [
        f"Seconds are not compared: runs of {_join(summary.fused)} trained as one, and shared "
        "their seconds equally. A suite that begins with '--fuse off' has seconds."
    ]


def _doubt(summary: SuiteSummary) -> str:
    count = len(summary.scored)
    if count == 1:
        return "One workload tells nothing about others."
    return (
        f"With {count} workloads each of them makes {1 / count:.0%} of a profile, and no interval "
        "is known: treat small differences as undecided. The report of each study tells which "
        "differences in value are sure."
    )


def _count(summary: SuiteSummary) -> str:
    count, whole = len(summary.scored), len(summary.workloads)
    if count < whole:
        return f"{count} of {whole} workloads"
    return "one workload" if count == 1 else f"{count} workloads"


def _join(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
