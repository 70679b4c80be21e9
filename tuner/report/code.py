"""A study's winner as code: as Python, as a study file, as JSON."""

from __future__ import annotations

import dataclasses
import functools
import inspect
import shlex
from typing import Any

import jinja2
import tomli_w
from markupsafe import Markup

from tuner.analysis.summary import BestTrial, StudySummary, refuse_companion
from tuner.domain.catalog.calls import Call
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedule_functions import set_momentum, warm_momentum
from tuner.domain.groups import assign_group
from tuner.domain.names import to_study_name
from tuner.domain.objective import describe_objective, tell_value
from tuner.domain.printable import printable
from tuner.domain.warm_start import OFF
from tuner.errors import NotFoundError
from tuner.report.winner_code import WinnerCode


def to_python(summary: StudySummary) -> str:
    """Returns the Python module that builds the winner's optimizer and schedule.

    It needs only torch, and the package of an optimizer that is not torch's.

    Raises:
        NotFoundError: If no trial is complete.
    """
    winner = WinnerCode.of(find_best(summary), summary)
    return _environment().get_template("winner/module.py.jinja").render(vars(winner))


@functools.cache
def _environment() -> jinja2.Environment:
    """Returns the environment in which a template writes Python.

    Autoescape has jinja2 mark the text of templates, so that values can be told from it.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("tuner.report"),
        autoescape=True,
        finalize=_to_code,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters |= {
        # Markup marks text that is written as it is. It is Python's, never a page's.
        "comment": lambda line: Markup(printable(line)),  # noqa: S704 (no line ends in it)
        "in_docstring": _quote,
        "source": lambda function: Markup(inspect.getsource(function).rstrip()),  # noqa: S704 (our own)
    }
    functions = (assign_group, set_momentum, warm_momentum)
    environment.globals |= {function.__name__: function for function in functions}
    return environment


def _to_code(value: object) -> Markup:
    """Returns text of a template as it is, and any other value as its repr."""
    # One that is not defined has no repr: it raises as it becomes text.
    known = isinstance(value, Markup | jinja2.Undefined)
    return Markup(value if known else repr(value))  # noqa: S704 (a repr is no code but a literal)


def _quote(value: object) -> Markup:
    """Returns the repr of a value so that it neither ends a docstring nor escapes in one."""
    return Markup(repr(value).replace("\\", r"\\").replace('"', r"\""))  # noqa: S704 (a repr)


def to_toml(summary: StudySummary) -> str:
    """Returns the study file in which every choice is fixed to the winner's.

    Raises:
        NotFoundError: If no trial is complete.
    """
    best = find_best(summary)
    config = best.config
    left_out = {"written", "warm_start"}
    tree = summary.spec.model_dump(mode="json", exclude_none=True, exclude=left_out)
    tree["search"]["warm_start"] = OFF
    tree["study"]["name"] = f"{to_study_name(summary.name)}-winner"
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
    title = f"{best.title} of {summary.name}"
    head = [f"{title}: {best.label.lower()}, {tell_best(summary)}."]
    if summary.spec.own:
        tree["own"] = config.own
    elif config.own:
        head.append("The workload's own hyperparameters are searched again; they were:")
        head += [f"{name} = {value!r}" for name, value in config.own.items()]
    return "".join(f"# {printable(line)}\n" for line in head) + tomli_w.dumps(tree)


def tell_best(summary: StudySummary) -> str:
    """Returns the value of the winner: a metric with all its digits, a time in words."""
    study, value = summary.spec.study, find_best(summary).record.value
    return repr(value) if study.target is None else tell_value(study, value)


def to_winner(summary: StudySummary) -> dict[str, Any]:
    """Returns the winner as plain values: its hyperparameters and the calls that build it.

    Raises:
        NotFoundError: If no trial is complete.
    """
    best = find_best(summary)
    return {
        "study": summary.name,
        "trial": best.record.number,
        "metric": summary.spec.study.metric,
        **describe_objective(summary.spec.study),
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


def _describe(wrapper: Call) -> dict[str, Any]:
    return {"target": wrapper.target, "arguments": wrapper.arguments}


def find_best(summary: StudySummary) -> BestTrial:
    """Returns the trial that is exported.

    Raises:
        NotFoundError: If no trial is complete.
        SpecError: If the study confirms another one, whose winner it helps to find.
    """
    refuse_companion(summary)
    if summary.best is None:
        raise NotFoundError(
            f"The study {summary.name!r} has no complete trial yet, so there is no winner: "
            f"run it with 'tuner study run {shlex.quote(summary.name)}'."
        )
    return summary.best
