"""The winner's schedule as the values that the template of its Python writes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from tuner.analysis.summary import BestTrial
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import (
    SCHEDULES,
    ScheduleFormula,
    ScheduleRow,
    as_numbers,
    count_epochs,
    count_patience,
    split_steps,
)
from tuner.domain.spec import StudySpec


@dataclass(frozen=True)
class SchedulePace:
    """How a loop stepped its schedules: unless told otherwise after every optimizer step.

    Attributes:
        taken: Whether the loop took a schedule from its run.
        held: Whether it never stepped one, so that the first learning rate stayed.
        irregular: Whether it stepped one at times that no rule tells.
        stride: Optimizer steps from one call of the first schedule's ``step()`` to the next.
        advance: Steps by which a call moved the first schedule on.
        optimizer_steps: Optimizer steps from one call to the next, an entry for each optimizer;
            empty where they are not known.
        call_steps: Steps by which a call moved a schedule on, an entry for each optimizer; empty
            where that is one step, or one epoch for a schedule stepped by epoch.
    """

    taken: bool = True
    held: bool = False
    irregular: bool = False
    stride: int = 1
    advance: int = 1
    optimizer_steps: tuple[int, ...] = ()
    call_steps: tuple[int, ...] = ()

    @classmethod
    def of(
        cls,
        calls: Sequence[Mapping[str, int | None]] | None,
        usual: set[int],
        *,
        closure: bool,
    ) -> SchedulePace:
        """Returns the pace of a loop.

        Args:
            calls: How it stepped each schedule, as :attr:`BestTrial.schedule_calls` tells.
            usual: The steps by which a call may move a schedule on without being told.
            closure: Whether the schedule follows the optimizer's closure, however it is stepped.
        """
        if calls is None:
            return cls()
        if not any(call["calls"] for call in calls):
            return cls(taken=bool(calls), held=True)
        if not closure and any(call["steps"] is None for call in calls):
            return cls(irregular=True)
        steps = tuple(call["steps"] or 1 for call in calls)
        between = tuple(call["optimizer_steps"] or 0 for call in calls)
        return cls(
            stride=between[0] or 1,
            advance=steps[0],
            optimizer_steps=between if all(between) else (),
            call_steps=() if closure or set(steps) <= usual else steps,
        )

    @property
    def every(self) -> int:
        """Optimizer steps from one call to the next in a loop over one optimizer."""
        return self.optimizer_steps[0] if self.optimizer_steps else 1

    @property
    def even(self) -> bool:
        """Whether all schedules were stepped alike."""
        return len(set(self.optimizer_steps)) == 1


@dataclass(frozen=True)
class ScheduleCode:
    """The schedule of a trial.

    Attributes:
        row: The schedule.
        values: Its values.
        steps: Steps of a full trial.
        epoch_steps: Steps of an epoch, for one stepped by epoch, else None.
        evaluations: Evaluations of a full trial.
        direction: ``minimize`` or ``maximize``, as the metric asks for.
        closure: Whether it follows the computations of the loss in the optimizer's closure.
        uses_tuner: Whether tuner builds it: the optimizer tunes its learning rate itself, and no
            scheduler of torch drives the factor on that.
        pace: How the loop stepped it.
    """

    row: ScheduleRow
    values: dict[str, float]
    steps: int
    epoch_steps: int | None
    evaluations: int
    direction: str
    closure: bool
    uses_tuner: bool
    pace: SchedulePace

    @classmethod
    def of(cls, best: BestTrial, spec: StudySpec) -> ScheduleCode:
        """Returns the schedule of a trial; a constant one where its loop took none."""
        optimizer, attributes = OPTIMIZERS[best.config.optimizer], best.record.attributes
        by_epoch = spec.train.schedule_by == "epoch" and "epoch_steps" in attributes
        epoch_steps = int(attributes["epoch_steps"]) if by_epoch else None
        uses_tuner = optimizer.rate != "lr"
        usual = {1} if uses_tuner or not epoch_steps else {1, epoch_steps}
        pace = SchedulePace.of(best.schedule_calls, usual, closure=optimizer.closure)
        return cls(
            SCHEDULES[best.config.schedule if pace.taken else "constant"],
            as_numbers(best.config.schedule_values if pace.taken else {"warmup": 0.0}),
            best.full_steps,
            epoch_steps,
            spec.budget.evaluations,
            spec.study.direction,
            optimizer.closure,
            uses_tuner,
            pace,
        )

    @property
    def warmup(self) -> int:
        """Steps of the warmup, or epochs where it is stepped by epoch."""
        return self._lengths[0]

    @property
    def rest(self) -> int:
        """Steps after the warmup, or epochs, at least 1."""
        return self._lengths[1]

    @property
    def start(self) -> float:
        """The factor that the warmup rises to."""
        return self.row.formula(self.values, 0.0)

    @property
    def formula_values(self) -> dict[str, float]:
        """The values that its formula takes."""
        return {name: value for name, value in self.values.items() if name != "warmup"}

    @property
    def momentum_formula(self) -> ScheduleFormula | None:
        """The momentum that it sets, or None where it leaves the momentum alone."""
        return None if self.closure else self.row.momentum_formula

    @property
    def warms(self) -> bool:
        """Whether a second scheduler warms the rate up, as torch's for metrics cannot."""
        return self.row.follows_metric and self.warmup > 1 and not self.uses_tuner

    @property
    def metric_only(self) -> bool:
        """Whether it is torch's scheduler for metrics alone, which no step moves on."""
        return self.row.follows_metric and not self.warms and not self.uses_tuner

    @property
    def stepped_by_epoch(self) -> bool:
        """Whether the loop calls ``step()`` after every epoch."""
        return bool(self.epoch_steps) and not self.pace.call_steps and not self.uses_tuner

    @property
    def paced(self) -> bool:
        """Whether the loop stepped it otherwise than after every optimizer step or epoch."""
        told = not self.epoch_steps or bool(self.pace.call_steps)
        return told and not set(self.pace.optimizer_steps) <= {1}

    @property
    def patience(self) -> int:
        """Evaluations in a row that may bring nothing better, for one that follows the metric."""
        return count_patience(self.values, self.evaluations)

    @property
    def evaluation_steps(self) -> int:
        """Steps from one evaluation to the next, at least 1."""
        return max(1, self.steps // self.evaluations)

    @property
    def mode(self) -> str:
        """The direction in torch's words, ``min`` or ``max``."""
        return "min" if self.direction == "minimize" else "max"

    @property
    def _lengths(self) -> tuple[int, int]:
        length = count_epochs(self.steps, self.epoch_steps) if self.epoch_steps else self.steps
        return split_steps(self.values, length)
