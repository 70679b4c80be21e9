"""Several optimizers over disjoint parameters that act as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch


class JointOptimizer(torch.optim.Optimizer):
    """Several optimizers over disjoint parameters, stepped as one.

    Its parameter groups are those of its parts, the same objects, so that a scheduler that
    writes ``lr`` drives every part.

    Args:
        parts: The optimizers, at least one, no parameter in two of them.

    Raises:
        ValueError: If there are no parts or two of them share a parameter.
    """

    def __init__(self, parts: Sequence[torch.optim.Optimizer]) -> None:
        if not parts:
            raise ValueError("JointOptimizer needs at least one optimizer, got none.")
        self.parts = tuple(parts)
        owned = [id(p) for part in parts for group in part.param_groups for p in group["params"]]
        if len(set(owned)) < len(owned):
            raise ValueError("A parameter belongs to two optimizers: give each to one.")
        groups = [group for part in parts for group in part.param_groups]
        super().__init__([{"params": group["params"]} for group in groups], {})
        self.param_groups = groups

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Updates every part once.

        Args:
            closure: Reevaluates the model and returns the loss; called once.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for part in self.parts:
            part.step()
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients of every part."""
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of every part, in order."""
        return {"parts": [part.state_dict() for part in self.parts]}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores what :meth:`state_dict` gave.

        Raises:
            ValueError: If the state is of another number of parts.
        """
        states = state_dict["parts"]
        if len(states) != len(self.parts):
            raise ValueError(f"The state has {len(states)} parts, not {len(self.parts)}.")
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)
        # Loading replaces the parts' groups, so the shared view of them is taken anew.
        self.param_groups = [group for part in self.parts for group in part.param_groups]

    def __repr__(self) -> str:
        return f"JointOptimizer({', '.join(type(part).__name__ for part in self.parts)})"
