"""The winner's schedule as Python that needs only torch.

Schedulers of torch write a learning rate; where an optimizer of ours tunes it itself, the schedule
is ours too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from tuner.analysis.summary import BestTrial
from tuner.domain.optimizers import OPTIMIZERS
from tuner.domain.schedules import (
    SCHEDULES,
    ScheduleRow,
    Shape,
    as_numbers,
    count_epochs,
    count_patience,
    split_steps,
)
from tuner.domain.shapes import set_momentum
from tuner.domain.spec import StudySpec

COUNT_LOSSES = '''def count_losses(optimizer):
    """Returns how often the closure was called, which is what counts as steps."""
    return optimizer.state[optimizer.param_groups[0]["params"][0]].get("func_evals", 0)'''


@dataclass(frozen=True)
class ScheduleCode:
    """Lines of Python that build a schedule as it was trained.

    Attributes:
        row: The schedule.
        values: Its values.
        steps: Steps of a full trial.
        epoch_steps: Steps of an epoch, for one stepped by epoch, else None.
        evaluations: Evaluations of a full trial.
        mode: Whether a lower or a higher metric is better: ``min`` or ``max``, as in torch.
        closure: Whether its steps are computations of the loss in the optimizer's closure.
        ours: Whether it drives what no scheduler of torch does.
    """

    row: ScheduleRow
    values: dict[str, float]
    steps: int
    epoch_steps: int | None
    evaluations: int
    mode: str
    closure: bool
    ours: bool = False

    @classmethod
    def of(cls, best: BestTrial, spec: StudySpec) -> ScheduleCode:
        """Returns the code of a trial's schedule."""
        attributes = best.record.attributes
        by_epoch = spec.train.schedule_by == "epoch" and "epoch_steps" in attributes
        return cls(
            SCHEDULES[best.config.schedule],
            as_numbers(best.config.schedule_values),
            best.full_steps,
            int(attributes["epoch_steps"]) if by_epoch else None,
            spec.budget.evaluations,
            "min" if spec.study.direction == "minimize" else "max",
            OPTIMIZERS[best.config.optimizer].closure,
            OPTIMIZERS[best.config.optimizer].rate != "lr",
        )

    @property
    def constants(self) -> list[str]:
        """The lines that say how long a full trial is."""
        lines = [f"STEPS = {self.steps}  # of a full trial: the schedule's length"]
        if self.epoch_steps is not None and not self._stands_alone and not self.ours:
            lines.append(f"EPOCH_STEPS = {self.epoch_steps}")
        return lines

    @property
    def definitions(self) -> list[str]:
        """The lines that define ``build_schedule``, and ``build_warmup`` where it needs one."""
        if self.ours:
            return self._our_builder().splitlines()
        parts = [COUNT_LOSSES] if self.counts_losses else []
        if not self.row.follows_metric:
            parts += self._factor()
        elif self._warmup > 1:
            parts += [self._warmup_factor()]
        if self.row.momentum_shape and not self.closure:
            parts += self._momentum(self.row.momentum_shape)
        parts += [self._plateau() if self.row.follows_metric else self._builder()]
        if self.row.follows_metric and self._warmup > 1:
            parts += [self._warmup_builder()]
        return "\n\n\n".join(parts).splitlines()

    @property
    def use(self) -> list[str]:
        """The lines that follow an optimizer's step in a loop over ``step``."""
        if self.ours:
            return ["schedule.step()", *self._observe("observe")]
        step = f"{'warmup' if self.row.follows_metric else 'schedule'}.step()"
        return [*([] if self._stands_alone else self._by_epoch(step)), *self._observe("step")]

    @property
    def setup(self) -> list[str]:
        """The lines that build it over ``optimizer``."""
        warms = self.row.follows_metric and self._warmup > 1 and not self.ours
        warmup = ["warmup = build_warmup(optimizer)"] if warms else []
        return [*warmup, "schedule = build_schedule(optimizer)"]

    @property
    def counts_losses(self) -> bool:
        """Whether it defines ``count_losses``."""
        return self.closure and not self._stands_alone

    @property
    def _length(self) -> int:
        return count_epochs(self.steps, self.epoch_steps) if self.epoch_steps else self.steps

    @property
    def _warmup(self) -> int:
        return split_steps(self.values, self._length)[0]

    @property
    def _stands_alone(self) -> bool:
        """Whether it is torch's alone, with no course by step."""
        return self.row.follows_metric and self._warmup <= 1

    @property
    def _unit(self) -> str:
        return "step" if self.epoch_steps is None else "epoch"

    @property
    def _when(self) -> str:
        if self.epoch_steps is not None:
            return "every epoch"
        return f"every optimizer.step({'closure' if self.closure else ''})"

    def _observe(self, method: str) -> list[str]:
        if not self.row.follows_metric:
            return []
        every = max(1, self.steps // self.evaluations)
        return [f"if (step + 1) % {every} == 0:", f"    schedule.{method}(1.0)  # the metric"]

    def _by_epoch(self, line: str) -> list[str]:
        if self.epoch_steps is None:
            return [line]
        return ["if (step + 1) % EPOCH_STEPS == 0:", f"    {line}"]

    @property
    def _now(self) -> str:
        """Where the schedule stands, in a function of ``step``."""
        if not self.closure:
            return "step"
        return "count_losses(optimizer)" + (" // EPOCH_STEPS" if self.epoch_steps else "")

    def _factor(self) -> list[str]:
        unit, warmup = self._unit, self._warmup
        values = [f"    {k!r}: {v!r},\n" for k, v in self.values.items() if k != "warmup"]
        lines = [
            f"def lr_factor({unit}):",
            '    """Returns what the learning rate is multiplied with."""',
        ]
        if warmup:
            start = self.row.shape(self.values, 0.0)
            scale = "" if start == 1 else f"{start!r} * "
            lines += [
                f"    if {unit} < {warmup}:",
                f"        return {scale}({unit} + 1) / {warmup}",
            ]
        lines += [f"    return {self.row.shape.__name__}(SCHEDULE, min(1.0, {self._progress}))"]
        constants = f"SCHEDULE = {{\n{''.join(values)}}}" if values else "SCHEDULE = {}"
        return [constants, _source(self.row.shape), "\n".join(lines)]

    def _momentum(self, shape: Shape) -> list[str]:
        progress = f"max(0.0, {self._progress})" if self._warmup else self._progress
        course = f'''def momentum({self._unit}):
    """Returns the momentum, or Adam's beta1."""
    return {shape.__name__}(SCHEDULE, min(1.0, {progress}))'''
        scheduler = '''class Schedule(LambdaLR):
    """The learning rate, and the momentum against it."""

    def step(self, epoch=None):
        super().step(epoch)
        set_momentum(self.optimizer.param_groups, momentum(self.last_epoch))'''
        return [_source(shape), course, _source(set_momentum), scheduler]

    @property
    def _progress(self) -> str:
        warmup, rest = split_steps(self.values, self._length)
        return f"({self._unit} - {warmup}) / {rest}" if warmup else f"{self._unit} / {rest}"

    def _warmup_factor(self) -> str:
        unit, warmup = self._unit, self._warmup
        return f'''def lr_factor({unit}):
    """Returns what the learning rate is multiplied with."""
    return min(1.0, ({unit} + 1) / {warmup})'''

    def _builder(self) -> str:
        course = "lr_factor" if self._now == "step" else f"lambda step: lr_factor({self._now})"
        scheduler = "Schedule" if self.row.momentum_shape and not self.closure else "LambdaLR"
        return f'''def build_schedule(optimizer):
    """Returns the schedule; call its step() after {self._when}."""
    return {scheduler}(optimizer, {course})'''

    def _our_builder(self) -> str:
        options: dict[str, Any] = {"epoch_steps": self.epoch_steps} if self.epoch_steps else {}
        also = ""
        if self.row.follows_metric:
            also = ",\n    and its observe(metric) after every evaluation"
            direction = "minimize" if self.mode == "min" else "maximize"
            options |= {"evaluations": self.evaluations, "direction": direction}
        values = "".join(f"    {key!r}: {value!r},\n" for key, value in self.values.items())
        named = "".join(f"        {key}={value!r},\n" for key, value in options.items())
        return f'''SCHEDULE = {{
{values}}}


def build_schedule(optimizer):
    """Returns the schedule; call its step() after every optimizer.step(){also}."""
    return tuner.optim.build_schedule(
        {self.row.name!r},
        SCHEDULE,
        optimizer,
        STEPS,
{named}    )'''

    def _plateau(self) -> str:
        patience = count_patience(self.values, self.evaluations)
        factor = self.values["factor"]
        arguments = f'optimizer, "{self.mode}", factor={factor!r}, patience={patience}, eps=0.0'
        return f'''def build_schedule(optimizer):
    """Returns the schedule; call its step(metric) after every evaluation.

    Patience is counted in evaluations, of which a full trial had {self.evaluations}.
    """
    return ReduceLROnPlateau({arguments})'''

    def _warmup_builder(self) -> str:
        if self.closure:
            body = f"""    factor = lr_factor(0)
    for group in optimizer.param_groups:
        group["lr"] *= factor

    def growth(step):
        nonlocal factor
        before, factor = factor, lr_factor({self._now})
        return factor / before

    return MultiplicativeLR(optimizer, growth)"""
        else:
            unit = self._unit
            body = f"""    for group in optimizer.param_groups:
        group["lr"] *= lr_factor(0)
    return MultiplicativeLR(optimizer, lambda {unit}: lr_factor({unit}) / lr_factor({unit} - 1))"""
        return f'''def build_warmup(optimizer):
    """Returns the warmup; call its step() after {self._when}."""
{body}'''


def _source(function: Callable[..., Any]) -> str:
    return inspect.getsource(function).rstrip()
