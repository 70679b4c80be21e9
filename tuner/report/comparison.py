"""The comparison of optimizers as reports show it: its tables and its sentences."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING

from tuner.analysis.random_search import Share
from tuner.analysis.summary import StudySummary
from tuner.analysis.tuning import NEAR, Tuning
from tuner.domain.objective import tell_value
from tuner.domain.printable import printable
from tuner.domain.search import share_out
from tuner.report.tables import TextTable, number

if TYPE_CHECKING:  # numpy comes with these
    from tuner.analysis.compared import Compared, Undertuned
    from tuner.analysis.speed import Speed, Target
    from tuner.domain.study_section import StudySection


def comparison_tables(summary: StudySummary) -> list[TextTable]:
    """Returns the tables of a study that compares optimizers; none of any other."""
    compared = summary.compared
    if compared is None:
        return []
    return [
        _tuning(summary.spec.study, compared),
        _difficulty(compared),
        *([_beats(summary, compared.beats)] if compared.beats is not None else []),
    ]


def _tuning(study: StudySection, compared: Compared) -> TextTable:
    """Returns the table of what tuning brought, and how fast the tuned optimizers train."""
    speeds: Mapping[str, Speed] = {speed.optimizer: speed for speed in compared.speeds}
    return TextTable(
        f"What tuning brings{_tell_target(study, compared.target)}",
        ("optimizer", "defaults", "tuned", "gain", "after", "steps", "seconds"),
        tuple(
            (
                tuning.optimizer,
                tell_value(study, tuning.default_value),
                tell_value(study, tuning.best_value),
                _tell_gain(tuning),
                "–" if tuning.best_after is None else f"{tuning.best_after}/{tuning.trials}",
                *_tell_speed(speeds.get(tuning.optimizer)),
            )
            for tuning in compared.tunings
        ),
    )


def _tell_target(study: StudySection, target: Target | None) -> str:
    """Returns the end of a title: where steps and seconds are counted to."""
    if target is None:
        return ""
    told = f", and steps and seconds to {study.metric} {number(target.value)}"
    if target.reached_by is None:
        return told
    reached = "median over fresh seeds" if target.seeds else "best"
    return f"{told} ({target.reached_by}'s {reached})"


def _difficulty(compared: Compared) -> TextTable:
    """Returns the table of how much of each range is good, and how often trials diverge."""
    return TextTable(
        f"How hard tuning is: shares of the range within {NEAR:.0%} of the best [95% interval]",
        ("optimizer", "draws", "of its own best", "of the best of all", "diverged"),
        tuple(
            (
                tuning.optimizer,
                str(len(tuning.draws.values)),
                *map(_tell_share, (tuning.near_own, tuning.near_best, tuning.diverged)),
            )
            for tuning in compared.tunings
        ),
    )


def _beats(summary: StudySummary, beats: Mapping[str, tuple[str, ...]]) -> TextTable:
    """Returns the table of who beats whom on fresh seeds."""
    confirmed = summary.confirmed
    so_far = "" if confirmed is not None and confirmed.race.settled else ", so far"
    return TextTable(
        f"Who beats whom on fresh seeds{so_far}",
        ("optimizer", "beats; nothing is shown of all other pairs"),
        tuple((name, ", ".join(others) or "–") for name, others in beats.items()),
    )


def tell_comparison(summary: StudySummary) -> list[str]:
    """Returns sentences on a comparison that its tables do not say; none of any other study."""
    compared = summary.compared
    if compared is None:
        return []
    sentences = [_tell_undertuned(summary, one) for one in compared.undertuned]
    if sentences:
        budget = summary.spec.budget
        name, size = (
            ("trials", budget.trials)
            if budget.full_trials is None
            else ("full_trials", budget.full_trials)
        )
        twice = 2 * share_out(size, len(summary.spec.space.optimizers))
        more = shlex.join(("--set", f"budget.{name}={twice}"))
        sentences.append(f"For twice as much of all: 'tuner run FILE {more}' with its study file.")
    return [printable(sentence) for sentence in sentences]


def _tell_undertuned(summary: StudySummary, one: Undertuned) -> str:
    where = "On fresh seeds" if one.confirmed else "In the search"
    return (
        f"{where} {one.optimizer} lost to {one.special}, of which it is a generalisation: it was "
        "not tuned enough."
    )


def _tell_gain(tuning: Tuning) -> str:
    if tuning.relative_gain is not None:
        return f"{tuning.relative_gain:.1%}"
    return number(tuning.gain)


def _tell_speed(speed: Speed | None) -> tuple[str, str]:
    if speed is None or speed.steps is None:
        return "–", "–"
    return f"{speed.steps:,.0f}", "–" if speed.seconds is None else f"{speed.seconds:.3g}"


def _tell_share(share: Share | None) -> str:
    """Returns a share with its interval, in per cent.

    >>> from tuner.analysis.random_search import to_share
    >>> _tell_share(to_share(2, 8))
    '25% [3, 65]'
    """
    if share is None:
        return "–"
    return f"{share.share:.0%} [{100 * share.low:.0f}, {100 * share.high:.0f}]"
