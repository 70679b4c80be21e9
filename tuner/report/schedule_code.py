"""The winner's schedule as Python that needs only torch.

Schedulers of torch write a learning rate; where an optimizer of ours tunes it itself, the schedule
is ours too.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from tuner.analysis.summary import BestTrial
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedule_functions import set_momentum
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
        calls: How the loop stepped its schedules (``BestTrial.schedule_calls``), if unusually.
    """

    row: ScheduleRow
    values: dict[str, float]
    steps: int
    epoch_steps: int | None
    evaluations: int
    mode: str
    closure: bool
    ours: bool = False
    calls: tuple[Mapping[str, int | None], ...] | None = None

    @classmethod
    def of(cls, best: BestTrial, spec: StudySpec) -> ScheduleCode:
        """Returns the code of a trial's schedule."""
        attributes = best.record.attributes
        by_epoch = spec.train.schedule_by == "epoch" and "epoch_steps" in attributes
        taken = best.schedule_calls != ()
        return cls(
            SCHEDULES[best.config.schedule if taken else "constant"],
            as_numbers(best.config.schedule_values if taken else {"warmup": 0.0}),
            best.full_steps,
            int(attributes["epoch_steps"]) if by_epoch else None,
            spec.budget.evaluations,
            "min" if spec.study.direction == "minimize" else "max",
            OPTIMIZERS[best.config.optimizer].closure,
            OPTIMIZERS[best.config.optimizer].rate != "lr",
            best.schedule_calls,
        )

    @property
    def remarks(self) -> list[str]:
        """The lines of comment that say how the loop stepped it, where that needs saying."""
        if self.calls == ():
            return ["# Its loop took no schedule from its run: the learning rate stayed as it was."]
        if self._held:
            return [
                "# Its loop never stepped its schedule: the learning rate stayed the first one."
            ]
        if self._irregular:
            return [
                "# Its loop stepped its schedule at no regular times; here it follows each step."
            ]
        return []

    @property
    def standing(self) -> str:
        """Where the schedule stands in a loop over ``step``, which counts optimizer steps."""
        if self._held:
            return "0"
        if not self.calls or self._irregular:
            return "step"
        steps, optimizer_steps = (self.calls[0][key] for key in ("steps", "optimizer_steps"))
        held = "step" if optimizer_steps in (None, 1) else f"step // {optimizer_steps}"
        return held if steps in (None, 1) else f"{held} * {steps}"

    @property
    def constants(self) -> list[str]:
        """The lines that say how long a full trial is."""
        lines = [f"STEPS = {self.steps}  # of a full trial: the schedule's length"]
        if self.epoch_steps is not None and not self._stands_alone and not self.ours:
            lines.append(f"EPOCH_STEPS = {self.epoch_steps}")
        if self._call_steps and not self._stands_alone:
            lines.append(
                f"CALL_STEPS = {self._call_steps[0]}  # from one schedule.step() to the next"
            )
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
        if self.row.momentum_formula and not self.closure:
            parts += self._momentum(self.row.momentum_formula)
        parts += [self._plateau() if self.row.follows_metric else self._builder()]
        if self.row.follows_metric and self._warmup > 1:
            parts += [self._warmup_builder()]
        return "\n\n\n".join(parts).splitlines()

    @property
    def use(self) -> list[str]:
        """The lines that follow an optimizer's step in a loop over ``step``."""
        if self.ours:
            return [*self._now_and_then("schedule.step()"), *self._observe("observe")]
        step = f"{'warmup' if self.row.follows_metric else 'schedule'}.step()"
        return [*([] if self._stands_alone else self._now_and_then(step)), *self._observe("step")]

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
    def _held(self) -> bool:
        """Whether it stays where it begins, as the loop never stepped it."""
        return self.calls is not None and not any(call["calls"] for call in self.calls)

    @property
    def _irregular(self) -> bool:
        """Whether the loop stepped it at times that no rule tells."""
        return not self.closure and any(call["steps"] is None for call in self.calls or ())

    @property
    def _call_steps(self) -> tuple[int, ...]:
        """The steps by which each call moves each optimizer's on, if it is more than one."""
        if self.closure or self._held or self._irregular:
            return ()
        steps = tuple(call["steps"] or 1 for call in self.calls or ())
        usual = {1} if self.ours else {1, self.epoch_steps or 1}
        return () if set(steps) <= usual else steps

    @property
    def _optimizer_steps(self) -> list[int]:
        """The optimizer steps after which each optimizer's was stepped, if they are known."""
        if self._held or self._irregular:
            return []
        every = [call["optimizer_steps"] for call in self.calls or ()]
        return [steps for steps in every if steps] if all(every) else []

    @property
    def _when(self) -> str:
        if self._when_paced is not None:
            return self._when_paced
        if self.epoch_steps is not None:
            return "every epoch"
        return f"every optimizer.step({'closure' if self.closure else ''})"

    @property
    def _when_paced(self) -> str | None:
        """When it is to be stepped where the loop did so otherwise than usual."""
        every = self._optimizer_steps
        if not every or (self.epoch_steps is not None and not self._call_steps):
            return None
        if set(every) == {1}:
            return None
        if len(set(every)) == 1:
            return f"every {every[0]} optimizer steps"
        return f"every {', '.join(map(str, every))} steps of the optimizers, in their order"

    def _observe(self, method: str) -> list[str]:
        if not self.row.follows_metric:
            return []
        every = max(1, self.steps // self.evaluations)
        return [f"if (step + 1) % {every} == 0:", f"    schedule.{method}(1.0)  # the metric"]

    def _now_and_then(self, line: str) -> list[str]:
        """Returns a call of its ``step()`` in a loop over ``step``."""
        if self._held:
            return []
        every = str(self._optimizer_steps[0]) if self._optimizer_steps else "1"
        if self.epoch_steps is not None and not self._call_steps and not self.ours:
            every = "EPOCH_STEPS"
        return [line] if every == "1" else [f"if (step + 1) % {every} == 0:", f"    {line}"]

    def _at(self, calls: str) -> str:
        """Returns where it stands after so many calls of its ``step()``."""
        if self._held:
            return "0"
        by_epoch = " // EPOCH_STEPS" if self.epoch_steps else ""
        if self.closure:
            return f"count_losses(optimizer){by_epoch}"
        return f"{calls} * call_steps{by_epoch}" if self._call_steps else calls

    @property
    def _parameters(self) -> str:
        """What its builder takes."""
        return f"optimizer{', call_steps=CALL_STEPS' if self._call_steps else ''}"

    @property
    def _also(self) -> str:
        """What its builder's docstring adds."""
        steps = self._call_steps
        if len(set(steps)) < 2:
            return ""
        each = ", ".join(map(str, steps))
        return (
            f"\n\n    In training call_steps was {each} for the optimizers, in their order.\n    "
        )

    def _factor(self) -> list[str]:
        unit, warmup = self._unit, self._warmup
        values = [f"    {k!r}: {v!r},\n" for k, v in self.values.items() if k != "warmup"]
        lines = [
            f"def lr_factor({unit}):",
            '    """Returns what the learning rate is multiplied with."""',
        ]
        if warmup:
            start = self.row.formula(self.values, 0.0)
            scale = "" if start == 1 else f"{start!r} * "
            lines += [
                f"    if {unit} < {warmup}:",
                f"        return {scale}({unit} + 1) / {warmup}",
            ]
        lines += [f"    return {self.row.formula.__name__}(SCHEDULE, min(1.0, {self._progress}))"]
        constants = f"SCHEDULE = {{\n{''.join(values)}}}" if values else "SCHEDULE = {}"
        return [constants, _source(self.row.formula), "\n".join(lines)]

    def _momentum(self, formula: ScheduleFormula) -> list[str]:
        progress = f"max(0.0, {self._progress})" if self._warmup else self._progress
        course = f'''def momentum({self._unit}):
    """Returns the momentum, or Adam's beta1."""
    return {formula.__name__}(SCHEDULE, min(1.0, {progress}))'''
        begin, at = "", self._at("self.last_epoch")
        if self._call_steps:
            begin = """    def __init__(self, optimizer, factor, call_steps):
        self.call_steps = call_steps
        super().__init__(optimizer, factor)

"""
            at = at.replace("call_steps", "self.call_steps")
        scheduler = f'''class Schedule(LambdaLR):
    """The learning rate, and the momentum against it."""

{begin}    def step(self, epoch=None):
        super().step(epoch)
        set_momentum(self.optimizer.param_groups, momentum({at}))'''
        return [_source(formula), course, _source(set_momentum), scheduler]

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
        count = "calls" if self._call_steps else "step"
        at = self._at(count)
        course = "lr_factor" if at == count else f"lambda {count}: lr_factor({at})"
        scheduler, also = "LambdaLR", ""
        if self.row.momentum_formula and not self.closure:
            scheduler, also = "Schedule", ", call_steps" if self._call_steps else ""
        return f'''def build_schedule({self._parameters}):
    """Returns the schedule; call its step() after {self._when}.{self._also}"""
    return {scheduler}(optimizer, {course}{also})'''

    def _our_builder(self) -> str:
        options: dict[str, Any] = {"epoch_steps": self.epoch_steps} if self.epoch_steps else {}
        also = head = clock = ""
        if self.row.follows_metric:
            also = ",\n    and its observe(metric) after every evaluation"
            direction = "minimize" if self.mode == "min" else "maximize"
            options |= {"evaluations": self.evaluations, "direction": direction}
        if self._call_steps or self._held:
            # It asks its clock as it is built, and then whenever it is stepped.
            head = "    calls = itertools.count()\n" if self._call_steps else ""
            at = self._at("next(calls)").removesuffix(" // EPOCH_STEPS")
            clock = f"        clock=lambda: {at},\n"
        values = "".join(f"    {key!r}: {value!r},\n" for key, value in self.values.items())
        named = "".join(f"        {key}={value!r},\n" for key, value in options.items())
        when = self._when_paced or "every optimizer.step()"
        return f'''SCHEDULE = {{
{values}}}


def build_schedule({self._parameters}):
    """Returns the schedule; call its step() after {when}{also}.{self._also}"""
{head}    return tuner.optim.build_schedule(
        {self.row.name!r},
        SCHEDULE,
        optimizer,
        STEPS,
{clock}{named}    )'''

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
        before, factor = factor, lr_factor({self._at("step")})
        return factor / before

    return MultiplicativeLR(optimizer, growth)"""
        else:
            unit = self._unit
            now, before = self._at(unit), self._at(f"({unit} - 1)")
            before = before if self._call_steps or self._held else f"{unit} - 1"
            body = f"""    for group in optimizer.param_groups:
        group["lr"] *= lr_factor(0)
    return MultiplicativeLR(optimizer, lambda {unit}: lr_factor({now}) / lr_factor({before}))"""
        return f'''def build_warmup({self._parameters}):
    """Returns the warmup; call its step() after {self._when}.{self._also}"""
{body}'''


def _source(function: Callable[..., Any]) -> str:
    return inspect.getsource(function).rstrip()
