"""The answer as code: the winner as Python, as a study file, as JSON."""

from __future__ import annotations

import dataclasses
import re
import shlex
from typing import Any

import tomli_w

from tuner.analysis.summary import BestTrial, StudySummary
from tuner.domain.catalog.calls import Call
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.lengths import tell_length
from tuner.domain.printable import printable
from tuner.domain.spec import StudySpec
from tuner.errors import NotFoundError
from tuner.report.loop_code import LoopCode
from tuner.report.optimizer_code import OptimizerCode
from tuner.report.schedule_code import COUNT_LOSSES, ScheduleCode


def to_python(summary: StudySummary) -> str:
    """Returns a module that builds the winner's optimizer and schedule.

    It needs only torch, and the package of an optimizer that is not torch's.

    Raises:
        NotFoundError: If no trial is complete.
    """
    best = _best(summary)
    schedule = ScheduleCode.of(best, summary.spec)
    optimizer = OptimizerCode.of(best, summary.spec, schedule.standing)
    loop = LoopCode.of(best, schedule.standing)
    counts = [COUNT_LOSSES] if loop.update and loop.closure and not schedule.counts_losses else []
    definitions = (optimizer.definitions, schedule.definitions, counts, loop.definitions)
    body = [*schedule.constants, *optimizer.constants, *loop.constants]
    for lines in (*definitions, _demonstration(optimizer, schedule, loop)):
        body += ["", "", *lines] if lines else []
    head = [
        f"The winner of the tuner study {summary.name!r}: {best.config.optimizer}, "
        f"{best.config.schedule} schedule.",
        f"Trial {best.record.number} reached {summary.spec.study.metric} = {best.record.value!r}",
        *_describe_training(best, summary.spec),
    ]
    lines = [
        # In comments of one line, what a user named things cannot become code.
        *(f"# {printable(line)}" for line in head),
        *schedule.remarks,
        *optimizer.remarks,
        "",
        *_imports("\n".join(body), optimizer.packages),
        *loop.imports,
        "",
        *body,
    ]
    return "\n".join(lines) + "\n"


def _describe_training(best: BestTrial, spec: StudySpec) -> list[str]:
    """Tells in lines what it trained on and how, as far as its loop asked for that."""
    train, unread = spec.train, best.unread
    clip = train.grad_clip
    applied = {
        "batch_size": f"batch size {best.config.batch_size}",
        "accumulate": f"computed in {train.accumulate} parts" if train.accumulate > 1 else "",
        "precision": train.precision,
        "grad_clip": "no gradient clipping"
        if clip is None
        else f"gradients clipped to norm {clip}",
    }
    claims = [claim for name, claim in applied.items() if claim and name not in unread]
    lines = [f"on {spec.study.workload}{' with ' if claims else ''}{', '.join(claims)}."]
    if unread:
        lines += [f"Its loop did not ask its run for {', '.join(unread)}."]
    attributes = best.record.attributes
    if "stopped_early" in attributes:
        lines += [
            f"The loop ended it after {attributes['steps']} steps:",
            repr(attributes["stopped_early"]),
        ]
    elif length := tell_length(attributes):
        lines += [f"It {length} of a full trial."]
    return lines


def to_toml(summary: StudySummary) -> str:
    """Returns a study file in which every choice is fixed to the winner's.

    Raises:
        NotFoundError: If no trial is complete.
    """
    best = _best(summary)
    config = best.config
    tree = summary.spec.model_dump(mode="json", exclude_none=True, exclude={"written"})
    tree["study"]["name"] = f"{_to_name(summary.name)}-winner"
    tree["budget"]["trials"] = 1
    tree["space"] = {"optimizers": [config.optimizer], "schedules": [config.schedule]}
    tree["optimizer"] = {config.optimizer: config.optimizer_values}
    tree["schedule"] = {config.schedule: config.schedule_values}
    tree["average"] = {config.average: config.average_values}
    tree["network"] = {name: {config.optimizer: own} for name, own in config.networks.items()}
    tree["train"]["average"] = config.average
    tree["train"]["batch_size"] = config.batch_size
    tree["train"]["momentum_warmup"] = config.momentum_warmup
    for table, group in zip(tree["train"].get("groups", []), config.groups, strict=True):
        fixed = (("weight_decay", group.weight_decay), ("momentum", group.momentum))
        table |= {"lr_multiplier": group.lr_multiplier}
        table |= {key: value for key, value in fixed if value is not None}
    if not config.networks:
        del tree["network"]
    head = [f"The winner of {summary.name}: trial {best.record.number}, {best.record.value!r}."]
    if config.own:
        head.append("The workload's own hyperparameters are searched again; they were:")
        head += [f"{name} = {value!r}" for name, value in config.own.items()]
    return "".join(f"# {printable(line)}\n" for line in head) + tomli_w.dumps(tree)


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
        "calls": _describe_calls(best, None),
        "networks": {
            name: {"optimizer_values": best.config.values_of(name)}
            | {"calls": _describe_calls(best, name)}
            for name in best.config.networks
        },
        "schedule": best.config.schedule,
        "schedule_values": best.config.schedule_values,
        "groups": [dataclasses.asdict(group) for group in best.config.groups],
        "no_decay_on_biases_and_norms": summary.spec.train.no_decay_on_biases_and_norms,
        "own": best.config.own,
        "steps": best.full_steps,
        "average": best.config.average,
        "average_values": best.config.average_values,
        "batch_size": None if "batch_size" in best.unread else best.config.batch_size,
        "momentum_warmup": best.config.momentum_warmup,
        "grad_clip": summary.spec.train.grad_clip,
        "precision": None if "precision" in best.unread else summary.spec.train.precision,
    }


