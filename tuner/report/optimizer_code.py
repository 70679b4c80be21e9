"""The winner's optimizer as the values that the template of its Python writes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from tuner.analysis.summary import BestTrial
from tuner.domain.catalog.calls import Call, package_of
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.groups import REST, GroupValues, group_settings
from tuner.domain.spec import StudySpec

_PACKAGES = {"pytorch_optimizer": "pytorch-optimizer", "tuner": "tuner"}


@dataclass(frozen=True)
class OptimizerCode:
    """The optimizer of a trial, or its two over parts of a model.

    Attributes:
        calls: The constructors of its optimizers, one for each part of a model.
        groups: Its parameter groups.
        spares_vectors: Whether biases and norms are spared from weight decay.
        switches: Whether it trains other weights than it evaluates.
        networks: The names that its loop gave the models it trained; empty where none had one.
        own_calls: The constructors for a network that trains otherwise than the others, by name.
    """

    calls: tuple[Call, ...]
    groups: tuple[GroupValues, ...]
    spares_vectors: bool
    switches: bool = False
    networks: tuple[str | None, ...] = ()
    own_calls: Mapping[str, tuple[Call, ...]] = field(default_factory=dict)

    @classmethod
    def of(cls, best: BestTrial, spec: StudySpec) -> OptimizerCode:
        """Returns the optimizer of a trial."""
        config, steps = best.config, best.full_steps
        row = OPTIMIZERS[config.optimizer]
        return cls(
            row.calls(config.optimizer_values, steps),
            config.groups,
            spec.train.no_decay_on_biases_and_norms,
            row.switches,
            tuple(best.record.attributes.get("networks", config.networks)),
            {name: row.calls(config.values_of(name), steps) for name in config.networks},
        )

    @property
    def several(self) -> bool:
        """Whether there are two optimizers."""
        return len(self.calls) > 1

    @property
    def rate(self) -> str:
        """The key of the learning rate, or of the factor on it, that a schedule drives."""
        return self.calls[0].rate

    @property
    def packages(self) -> dict[str, str]:
        """The packages beside torch that it is imported from: the name to install by import."""
        roots = {package_of(target) for call in self.calls for target in call.targets}
        return {root: name for root, name in _PACKAGES.items() if root in roots}

    @property
    def grouped(self) -> bool:
        """Whether parameters are put into groups."""
        return bool(self.groups) or self.spares_vectors

    @property
    def freezes(self) -> bool:
        """Whether a group is frozen for a while."""
        return any(group.frozen_until for group in self.groups)

    @property
    def matches(self) -> list[tuple[str, str]]:
        """The name of each group and the pattern of the parameters it takes."""
        return [(group.name, group.match) for group in self.groups]

    def settings(self, call: Call) -> dict[str, dict[str, Any]]:
        """Returns the arguments of an optimizer that each group changes, by the group's name."""
        changed = [
            group_settings(call, values, spared=spared)
            for values in (*self.groups, GroupValues(REST, "*"))
            for spared in ((False, True) if self.spares_vectors else (False,))
        ]
        return {settings.pop("name"): settings for settings in changed}
