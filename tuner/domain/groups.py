"""Parameter groups: which parameters of a model train otherwise than the rest."""

from __future__ import annotations

import fnmatch
from collections.abc import Container, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from pydantic import Field, field_validator

from tuner.domain.catalog.calls import OTHERS, Call
from tuner.domain.catalog.dimensions import Axis, Dimension, Finite, Fixed, Frozen, Value
from tuner.domain.catalog.hyperparameters import BELOW_ONE, NOT_NEGATIVE, POSITIVE, Hyperparameter

REST = "rest"
"""The name of the group of all parameters that no other group takes."""

_SETTINGS = {
    hyperparameter.name: hyperparameter
    for hyperparameter in (
        Hyperparameter("lr_multiplier", 1.0, Fixed(value=1.0), "", bounds=POSITIVE),
        Hyperparameter("weight_decay", 0.0, Fixed(value=0.0), "", bounds=NOT_NEGATIVE),
        Hyperparameter("momentum", 0.0, Fixed(value=0.0), "", bounds=BELOW_ONE),
    )
}

# A helper beside an optimizer is of Adam's family; its call leaves the betas to torch.
_HELPER_BETAS = (0.9, 0.999)


class Group(Frozen):
    """Parameters that train otherwise than the rest: a ``[[train.groups]]`` table.

    Attributes:
        name: Its name, unique in the study.
        match: Which parameters it takes, a pattern over their names such as ``"backbone.*"``.
        lr_multiplier: The factor on their learning rate, above 0; fixed or searched.
        weight_decay: Their weight decay; left out, the optimizer's.
        momentum: Their momentum or first beta; left out, the optimizer's.
        frozen_until: The fraction of a full trial until which they do not train; 1 is for good.
    """

    name: str = Field(pattern=r"^[A-Za-z_]\w*$", max_length=60)
    match: str = Field(min_length=1)
    lr_multiplier: Axis = Fixed(value=1.0)
    weight_decay: Axis | None = None
    momentum: Axis | None = None
    frozen_until: Finite = Field(default=0.0, ge=0, le=1)

    @field_validator("name")
    @classmethod
    def _check_name(cls, name: str) -> str:
        if name == REST:
            raise ValueError(f"{name!r} is what the group of all others is called: choose another")
        return name

    @field_validator("lr_multiplier", "weight_decay", "momentum")
    @classmethod
    def _check_axis(cls, axis: Dimension | None, info: Any) -> Dimension | None:
        return axis and _SETTINGS[info.field_name].fit(info.field_name, axis)

    def axes(self) -> dict[str, Dimension]:
        """Returns its axes by the name searched, such as ``groups.backbone.lr_multiplier``."""
        return {f"{self.prefix}.{key}": axis for key, axis in self.settings().items()}

    def settings(self) -> dict[str, Dimension]:
        """Returns its axes by the setting, such as ``lr_multiplier``."""
        known = {key: getattr(self, key) for key in _SETTINGS}
        return {key: axis for key, axis in known.items() if axis}

    @property
    def prefix(self) -> str:
        """The first part of the names that its axes are searched under."""
        return f"groups.{self.name}"


@dataclass(frozen=True)
class GroupValues:
    """A parameter group as one trial trains it.

    Attributes:
        name: Its name.
        match: Which parameters it takes.
        lr_multiplier: The factor on their learning rate.
        weight_decay: Their weight decay, or None for the optimizer's.
        momentum: Their momentum or first beta, or None for the optimizer's.
        frozen_until: The fraction of a full trial until which they do not train.
    """

    name: str
    match: str
    lr_multiplier: float = 1.0
    weight_decay: float | None = None
    momentum: float | None = None
    frozen_until: float = 0.0

    def to_json(self) -> dict[str, Value]:
        """Returns its settings as a report shows them, by name."""
        settings = {
            "lr_multiplier": self.lr_multiplier,
            "weight_decay": self.weight_decay,
            "momentum": self.momentum,
            "frozen_until": self.frozen_until or None,
        }
        return {
            f"groups.{self.name}.{key}": value
            for key, value in settings.items()
            if value is not None
        }


def decode_group(group: Group, params: dict[str, Value]) -> GroupValues:
    """Returns a group as a trial at this point of the search space trains it."""
    values: dict[str, float] = {}
    for key, axis in group.settings().items():
        value = axis.value if isinstance(axis, Fixed) else params.get(f"{group.prefix}.{key}")
        if value is not None:
            values[key] = float(value)
    return GroupValues(group.name, group.match, frozen_until=group.frozen_until, **values)


# The exporter prints the source of this function, so it stands alone.
def assign_group(name: str, matches: Sequence[tuple[str, str]]) -> str:
    """Returns the first group whose pattern matches a parameter's name, or "rest"."""
    name = name.replace("_orig_mod.", "")  # what torch.compile puts into names
    return next((group for group, match in matches if fnmatch.fnmatchcase(name, match)), "rest")


def unmatched(names: Iterable[str], groups: Sequence[GroupValues]) -> list[GroupValues]:
    """Returns the groups that take none of these parameters."""
    matches = [(group.name, group.match) for group in groups]
    taken = {assign_group(name, matches) for name in names}
    return [group for group in groups if group.name not in taken]


def group_settings(
    call: Call,
    values: GroupValues,
    *,
    spared: bool = False,
    accepted: Container[str] | None = None,
) -> dict[str, Any]:
    """Returns the arguments of an optimizer that a parameter group has otherwise.

    A weight decay or momentum of its own applies where the optimizer has one.

    Args:
        call: The optimizer.
        values: The group.
        spared: Whether its parameters are spared from weight decay.
        accepted: The arguments the optimizer knows; left out, any.
    """
    arguments = call.arguments
    settings: dict[str, Any] = {
        "name": f"{values.name} (no decay)" if spared else values.name,
        call.rate: arguments[call.rate] * values.lr_multiplier,
    }
    decay = 0.0 if spared else values.weight_decay
    if decay is not None and (accepted is None or "weight_decay" in accepted):
        settings["weight_decay"] = decay
    betas = arguments.get("betas", _HELPER_BETAS if call.parameters in OTHERS.values() else None)
    if values.momentum is not None and betas is not None:
        settings["betas"] = (values.momentum, *betas[1:])
    elif values.momentum is not None and "momentum" in arguments:
        settings["momentum"] = values.momentum
    if values.frozen_until:
        settings["frozen_until"] = values.frozen_until
    return settings
