"""The answer as code: the winner as Python, as a study file, as JSON."""

from __future__ import annotations

import inspect
from typing import Any

import tomli_w

from tuner.analysis.summary import BestTrial, StudySummary
from tuner.domain.calls import Call
from tuner.domain.optimizers import OPTIMIZERS
from tuner.domain.schedules import SCHEDULES, split_steps
from tuner.errors import NotFoundError

_SELECTIONS = {
    "all": "[p for p in model.parameters() if p.requires_grad]",
    "matrices": "[p for p in model.parameters() if p.requires_grad and p.ndim == 2]",
    "others": "[p for p in model.parameters() if p.requires_grad and p.ndim != 2]",
}


def to_python(summary: StudySummary) -> str:
    """Returns a module that builds the winner's optimizer and schedule; it needs only torch.

    Raises:
        NotFoundError: If no trial is complete.
    """
    best = _best(summary)
    calls = OPTIMIZERS[best.config.optimizer].calls(best.config.optimizer_values)
    steps = int(best.record.attributes["steps"])
    clip = summary.spec.train.grad_clip
    lines = [
        # In comments, what a user named things cannot become code.
        f"# The winner of the tuner study {summary.name!r}: {best.config.optimizer}, "
        f"{best.config.schedule} schedule.",
        f"# Trial {best.record.number} reached {summary.spec.study.metric} = {best.record.value!r}",
        f"# on {summary.spec.study.workload} with batch size {best.config.batch_size}, "
        f"{summary.spec.train.precision},"
        f" {'no gradient clipping' if clip is None else f'gradients clipped to norm {clip}'}.",
        "",
        *(["import math", ""] if "math." in _shape_source(best) else []),
        "import torch",
        "from torch.optim.lr_scheduler import LambdaLR",
        "",
        f"STEPS = {steps}  # of a full trial: the schedule's length",
        "",
        "",
        *_optimizer_lines(calls),
        "",
        "",
        *_schedule_lines(best, steps),
        "",
        "",
        "def build_schedule(optimizer):",
        '    """Returns the schedule; call its step() after every optimizer.step()."""',
        "    return LambdaLR(optimizer, lr_factor)",
    ]
    if len(calls) > 1:
        lines[-3:] = [
            "def build_schedules(optimizers):",
            '    """Returns one schedule an optimizer; step each after its optimizer."""',
            "    return [LambdaLR(optimizer, lr_factor) for optimizer in optimizers]",
        ]
    lines += ["", "", *_demonstration(len(calls) > 1)]
    return "\n".join(lines) + "\n"


def to_toml(summary: StudySummary) -> str:
    """Returns a study file in which every choice is fixed to the winner's.

    Raises:
        NotFoundError: If no trial is complete.
    """
    best = _best(summary)
    config = best.config
    tree = summary.spec.model_dump(mode="json", exclude_none=True)
    tree["study"]["name"] = f"{summary.name[:190]}-winner"
    tree["budget"]["trials"] = 1
    tree["space"] = {"optimizers": [config.optimizer], "schedules": [config.schedule]}
    tree["optimizer"] = {config.optimizer: config.optimizer_values}
    tree["schedule"] = {config.schedule: config.schedule_values}
    tree["train"]["batch_size"] = config.batch_size
    head = f"# The winner of {summary.name}: trial {best.record.number}, {best.record.value!r}.\n"
    return head + tomli_w.dumps(tree)


def to_winner(summary: StudySummary) -> dict[str, Any]:
    """Returns the winner as plain values.

    Raises:
        NotFoundError: If no trial is complete.
    """
    best = _best(summary)
    return {
        "study": summary.name,
        "trial": best.record.number,
        "metric": summary.spec.study.metric,
        "value": best.record.value,
        "optimizer": best.config.optimizer,
        "optimizer_values": best.config.optimizer_values,
        "calls": [
            {"target": call.target, "arguments": call.arguments, "parameters": call.parameters}
            for call in OPTIMIZERS[best.config.optimizer].calls(best.config.optimizer_values)
        ],
        "schedule": best.config.schedule,
        "schedule_values": best.config.schedule_values,
        "steps": best.record.attributes["steps"],
        "batch_size": best.config.batch_size,
        "grad_clip": summary.spec.train.grad_clip,
        "precision": summary.spec.train.precision,
    }


def _best(summary: StudySummary) -> BestTrial:
    if summary.best is None:
        raise NotFoundError(
            f"The study {summary.name!r} has no complete trial yet, so there is no winner: "
            f"run it with 'tuner study run {summary.name}'."
        )
    return summary.best


def _optimizer_lines(calls: tuple[Call, ...]) -> list[str]:
    if len(calls) == 1:
        return [
            "def build_optimizer(model):",
            '    """Returns the optimizer."""',
            f"    parameters = {_SELECTIONS[calls[0].parameters]}",
            f"    return {_constructor(calls[0], 'parameters')}",
        ]
    lines = [
        "def build_optimizers(model):",
        '    """Returns the optimizers: for the matrices, and for the rest if any; step all."""',
        "    optimizers = []",
    ]
    for call in calls:
        lines += [
            f"    {call.parameters} = {_SELECTIONS[call.parameters]}",
            f"    if {call.parameters}:",
            f"        optimizers.append({_constructor(call, call.parameters)})",
        ]
    return [*lines, "    return optimizers"]


def _constructor(call: Call, parameters: str) -> str:
    arguments = "".join(f", {key}={value!r}" for key, value in call.arguments.items())
    return f"{call.target}({parameters}{arguments})"


def _schedule_lines(best: BestTrial, steps: int) -> list[str]:
    row = SCHEDULES[best.config.schedule]
    values = {name: float(value) for name, value in best.config.schedule_values.items()}
    warmup, rest = split_steps(values.pop("warmup"), steps)
    lines = [
        f"SCHEDULE = {values!r}",
        "",
        "",
        *_shape_source(best).splitlines(),
        "",
        "",
        "def lr_factor(step):",
        '    """Returns what the learning rate is multiplied with."""',
    ]
    if warmup:
        lines += [f"    if step < {warmup}:", f"        return (step + 1) / {warmup}"]
    progress = f"min(1.0, (step - {warmup}) / {rest})"
    return [*lines, f"    return {row.shape.__name__}(SCHEDULE, {progress})"]


def _shape_source(best: BestTrial) -> str:
    return inspect.getsource(SCHEDULES[best.config.schedule].shape).rstrip()


def _demonstration(several: bool) -> list[str]:
    build = "build_optimizers(model)" if several else "[build_optimizer(model)]"
    schedules = "build_schedules(optimizers)" if several else "[build_schedule(optimizers[0])]"
    return [
        'if __name__ == "__main__":',
        "    model = torch.nn.Linear(2, 2)",
        f"    optimizers = {build}",
        f"    schedules = {schedules}",
        "    print(optimizers)",
        "    for optimizer, schedule in zip(optimizers, schedules):",
        "        rates = []",
        "        for step in range(STEPS):",
        '            rates.append(optimizer.param_groups[0]["lr"])',
        "            optimizer.step()",
        "            schedule.step()",
        '        print(f"lr: first {rates[0]:.6g}, top {max(rates):.6g}, last {rates[-1]:.6g}")',
    ]
