"""The reports of a trial: evaluations and logged numbers, sent and kept in checkpoints."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

from tuner.domain.names import is_keepable
from tuner.domain.objective import follow
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialRecord, progress_at
from tuner.training.reporting import Evaluation, StaleCheckpointError


class Report(NamedTuple):
    """An evaluation with the numbers logged since the last one, or only logged numbers.

    Attributes:
        step: Steps taken.
        progress: The evaluation's place on the axis trials are compared along, or None.
        value: The metric by which the trial stands, or None without an evaluation.
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
        evaluations: The metric by which the trial has stood, by progress.
        standing: The evaluation by which it stands: the last, or the best if the study says so;
            None if it has none.
        unsent: Reports on their way.
    """

    def __init__(self, spec: StudySpec, record: TrialRecord) -> None:
        self._spec, self._record = spec, record
        self.forget()

    def forget(self) -> None:
        """Forgets all reports, since the trial starts over."""
        self.evaluations: dict[int, float] = {}
        self.standing: Evaluation | None = None
        self.unsent: list[Report] = []

    @property
    def value(self) -> float | None:
        """The metric by which the trial stands."""
        return self.evaluations[max(self.evaluations)] if self.evaluations else None

    def resume(
        self, state: Mapping[str, Any], taken: int, evaluated: int, total_steps: int
    ) -> list[Report]:
        """Restores the reports from a checkpoint; returns those that were not sent yet.

        Args:
            state: The checkpoint, with what :meth:`state_dict` has put into it.
            taken: Steps the trial has taken.
            evaluated: How often it has been evaluated.
            total_steps: Steps of a full trial.

        Raises:
            StaleCheckpointError: If the checkpoint's reports are malformed.
        """
        seen = {self._progress(index, total_steps) for index in range(1, evaluated + 1)}
        unsent = _read_reports(state.get("unsent"), taken, seen)
        self.standing = _read_standing(state.get("standing"), taken, evaluated)
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
        study, before = self._spec.study, self.value
        value = follow(study, before, evaluation.metrics[study.metric])
        if study.rank_by == "last" or value != before:
            self.standing = evaluation
        measured = [(evaluation.step, *metric) for metric in evaluation.metrics.items()]
        return Report(
            evaluation.step,
            self._progress(evaluation.index, total_steps),
            value,
            measured + logged,
        )

    def send(self, report: Report) -> None:
        """Adds a report to those on their way; its delivery takes it off."""
        if report.progress is not None and report.value is not None:
            self.evaluations[report.progress] = report.value
        self.unsent.append(report)

    def state_dict(self) -> dict[str, Any]:
        """Returns the unsent reports and the evaluation it stands by, for a checkpoint."""
        one = self.standing
        return {
            "unsent": [tuple(report) for report in self.unsent],
            "standing": None if one is None else (one.index, one.step, dict(one.metrics)),
        }

    def _progress(self, index: int, total_steps: int) -> int:
        return progress_at(self._spec, index, total_steps if self._spec.budget.steps else 0)


def _read_standing(told: Any, taken: int, evaluated: int) -> Evaluation | None:
    if told is None:  # as in the checkpoints of older versions
        return None
    try:
        index, step, metrics = told
        sound = _is_step(index, evaluated) and _is_step(step, taken)
        sound = sound and all(is_keepable(k) and _is_number(v) for k, v in metrics.items())
    except (AttributeError, TypeError, ValueError) as error:
        raise StaleCheckpointError(f"The checkpoint's evaluation is none: {error}") from error
    if not sound:
        raise StaleCheckpointError("The checkpoint's evaluation is malformed.")
    return Evaluation(index, step, metrics)


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
