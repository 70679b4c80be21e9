"""The reports of a trial: evaluations and logged numbers, sent and kept in checkpoints."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from tuner.domain.names import is_keepable
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialRecord, progress_at
from tuner.training.reporting import Evaluation, StaleCheckpointError


class Report(NamedTuple):
    """An evaluation with the numbers logged since the last one, or only logged numbers.

    Attributes:
        step: Steps taken.
        progress: The evaluation's place on the axis trials are compared along, or None.
        value: The metric, or None without an evaluation.
        logged: (step, name, value) triples.
    """

    step: int
    progress: int | None
    value: float | None
    logged: list[tuple[int, str, float]]


class Reports:
    """The reports of a trial, including those that the database may not have yet.

    Args:
        spec: The study, resolved.
        record: The trial as the database knows it.

    Attributes:
        evaluations: The metric so far, by progress.
        metrics: The metrics measured last.
        unsent: Reports on their way.
    """

    def __init__(self, spec: StudySpec, record: TrialRecord) -> None:
        self._spec, self._record = spec, record
        self.forget()

    def forget(self) -> None:
        """Forgets all reports, since the trial starts over."""
        self.evaluations: dict[int, float] = {}
        self.metrics: dict[str, float] = {}
        self.unsent: list[Report] = []

    @property
    def value(self) -> float | None:
        """The metric of the last evaluation."""
        return self.evaluations[max(self.evaluations)] if self.evaluations else None

    def resume(self, told: Any, taken: int, evaluated: int, total_steps: int) -> list[Report]:
        """Restores the reports from a checkpoint; returns those that were not sent yet.

        Args:
            told: The reports that the checkpoint holds unsent, each as a tuple.
            taken: Steps the trial has taken.
            evaluated: How often it has been evaluated.
            total_steps: Steps of a full trial.

        Raises:
            StaleCheckpointError: If the checkpoint's reports are malformed.
        """
        seen = {self._progress(index, total_steps) for index in range(1, evaluated + 1)}
        unsent = _read_reports(told, taken, seen)
        self.evaluations = {p: v for p, v in self._record.evaluations.items() if p in seen}
        return unsent

    def measure(
        self, evaluation: Evaluation, total_steps: int, logged: list[tuple[int, str, float]]
    ) -> Report:
        """Returns an evaluation as a report.

        Args:
            evaluation: The evaluation.
            total_steps: Steps of a full trial.
            logged: The numbers logged since the last one, as (step, name, value) triples.
        """
        self.metrics = evaluation.metrics
        measured = [(evaluation.step, *metric) for metric in evaluation.metrics.items()]
        return Report(
            evaluation.step,
            self._progress(evaluation.index, total_steps),
            evaluation.metrics[self._spec.study.metric],
            measured + logged,
        )

    def send(self, report: Report) -> None:
        """Adds a report to those on their way; its delivery takes it off."""
        if report.progress is not None and report.value is not None:
            self.evaluations[report.progress] = report.value
        self.unsent.append(report)

    def state(self) -> list[tuple[Any, ...]]:
        """Returns the unsent reports, for a checkpoint."""
        return [tuple(report) for report in self.unsent]

    def _progress(self, index: int, total_steps: int) -> int:
        return progress_at(self._spec, index, total_steps if self._spec.budget.steps else 0)


def _read_reports(told: Any, taken: int, progress: set[int]) -> list[Report]:
    try:
        reports = [Report(*values) for values in told]
        sound = all(_is_sound(report, taken, progress) for report in reports)
    except (TypeError, ValueError) as error:
        raise StaleCheckpointError(f"The checkpoint's unsent reports are none: {error}") from error
    if not sound:
        raise StaleCheckpointError("The checkpoint's unsent reports are malformed.")
    return reports


def _is_sound(report: Report, taken: int, progress: set[int]) -> bool:
    evaluated = (
        type(report.progress) is int
        and report.progress in progress
        and _is_number(report.value)
        and math.isfinite(report.value or 0.0)
    )
    nothing = report.progress is None and report.value is None
    return (
        _is_step(report.step, taken)
        and (nothing or evaluated)
        and all(
            _is_step(step, taken) and is_keepable(name) and _is_number(value)
            for step, name, value in report.logged
        )
    )


def _is_step(value: Any, taken: int) -> bool:
    return type(value) is int and 0 <= value <= taken


def _is_number(value: Any) -> bool:
    return type(value) is float
