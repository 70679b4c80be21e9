"""The models that a training loop optimizes, and the names it gives them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import Any

import torch
from torch import nn

from tuner.domain.groups import GroupValues
from tuner.errors import WorkloadError
from tuner.optim.groups import check_groups, describe_groups, optimizable


class Networks:
    """Holds a loop's models and their names.

    Args:
        declared: The names in the study's ``[network]`` tables.

    Attributes:
        models: The models, in the order of their optimizers.
        names: The name that the loop gives each, None where it gives none.
    """

    def __init__(self, declared: Collection[str]) -> None:
        self._declared = declared
        self.models: list[nn.Module] = []
        self._parameters: list[str] = []
        self.names: list[str | None] = []

    def enter(self, model: nn.Module, name: str | None) -> None:
        """Adds a model.

        Args:
            model: The model.
            name: Its name, or None.

        Raises:
            WorkloadError: If the name is no plain word, or another model's.
        """
        if name is not None and not name.isidentifier():
            raise WorkloadError(
                f"run.optimizer was given name={name!r}: use a plain word, such as "
                'name="generator".'
            )
        known = zip(self.names, self.models, strict=True)
        if name is not None and any(name == n and model is not m for n, m in known):
            raise WorkloadError(
                f"run.optimizer was given name={name!r} for two models: give each its own."
            )
        self._parameters += optimizable(model, name)
        self.names.append(name)
        self.models.append(model)

    def check(self, groups: Sequence[GroupValues]) -> None:
        """Checks, once there are models, that every group and every table applies to one.

        Args:
            groups: The study's parameter groups.

        Raises:
            WorkloadError: If a group takes no parameter, or a table names no model.
        """
        if not self.models:
            return
        check_groups(self._parameters, groups)
        for name in self._declared:
            if name not in self.names:
                called = ", ".join(f'name="{known}"' for known in self.names if known)
                raise WorkloadError(
                    f"The study has [network.{name}], but its training loop names "
                    f'{called or "no network"}: write run.optimizer(model, name="{name}") in a '
                    "loop of your own, or leave the table out."
                )

    @property
    def parameters(self) -> int:
        """Numbers that the models train."""
        return sum(p.numel() for m in self.models for p in m.parameters() if p.requires_grad)

    def describe_groups(self, optimizers: Iterable[torch.optim.Optimizer]) -> list[dict[str, Any]]:
        """Returns the effective settings of every parameter group, named after their networks."""
        return [
            {**group, "name": f"{name}.{group['name']}"} if name else group
            for name, optimizer in zip(self.names, optimizers, strict=True)
            for group in describe_groups(optimizer)
        ]