def _describe_calls(best: BestTrial, network: str | None) -> list[dict[str, Any]]:
    row, values = OPTIMIZERS[best.config.optimizer], best.config.values_of(network)
    return [
        {"target": call.target, "arguments": call.arguments, "parameters": call.parameters}
        | ({"wrapper": _describe(call.wrapper)} if call.wrapper else {})
        for call in row.calls(values, best.full_steps)
    ]


def _to_name(name: str) -> str:
    """Returns a name as a study file may have it: in the database it may have been changed."""
    return re.sub(r"[/\\\x00-\x1f\x7f-\x9f]", "-", name[:190]).lstrip("- ") or "study"


def _describe(wrapper: Call) -> dict[str, Any]:
    return {"target": wrapper.target, "arguments": wrapper.arguments}


def _best(summary: StudySummary) -> BestTrial:
    if summary.best is None:
        raise NotFoundError(
            f"The study {summary.name!r} has no complete trial yet, so there is no winner: "
            f"run it with 'tuner study run {shlex.quote(summary.name)}'."
        )
    return summary.best


def _demonstration(optimizer: OptimizerCode, schedule: ScheduleCode, loop: LoopCode) -> list[str]:
    sparse = optimizer.calls[0].parameters == "sparse"
    model = "torch.nn.Embedding(3, 2, sparse=True)" if sparse else "torch.nn.Linear(2, 2)"
    step = "optimizer.step(lambda: 0.0)" if schedule.closure else "optimizer.step()"
    rate = optimizer.rate
    gradient = ["            model(torch.ones(1, 2)).sum().backward()"]
    return [
        'if __name__ == "__main__":',
        f"    model = {model}",
        f"    for optimizer in {optimizer.build('model')}:",
        "        print(optimizer)",
        *(f"        {line}" for line in (*schedule.setup, *loop.setup)),
        "        rates = []",
        "        for step in range(STEPS):",
        *(f"            {line}" for line in loop.before),
        f'            rates.append(optimizer.param_groups[0]["{rate}"])',
        *(["            freeze(optimizer, step)"] if optimizer.freezes else []),
        *(gradient if optimizer.packages and not sparse else []),
        f"            {step}",
        *(f"            {line}" for line in (*loop.after, *schedule.use)),
        f'        print(f"{rate}: first'
        ' {rates[0]:.6g}, top {max(rates):.6g}, last {rates[-1]:.6g}")',
    ]


def _imports(body: str, packages: list[str]) -> list[str]:
    """Returns the imports of a module with this body, which uses these packages beside torch."""
    standard = [
        ("fnmatch.", "import fnmatch"),
        ("itertools.", "import itertools"),
        ("math.", "import math"),
        ("Sequence[", "from collections.abc import Sequence"),
        ("Any]", "from typing import Any"),
    ]
    lines = [line for used, line in standard if used in body]
    schedulers = ("LambdaLR", "MultiplicativeLR", "ReduceLROnPlateau")
    used = ", ".join(name for name in schedulers if name in body)
    return [
        *lines,
        *([""] if lines else []),
        *(["import pytorch_optimizer"] if "pytorch_optimizer" in packages else []),
        "import torch",
        *(["import tuner.optim"] if "tuner" in packages else []),
        *([f"from torch.optim.lr_scheduler import {used}"] if used else []),
    ]
