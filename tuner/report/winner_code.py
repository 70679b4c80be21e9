"""A study's winner as the values that the template of its Python writes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from tuner.analysis.summary import BestTrial, StudySummary
from tuner.domain.catalog.averages import AVERAGES, start_step
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.lengths import tell_length
from tuner.domain.objective import is_reached, tell_target, tell_value
from tuner.domain.spec import StudySpec
from tuner.domain.study_section import StudySection
from tuner.report.optimizer_code import OptimizerCode
from tuner.report.schedule_code import ScheduleCode


@dataclass(frozen=True)
class AverageCode:
    """The average of the winner's weights.

    Attributes:
        module: The module of torch that has the function.
        function: The function that makes the average's update.
        arguments: The function's keyword arguments.
        start: Steps after which the average begins.
        interval: Steps from one update to the next.
    """

    module: str
    function: str
    arguments: dict[str, Any]
    start: int
    interval: int

    @classmethod
    def of(cls, best: BestTrial) -> AverageCode | None:
        """Returns the average of a trial, or None where it averaged nothing."""
        values = best.config.average_values
        update = AVERAGES[best.config.average].call(values)
        if update is None:
            return None
        module, _, function = update.target.rpartition(".")
        start = start_step(values, best.full_steps)
        return cls(module, function, update.arguments, start, int(values["interval"]))


@dataclass(frozen=True)
class WinnerCode:
    """The variables of the template ``winner/module.py.jinja``.

    Attributes:
        remarks: Sentences on the trial, for the head of the module.
        optimizer: How its optimizer is built.
        schedule: How its schedule is built and stepped.
        average: How its weights are averaged, or None where they are not.
        momentum_warmup: Steps over which the momentum rises, 0 for none.
        closure: Whether a step is a computation of the loss in the optimizer's closure.
    """

    remarks: tuple[str, ...]
    optimizer: OptimizerCode
    schedule: ScheduleCode
    average: AverageCode | None
    momentum_warmup: int
    closure: bool

    @classmethod
    def of(cls, best: BestTrial, summary: StudySummary) -> WinnerCode:
        """Returns the variables for the best trial of a study."""
        schedule = ScheduleCode.of(best, summary.spec)
        # Momentum rises as the schedule is stepped, so it does not without one.
        warmup = best.config.momentum_warmup if schedule.pace.taken else 0.0
        return cls(
            _describe(best, summary),
            OptimizerCode.of(best, summary.spec),
            schedule,
            AverageCode.of(best),
            round(warmup * best.full_steps),
            OPTIMIZERS[best.config.optimizer].closure,
        )


def _tell_result(study: StudySection, value: float | None) -> str:
    if study.target is None:
        at = " at its best evaluation" if study.rank_by == "best" else ""
        return f"reached {study.metric} = {value!r}{at}"
    if value is None or not is_reached(study, value):
        return f"came nearest to {tell_target(study)}"
    return f"reached {tell_target(study)} in {tell_value(study, value)}"


def _describe(best: BestTrial, summary: StudySummary) -> tuple[str, ...]:
    """Returns sentences on the trial: its study, its metric, and how it trained."""
    spec, attributes = summary.spec, best.record.attributes
    claims = ", ".join(_claims(best, spec))
    lines = [
        f"{best.title} of the tuner study {summary.name!r}: {best.config.optimizer}, "
        f"{best.config.schedule} schedule.",
        f"{best.label} {_tell_result(spec.study, best.record.value)}{best.basis}",
        f"on {spec.study.workload}{' with ' if claims else ''}{claims}.",
    ]
    if best.unread:
        lines += [f"Its loop did not ask its run for {', '.join(best.unread)}."]
    if "stopped_early" in attributes:
        lines += [
            f"The loop ended it after {attributes['steps']} steps:",
            repr(attributes["stopped_early"]),
        ]
    elif length := tell_length(attributes):
        lines += [f"It {length} of a full trial."]
    return tuple(lines)


def _claims(best: BestTrial, spec: StudySpec) -> list[str]:
    """Returns the settings of training that the trial's loop asked its run for."""
    train = spec.train
    applied = {
        "batch_size": f"batch size {best.config.batch_size}",
        "accumulate": f"computed in {train.accumulate} parts" if train.accumulate > 1 else "",
        "precision": train.precision,
        "grad_clip": "no gradient clipping"
        if train.grad_clip is None
        else f"gradients clipped to norm {train.grad_clip}",
    }
    return [claim for name, claim in applied.items() if claim and name not in best.unread]
