"""An optimizer's defaults as a study file lets them be: what it says binds every trial."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from tuner.domain.catalog.averages import AVERAGES, AverageRow
from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Value, format_value, nearest
from tuner.domain.catalog.optimizers import OPTIMIZERS, OptimizerRow
from tuner.domain.catalog.schedules import SCHEDULES, ScheduleRow
from tuner.domain.spec import StudySpec

_ROWS: dict[str, Mapping[str, OptimizerRow | ScheduleRow | AverageRow]] = {
    "optimizer": OPTIMIZERS,
    "schedule": SCHEDULES,
    "average": AVERAGES,
}


@dataclass(frozen=True)
class BentDefault:
    """A default that lies outside what the study file allows, and what is tried in its place.

    Attributes:
        name: The parameter it is searched under, such as ``adam.lr``.
        default: The default, in the form that is searched.
        value: The value of the axis that comes nearest.
        axis: Where the study file has it searched.
    """

    name: str
    default: Value
    value: Value
    axis: Dimension

    def __str__(self) -> str:
        branch, _, key = self.name.rpartition(".")
        whose = f"{branch}'s default" if branch else "the default"
        return (
            f"{whose} {key} {format_value(self.default)} lies outside your "
            f"{'choices' if isinstance(self.axis, Choice) else 'range'} {self.axis.describe()}: "
            f"{format_value(self.value)} is tried first"
        )


def bend_defaults(spec: StudySpec, branches: Mapping[str, str]) -> list[BentDefault]:
    """Returns which defaults the study file does not allow.

    Ranges of the catalog bind no default: a weight decay of 0 lies outside every logarithmic one.
    What a network has of its own is bound as it is decoded (``domain/networks.py``).

    Args:
        spec: A resolved spec.
        branches: The row of each table, by the table's name.
    """
    bent = [found for table in _ROWS for found in _bend(spec, table, branches[table])]
    return [*bent, *_bend_groups(spec, branches["optimizer"], bent)]


def _bend(spec: StudySpec, table: str, branch: str) -> Iterator[BentDefault]:
    axes = spec.tables()[table].get(branch, {})
    written = {key for key in axes if f"{table}.{branch}.{key}" in (spec.written or ())}
    for knob in _ROWS[table][branch].hyperparameters:
        switch = axes.get(knob.switch_name) if knob.switch_name in written else None
        if switch is not None and nearest(switch, value=False) is False:
            continue  # off, which is the default, is allowed
        for key in knob.keys:
            if key in axes and (key in written or switch is not None):
                complement = knob.complement and key == knob.search_name
                default = 1.0 - float(knob.default) if complement else knob.default
                yield from bend_one(f"{branch}.{key}", default, axes[key])


def _bend_groups(spec: StudySpec, optimizer: str, bent: list[BentDefault]) -> Iterator[BentDefault]:
    """Yields what groups cannot have as the optimizer has it; their axes are always the user's."""
    values = OPTIMIZERS[optimizer].decode({})
    changed = {each.name: each.value for each in bent}
    momentum = values.get("momentum", values.get("beta1", 0.0))
    decay = changed.get(f"{optimizer}.weight_decay", values.get("weight_decay", 0.0))
    defaults = {"lr_multiplier": 1.0, "weight_decay": decay, "momentum": momentum}
    for group in spec.train.groups:
        for name, axis in group.axes().items():
            yield from bend_one(name, defaults[name.rpartition(".")[2]], axis)


def bend_one(name: str, default: Value, axis: Dimension) -> list[BentDefault]:
    """Returns a default that lies outside an axis that is searched, if it does."""
    value = nearest(axis, default)
    if isinstance(axis, Fixed) or value == default:
        return []
    return [BentDefault(name, default, value, axis)]
