"""Several optimizers over disjoint parameters that act as one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True)
class FrozenGroup:
    """A parameter group that does not train yet.

    Attributes:
        part: The optimizer that will train it.
        group: The group, with ``frozen_until``, a fraction of a full trial; 1 is for good.
        waits: Its parameters that will train then; the others were frozen by the user's code.
    """

    part: torch.optim.Optimizer
    group: dict[str, Any]
    waits: tuple[torch.Tensor, ...]

    @property
    def until(self) -> float:
        """The fraction of a full trial until which it is frozen."""
        return float(self.group["frozen_until"])


class CompositeOptimizer(torch.optim.Optimizer):
    """Several optimizers over disjoint parameters, stepped as one.

    Its parameter groups are those of its parts, the same objects, so that a scheduler that
    writes ``lr`` drives every part.

    Args:
        parts: The optimizers, at least one, no parameter in two of them.
        frozen: Groups of theirs that do not train yet; not all of them.

    Raises:
        ValueError: If there are no parts, no group trains, or two of them share a parameter.

    >>> weight, bias = (torch.ones(2, requires_grad=True) for _ in range(2))
    >>> both = CompositeOptimizer([torch.optim.SGD([weight], lr=0.5), torch.optim.Adam([bias])])
    >>> (weight.sum() + bias.sum()).backward()
    >>> both.step()
    >>> weight.tolist(), [group["lr"] for group in both.param_groups]
    ([0.5, 0.5], [0.5, 0.001])
    """

    def __init__(
        self, parts: Sequence[torch.optim.Optimizer], frozen: Sequence[FrozenGroup] = ()
    ) -> None:
        if not parts:
            raise ValueError("CompositeOptimizer needs at least one optimizer, got none.")
        self.parts = tuple(parts)
        self.frozen = sorted(frozen, key=lambda waiting: waiting.until)
        self._thawed = 0
        owned = [id(p) for part in parts for group in part.param_groups for p in group["params"]]
        if len(set(owned)) < len(owned):
            raise ValueError("A parameter belongs to two optimizers: give each to one.")
        groups = [group for part in parts for group in part.param_groups]
        super().__init__([{"params": group["params"]} for group in groups], {})
        self.param_groups = groups

    def thaw(self, progress: float) -> bool:
        """Adds the frozen groups whose time has come to the parts that train them.

        Args:
            progress: The fraction of a full trial that is done, in [0, 1].

        Returns:
            Whether any group was added.
        """
        due = [waiting for waiting in self.frozen if waiting.until <= progress < 1]
        self._add(len(due))
        return bool(due)

    def _add(self, count: int) -> None:
        for waiting in self.frozen[:count]:
            for parameter in waiting.waits:
                parameter.requires_grad_(True)
            waiting.part.add_param_group(waiting.group)
        self.frozen = self.frozen[count:]
        self._thawed += count
        self._share_groups()

    def _share_groups(self) -> None:
        self.param_groups = [group for part in self.parts for group in part.param_groups]

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
        """Clears the gradients of every part.

        Args:
            set_to_none: Whether they become None, and not zero.
        """
        for part in self.parts:
            part.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of every part, in order."""
        return {"parts": [part.state_dict() for part in self.parts], "thawed": self._thawed}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores a state of :meth:`state_dict`.

        Raises:
            ValueError: If the state is of another number of parts, or of groups that train.
        """
        states = state_dict["parts"]
        if len(states) != len(self.parts):
            raise ValueError(f"The state has {len(states)} parts, not {len(self.parts)}.")
        count = int(state_dict["thawed"]) - self._thawed
        if not 0 <= count <= len(self.frozen):
            raise ValueError("The state has other groups frozen than this optimizer.")
        self._add(count)
        for part, state in zip(self.parts, states, strict=True):
            part.load_state_dict(state)
        # Loading replaces the parts' groups, so the shared view of them is taken anew.
        self._share_groups()

    def __repr__(self) -> str:
        return f"CompositeOptimizer({', '.join(type(part).__name__ for part in self.parts)})"
