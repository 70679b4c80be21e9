"""The samplers and pruners that a study file may name, and the search spaces they can model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tuner.domain.catalog.dimensions import Choice, Dimension, Float, Int
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.tables import TABLES, Row
from tuner.domain.names import name_some
from tuner.errors import SpecError


@dataclass(frozen=True)
class SamplerRow:
    """A sampler, and the search spaces that it can model.

    Attributes:
        name: Its name in study files, or the import string of a sampler of the user's own.
        joint: Whether it models one space, the same for every trial.
        numerical: Whether it models numbers alone, and no choices.
        grouped: Whether it models each group of parameters that occur together by itself.
        own: Whether it is of the user's own.
    """

    name: str
    joint: bool = False
    numerical: bool = False
    grouped: bool = False
    own: bool = False


@dataclass(frozen=True)
class PrunerRow:
    """A pruner, and the trials that it looks at.

    Attributes:
        name: Its name in study files, or the import string of a pruner of the user's own.
        needs_running: Whether it looks at evaluations of trials that still run elsewhere.
    """

    name: str
    needs_running: bool = True


SAMPLERS = {
    row.name: row
    for row in (
        SamplerRow("mixture"),
        SamplerRow("tpe", grouped=True),
        SamplerRow("random"),
        SamplerRow("qmc", joint=True),
        SamplerRow("gp", joint=True),
        SamplerRow("cmaes", joint=True, numerical=True),
    )
}

PRUNERS = {
    row.name: row
    for row in (
        PrunerRow("median", needs_running=False),  # it is the median of complete trials
        PrunerRow("asha"),
        PrunerRow("hyperband"),
        PrunerRow("halving"),
        PrunerRow("none", needs_running=False),
    )
}


def sampler_row(name: str) -> SamplerRow:
    """Returns the row of a sampler; one of the user's own models any space."""
    return SAMPLERS.get(name) or SamplerRow(name, own=True)


def pruner_row(name: str) -> PrunerRow:
    """Returns the row of a pruner; one of the user's own may look at any trial."""
    return PRUNERS.get(name) or PrunerRow(name)


Branches = Mapping[str, Mapping[str, Dimension]]


def check_own(sampler: str, name: str) -> None:
    """Checks that a sampler can model a hyperparameter that a training loop asks for.

    Raises:
        SpecError: If it models only the hyperparameters that the study file names.
    """
    if sampler_row(sampler).joint:
        raise SpecError(
            f"search.sampler = {sampler!r} models the hyperparameters that the study file "
            f"names, and {name!r} is asked for by the training loop, so it would be drawn at "
            'random: take search.sampler = "tpe" or "random".'
        )


_ONE_OF_A_TABLE = {
    "optimizer": "name one optimizer in space.optimizers",
    "schedule": "name one schedule in space.schedules",
    "average": "name one average in train.average",
}


def check_space(
    sampler: str, root: Mapping[str, Dimension], tables: Mapping[str, Branches]
) -> None:
    """Checks that a sampler models every axis of a search space.

    A hyperparameter that some trials lack, since they use another optimizer or have it switched
    off, would be drawn at random by a sampler that models one space for all trials, and CMA-ES
    would so draw every choice: the study would look searched and would not be.

    Args:
        sampler: Its name.
        root: The axes every trial has, by name.
        tables: The axes of each optimizer, of each schedule and of each average, by table; and
            of each optimizer's that a network has of its own, by ``network.NAME``.

    Raises:
        SpecError: With the axes that it cannot model.
    """
    row = sampler_row(sampler)
    if not row.joint:
        return
    remedies: list[str] = []
    names: list[str] = []
    switches: list[str] = []
    for table, branches in tables.items():
        by_branch = list(_behind_branches(branches))
        if by_branch:
            names += by_branch
            remedies.append(_ONE_OF_A_TABLE.get(table, _ONE_OF_A_TABLE["optimizer"]))
        for switch, name in _behind_switches(TABLES.get(table, OPTIMIZERS), branches):
            names += [] if name in by_branch else [name]
            switches.append(f"{table}.{switch}")
    if switches:
        remedies.append(f"fix {name_some(switches)} to true or false")
    if names:
        raise SpecError(
            f"search.sampler = {sampler!r} models only hyperparameters that every trial has, and "
            f"not every trial has {name_some(names)}: {', '.join(dict.fromkeys(remedies))}, "
            'or take search.sampler = "tpe".'
        )
    if row.numerical:
        axes = dict(root)
        for table, branches in tables.items():
            axes |= {n if n not in axes else f"{table}.{n}": a for n, a in _named(branches)}
        _check_numerical(axes)


def _check_numerical(axes: Mapping[str, Dimension]) -> None:
    choices = [n for n, axis in axes.items() if isinstance(axis, Choice) and len(axis.choices) > 1]
    if choices:
        raise SpecError(
            f"search.sampler = 'cmaes' models numbers, not choices such as {name_some(choices)}: "
            "fix each to one value or, where it is a number, search { low, high }, "
            'or take search.sampler = "gp".'
        )
    ranges = [
        n for n, axis in axes.items() if isinstance(axis, Float | Int) and axis.low < axis.high
    ]
    if len(ranges) < 2:
        raise SpecError(
            f"search.sampler = 'cmaes' needs at least two ranges to search, and there is "
            f"{name_some(ranges) if ranges else 'none'}: search more hyperparameters, such as by "
            'space.breadth = 3, or take search.sampler = "gp".'
        )


def _behind_branches(branches: Branches) -> Iterator[str]:
    """Yields the searched axes of a table that several optimizers or schedules compete in."""
    if len(branches) > 1:
        for name, axis in _named(branches):
            if isinstance(axis, Choice | Float | Int):
                yield name


def _behind_switches(rows: Mapping[str, Row], branches: Branches) -> Iterator[tuple[str, str]]:
    """Yields each searched switch with the axis behind it."""
    for branch, axes in branches.items():
        for hyperparameter in rows[branch].hyperparameters:
            switch = axes.get(hyperparameter.switch_name)
            if isinstance(switch, Choice) and len(switch.choices) > 1:
                for key in (key for key in hyperparameter.keys if key in axes):
                    yield f"{branch}.{hyperparameter.switch_name}", f"{branch}.{key}"


def _named(branches: Branches) -> Iterator[tuple[str, Dimension]]:
    for branch, axes in branches.items():
        for key, axis in axes.items():
            yield f"{branch}.{key}", axis
