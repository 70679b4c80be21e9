"""What a trial has to tell, and how it is read again from a checkpoint."""

from __future__ import annotations

import math
from typing import Any, NamedTuple

from tuner.store.curves import NAME_LENGTH
from tuner.training.reporting import StaleCheckpointError


class Report(NamedTuple):
    """An evaluation and what was logged since the last one, or only what was logged.

    Attributes:
        step: Steps taken.
        progress: Where the evaluation stands on the axis trials are compared along, or None.
        value: The metric, or None without an evaluation.
        logged: (step, name, value) triples.
    """

    step: int
    progress: int | None
    value: float | None
    logged: list[tuple[int, str, float]]


def read_reports(told: Any, taken: int, progress: set[int]) -> list[Report]:
    """Returns the reports that a checkpoint carries.

    Args:
        told: Each report as a tuple.
        taken: Steps the trial has taken.
        progress: Where it has been evaluated.

    Raises:
        StaleCheckpointError: If they are something else.
    """
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
            _is_step(step, taken) and _is_name(name) and _is_number(value)
            for step, name, value in report.logged
        )
    )


def _is_step(value: Any, taken: int) -> bool:
    return type(value) is int and 0 <= value <= taken


def _is_name(value: Any) -> bool:
    return isinstance(value, str) and 0 < len(value) <= NAME_LENGTH and "\0" not in value


def _is_number(value: Any) -> bool:
    return type(value) is float
