"""An optimizer's defaults, bent to the values that a study file allows: it binds every trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Value, format_value, nearest
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.tables import TABLES
from tuner.domain.spec import StudySpec


@dataclass(frozen=True)
class BentDefault:
    """A default that the study file does not allow, and the value that it has in its place.

    Attributes:
        owner: The row or parameter group that it is a default of, such as ``adam``; empty for
            those of the ``[train]`` table.
        key: The axis it is searched on, such as ``lr``.
        default: The default, in the form that is searched.
        value: The value of the axis that comes nearest.
        axis: The axis as the study file has it.
    """

    owner: str
    key: str
    default: Value
    value: Value
    axis: Dimension

    @property
    def name(self) -> str:
        """The name of its parameter, such as ``adam.lr``."""
        return f"{self.owner}.{self.key}" if self.owner else self.key

    def __str__(self) -> str:
        whose = f"{self.owner}'s default" if self.owner else "the default"
        return (
            f"{whose} {self.key} {format_value(self.default)} lies outside your "
            f"{'choices' if isinstance(self.axis, Choice) else 'range'} {self.axis.describe()}: "
            f"the trial of the defaults has {format_value(self.value)}"
        )


def bend_defaults(spec: StudySpec, branches: Mapping[str, str]) -> list[BentDefault]:
    """Returns the defaults that the study file does not allow.

    Ranges of the catalog bind no default: a weight decay of 0 lies outside every logarithmic one.
    Those of networks are bound as they are decoded (``domain/networks.py``).

    Args:
        spec: A resolved spec.
        branches: The row of each table, by the table's name.
    """
    bent = [found for table in TABLES for found in _bend(spec, table, branches[table])]
    return [*bent, *_bend_groups(spec, branches["optimizer"], bent)]


def _bend(spec: StudySpec, table: str, branch: str) -> Iterator[BentDefault]:
    axes = spec.tables()[table].get(branch, {})
    written = {key for key in axes if f"{table}.{branch}.{key}" in (spec.written or ())}
    for one in TABLES[table][branch].hyperparameters:
        switch = axes.get(one.switch_name) if one.switch_name in written else None
        if switch is not None and nearest(switch, value=False) is False:
            continue  # off, which is the default, is allowed
        for key in one.keys:
            if key in axes and (key in written or switch is not None):
                yield from bend_one(branch, key, one.encode(key, one.default), axes[key])


def _bend_groups(spec: StudySpec, optimizer: str, bent: list[BentDefault]) -> Iterator[BentDefault]:
    """Yields the defaults that the axes of groups leave out; these are always the user's."""
    row = OPTIMIZERS[optimizer]
    values = row.decode({})
    changed = {each.name: each.value for each in bent}
    momentum = next((values[one.name] for one in row.hyperparameters if one.is_momentum), 0.0)
    decay = changed.get(f"{optimizer}.weight_decay", values.get("weight_decay", 0.0))
    defaults = {"lr_multiplier": 1.0, "weight_decay": decay, "momentum": momentum}
    for group in spec.train.groups:
        for key, axis in group.settings().items():
            yield from bend_one(group.prefix, key, defaults[key], axis)


def bend_one(owner: str, key: str, default: Value, axis: Dimension) -> list[BentDefault]:
    """Returns a default that lies outside an axis that is searched, if it does."""
    value = nearest(axis, default)
    if isinstance(axis, Fixed) or value == default:
        return []
    return [BentDefault(owner, key, default, value, axis)]
