"""The answer of a study as a card: what to use, how sure that is, and all of its settings."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from tuner.analysis.summary import StudySummary
from tuner.domain.catalog.averages import NO_AVERAGE
from tuner.domain.catalog.dimensions import format_value
from tuner.domain.printable import printable
from tuner.domain.trials import Outcome
from tuner.report.conclusion import conclude
from tuner.report.tables import TextTable, groups, tell_count

_ERRORS = 3


@dataclass(frozen=True)
class Fault:
    """An error that trials of a study failed with.

    Attributes:
        error: Its kind and message.
        place: The file and line that raised it; empty where that is not known.
        trials: How many trials failed with it.
        command: The command that shows one of them.
    """

    error: str
    place: str
    trials: int
    command: str


@dataclass(frozen=True)
class Answer:
    """The answer of a study.

    Attributes:
        verdict: The sentence that says what to use.
        standing: How sure that is, in a few words.
        is_sure: Whether fresh seeds have confirmed it.
        doubts: What else is to be known, the most important first.
        optimizer: The optimizer to use, or None where there is no answer.
        settings: All settings of the winner; those of another trial where a person chose it.
        metrics: The metrics of its trial, by name.
        metrics_title: Whose metrics they are.
        groups: The settings of its parameter groups, or None where it has none.
        faults: The errors of failed trials, the commonest first.
    """

    verdict: str
    standing: str
    is_sure: bool
    doubts: tuple[str, ...]
    optimizer: str | None
    settings: tuple[tuple[str, str], ...]
    metrics: tuple[tuple[str, str], ...]
    metrics_title: str
    groups: TextTable | None
    faults: tuple[Fault, ...]

    @classmethod
    def of(cls, summary: StudySummary) -> Answer:
        """Returns the answer of a study."""
        verdict, *doubts = conclude(summary)
        standing, is_sure = _tell_standing(summary)
        best = summary.best
        described = best.record.attributes.get("groups") if best else None
        return cls(
            verdict=verdict,
            standing=printable(standing),
            is_sure=is_sure,
            doubts=tuple(doubts),
            optimizer=best.config.optimizer if best else None,
            settings=_settings(summary),
            metrics=_metrics(best.record.attributes.get("metrics", {})) if best else (),
            metrics_title="Metrics" if best is None else f"Metrics of {best.label.lower()} itself",
            groups=groups(described) if described else None,
            faults=_faults(summary),
        )


def _tell_standing(summary: StudySummary) -> tuple[str, bool]:
    """Returns how sure the answer is, in words, and whether fresh seeds have confirmed it."""
    confirmed, name = summary.confirmed, shlex.quote(summary.name)
    if summary.best is None:
        told = _tell_nothing(summary)
    elif summary.spec.confirmation is not None:
        told = "These runs confirm another study, whose report has the verdict"
    elif confirmed is None:
        told = f"Not confirmed: the best of one seed. Confirm it: tuner study confirm {name}"
    elif not confirmed.race.settled:
        runs = confirmed.confirmation.runs
        told = f"Being confirmed: {confirmed.runs} of {runs} runs at most are over"
    elif confirmed.winner is None:
        told = "Not confirmed: no finalist is fit to be used"
    else:
        tied = len(confirmed.verdict.tied)
        others = f", tied with {tell_count(tied - 1, 'other')}" if tied else ""
        return f"Confirmed on {confirmed.verdict.seeds} fresh seeds{others}", True
    return told, False


def _tell_nothing(summary: StudySummary) -> str:
    """Returns why there is no answer."""
    for outcome, how in ((Outcome.DIVERGED, "diverged"), (Outcome.FAILED, "failed")):
        if summary.finished and summary.counts[outcome] == summary.finished:
            return f"No answer: all of {tell_count(summary.finished, 'trial')} {how}"
    return "No answer yet"


def _settings(summary: StudySummary) -> tuple[tuple[str, str], ...]:
    best = summary.best
    if best is None:
        return ()
    values: dict[str, Any] = {"optimizer": best.config.optimizer, "schedule": best.config.schedule}
    values |= best.config.to_json()
    values.setdefault("average", NO_AVERAGE)
    values = {key: value for key, value in values.items() if key not in best.unread}
    return tuple((printable(key), printable(format_value(value))) for key, value in values.items())


def _metrics(metrics: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(
        (printable(name), printable(f"{value:.4g}" if isinstance(value, float) else value))
        for name, value in metrics.items()
    )


def _faults(summary: StudySummary) -> tuple[Fault, ...]:
    failed = [record for record in summary.records if record.outcome is Outcome.FAILED]
    errors = Counter(str(r.attributes.get("error", "no error is on record")) for r in failed)
    faults = []
    for error, count in errors.most_common(_ERRORS):
        first = next(
            r for r in failed if str(r.attributes.get("error", "no error is on record")) == error
        )
        command = shlex.join(("tuner", "trial", "show", summary.name, str(first.number)))
        place = str(first.attributes.get("error_at", ""))
        faults.append(
            Fault(printable(error, lines=True), printable(place), count, printable(command))
        )
    return tuple(faults)
