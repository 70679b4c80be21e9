"""The rules for studies that train by a command, and the settings that follow from placeholders."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeGuard

from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import CONSTANT
from tuner.domain.catalog.tables import TABLES
from tuner.domain.command import (
    OF_LENGTH,
    OPTIMIZER_NAMES,
    check_own_name,
    check_placeholders,
    known_settings,
    optimizer_settings,
    placeholders_of,
    write_line,
)

if TYPE_CHECKING:
    from tuner.domain.spec import StudySpec


def tell_command(raw: Any) -> Any:
    """Returns a ``[study]`` table whose ``workload`` is the line of its command, if it has one.

    Args:
        raw: The ``[study]`` table of a study file, not checked.
    """
    if not isinstance(raw, dict) or raw.get("command") is None or "workload" in raw:
        return raw
    words = raw["command"]
    return raw | {"workload": write_line(words) if _are_words(words) else ""}


def keep_schedule(raw: Any) -> Any:
    """Returns a study file that searches no schedule, if its command is told settings but none.

    Args:
        raw: A study file, not checked.
    """
    study = raw.get("study") if isinstance(raw, dict) else None
    words = study.get("command") if isinstance(study, dict) else None
    space = raw.get("space", {}) if isinstance(raw, dict) else None
    if not _are_words(words) or not isinstance(space, dict) or "schedules" in space:
        return raw
    try:
        names = set(placeholders_of(words))
    except ValueError:  # which is told where the command is checked
        return raw
    if not names or any(name.partition(".")[0] == "schedule" for name in names):
        return raw
    return raw | {"space": {"schedules": (CONSTANT,)} | space}


def find_unheard(spec: StudySpec, table: str, row: str) -> set[str]:
    """Returns the hyperparameters of a row that a study's command never hears of.

    A command that is given a hyperparameter of an optimizer by an argument is taken to know no
    other than those it is given so, unless it is given the file that has them all.

    Args:
        spec: The study, resolved or not.
        table: The row's table: ``optimizer``, ``schedule`` or ``average``.
        row: The row's name.
    """
    passed = set(placeholders_of(spec.study.command or ()))
    if "file" in passed or not passed & _settings_of_optimizers(spec):
        return set()
    prefix = "" if table == "optimizer" else f"{table}."
    return {
        one.name
        for one in TABLES[table][row].hyperparameters
        if not any(f"{prefix}{name}" in passed for name in one.placeholders)
    }


def _are_words(words: Any) -> TypeGuard[Sequence[str]]:
    return isinstance(words, list | tuple) and all(isinstance(word, str) for word in words)


def check_command_study(spec: StudySpec) -> None:
    """Checks that a study that trains by a command can reach it with what is searched.

    Args:
        spec: The study; one without a command may have none of the tables of those.

    Raises:
        ValueError: If it breaks a rule.
    """
    if spec.study.command is None:
        for table, given in (("own", spec.own), ("process", spec.process)):
            if given:
                raise ValueError(
                    f"[{table}] is for a study with study.command; a training loop asks for "
                    "hyperparameters of its own, run.suggest_float(...), and reports itself"
                )
        return
    for name in spec.own:
        check_own_name(name)
    competing = (spec.space.optimizers, spec.space.schedules, spec.train.averages)
    check_placeholders(spec.study.command, known_settings(*competing, spec.own))
    passed = set(placeholders_of(spec.study.command))
    _check_length(spec, passed)
    if "optimizer.class" in passed:
        _check_classes(spec, passed)
    if passed & _settings_of_optimizers(spec):
        _check_optimizers(spec, passed)


def _check_length(spec: StudySpec, passed: set[str]) -> None:
    if spec.budget.examples is not None:
        raise ValueError(
            "budget.examples: a command counts steps or epochs: give budget.steps or budget.epochs"
        )
    unit = "steps" if spec.budget.epochs is None else "epochs"
    for other in passed.intersection(OF_LENGTH) - {unit}:
        raise ValueError(
            f"the command is given {{{other}}}, but its budget counts {unit}: give it {{{unit}}}, "
            "or change [budget]"
        )
    if unit == "epochs" and not float(spec.budget.epochs or 0).is_integer():
        raise ValueError(
            f"budget.epochs = {spec.budget.epochs}: a command reports whole epochs: give a whole "
            "number, or budget.steps"
        )


def _check_optimizers(spec: StudySpec, passed: set[str]) -> None:
    """Checks what a command can be given that is given settings of optimizers by arguments."""
    many = len(spec.space.optimizers)
    if many > 1 and passed.isdisjoint(OPTIMIZER_NAMES):
        raise ValueError(
            f"the command is given settings of optimizers, but not which one, and {many} compete: "
            'add "--optimizer={optimizer}" to it, or name in space.optimizers the one that it '
            "trains with"
        )
    groups = spec.train.groups or spec.train.no_decay_on_biases_and_norms
    if groups or spec.network:
        given = "[network]" if spec.network else "the parameter groups of [train]"
        raise ValueError(
            f"no argument tells a command of {given}: have it ask tuner.current().optimizer(model) "
            "instead, or leave them out"
        )


def _check_classes(spec: StudySpec, passed: set[str]) -> None:
    """Checks that each optimizer is a class of torch, and one that the command can tell apart."""
    rows = {name: OPTIMIZERS[name] for name in spec.space.optimizers}
    if others := [name for name, row in rows.items() if row.torch_class is None]:
        kept = [name for name in rows if name not in others]
        names = ", ".join(f'"{name}"' for name in kept or ("adamw", "sgd"))
        raise ValueError(
            f"the command is given {{optimizer.class}}, and {others[0]} is no single class of "
            f"torch.optim: have space.optimizers name only those that are, such as [{names}], or "
            "give the command {optimizer} and have it build what that names"
        )
    if "optimizer" in passed:
        return
    seen: dict[tuple[object, ...], str] = {}
    for name, row in rows.items():
        told = passed.intersection(optimizer_settings(name, row.decode({})))
        twin = seen.setdefault((row.torch_class, *sorted(told)), name)
        if twin != name:
            raise ValueError(
                f"{twin} and {name} are the same to the command: both are {row.torch_class}, with "
                "no argument that differs. Leave one out of space.optimizers, or give the command "
                "{optimizer} as well"
            )


def _settings_of_optimizers(spec: StudySpec) -> set[str]:
    """Returns the names of the hyperparameters of a study's optimizers, as a command has them."""
    return {
        key
        for name in spec.space.optimizers
        for key in optimizer_settings(name, OPTIMIZERS[name].decode({}))
    }
