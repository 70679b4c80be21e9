"""The number that ranks trials: the metric, or the time until it first reaches a target.

Without a target it is the metric of the trial's last evaluation or, where the study says so, of its
best. :func:`follow` decides that, of each evaluation as it is reported. So what the database holds
of a trial at any point, what pruners compare there and what the trial ends with are one number.

The value of a trial under a target is its steps, or its seconds of training, up to the evaluation
that first reached the target. One that has not reached it has a value beyond all of these, from
:data:`UNREACHED` on, that follows its last metric. So the smaller value is the better in any case,
and whoever ranks trials compares one number.
"""

from __future__ import annotations

import math
from typing import Any

from tuner.domain.study_section import Direction, StudySection

UNREACHED = 1e10
"""The least value of a trial that has not reached the target: more than any steps or seconds."""


def sign_of(direction: Direction) -> float:
    """Returns the factor that turns values into costs, of which the smaller is better.

    Args:
        direction: Which values are better.

    >>> sign_of("minimize"), sign_of("maximize")
    (1.0, -1.0)
    """
    return 1.0 if direction == "minimize" else -1.0


def follow(study: StudySection, standing: float | None, metric: float) -> float:
    """Returns the metric by which a trial stands once it has one more evaluation.

    Args:
        study: The study.
        standing: The metric by which it stood before; None if that is its first evaluation.
        metric: The metric of the evaluation.

    >>> best = StudySection(name="a", workload="b:C", rank_by="best")
    >>> follow(best, 0.3, 0.5), follow(best, 0.3, 0.2)
    (0.3, 0.2)
    >>> follow(StudySection(name="a", workload="b:C"), 0.3, 0.5)
    0.5
    """
    if study.rank_by == "last" or standing is None:
        return metric
    sign = sign_of(study.direction)
    return metric if sign * metric < sign * standing else standing


def reaches(study: StudySection, metric: float) -> bool:
    """Tells whether a metric reaches the target; never where trials are ranked by the metric."""
    if study.target is None:
        return False
    return metric <= study.target if study.direction == "minimize" else metric >= study.target


def to_value(study: StudySection, metric: float, steps: float, seconds: float) -> float:
    """Returns the value that a trial is ranked by.

    Args:
        study: The study.
        metric: The trial's last metric.
        steps: Optimizer steps that it has taken.
        seconds: Seconds of training that these took.

    Returns:
        The metric itself where trials are ranked by it.
    """
    if study.target is None:
        return metric
    if reaches(study, metric):
        return steps if study.unit == "steps" else seconds
    return to_unreached(study, metric)


def to_unreached(study: StudySection, metric: float) -> float:
    """Returns the value of a trial that has not reached the target; the metric without a target.

    It grows from :data:`UNREACHED` to twice that as the metric gets worse.
    """
    if study.target is None:
        return metric
    cost = metric if study.direction == "minimize" else -metric
    return UNREACHED * (1.5 + math.atan(cost) / math.pi)


def is_reached(study: StudySection, value: float) -> bool:
    """Tells whether the value of a trial says that it has reached the target."""
    return study.target is not None and value < UNREACHED


def is_missed(study: StudySection, value: float) -> bool:
    """Tells whether the value of a trial says that it has not reached the target, if there is one.

    >>> is_missed(StudySection(name="a", workload="b:C"), 2e10)
    False
    """
    return study.target is not None and not is_reached(study, value)


def tell_value(study: StudySection, value: float | None) -> str:
    """Returns the value of a trial in words: its metric, its steps or its seconds; – for None."""
    if value is None:
        return "–"
    if study.target is None:
        return f"{value:.4g}"
    if not is_reached(study, value):
        return "not reached"
    return f"{value:,.0f} steps" if study.unit == "steps" else f"{value:.3g} s"


def describe_objective(study: StudySection) -> dict[str, Any]:
    """Returns what trials are ranked by, for programs; without a target, no unit."""
    unit = None if study.target is None else study.unit
    return {
        "objective": study.objective,
        "target": study.target,
        "unit": unit,
        "rank_by": study.rank_by,
    }


def tell_metric(study: StudySection) -> str:
    """Returns the metric in words, as trials stand by it: at their last or best evaluation.

    >>> tell_metric(StudySection(name="a", workload="b:C", rank_by="best"))
    'best val_loss'
    """
    return f"best {study.metric}" if study.rank_by == "best" else study.metric


def tell_objective(study: StudySection) -> str:
    """Returns what trials are ranked by, in words.

    >>> tell_objective(StudySection(name="a", workload="b:C"))
    'val_loss'
    """
    return tell_metric(study) if study.target is None else f"{study.unit} to {tell_target(study)}"


def tell_aim(study: StudySection, mark: str = "") -> str:
    """Returns what a study looks for, in words.

    Args:
        study: The study.
        mark: What to put around the metric.

    >>> tell_aim(StudySection(name="a", workload="b:C"))
    'minimize val_loss'
    """
    if study.target is None:
        at = ", at each trial's best evaluation" if study.rank_by == "best" else ""
        return f"{study.direction} {mark}{study.metric}{mark}{at}"
    return f"reach {mark}{tell_target(study)}{mark} in few {study.unit}"


def tell_target(study: StudySection) -> str:
    """Returns the target in words, such as ``val_loss 0.1``; the metric alone without one."""
    return study.metric if study.target is None else f"{study.metric} {study.target:g}"
