"""Lookahead: slow weights that follow an optimizer's, and that it goes on from now and then."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tuner.errors import SpecError


class Lookahead(torch.optim.Optimizer):
    """An optimizer that every ``k`` steps moves back towards its weights of ``k`` steps ago.

    Its parameter groups and state are those of the optimizer within, the same objects, so that a
    scheduler drives it, and groups may join in mid-run. Evaluate the parameters as they are.

    Zhang, Lucas, Hinton and Ba, "Lookahead Optimizer: k steps forward, 1 step back", NeurIPS 2019,
    algorithm 1: φ ← φ + α·(θ − φ), θ ← φ, φ being the slow weights.
    The momentum of the optimizer within is left as it is.

    Args:
        optimizer: The optimizer within, which takes one step at a time.
        k: Its steps between two updates of the slow weights, at least 1.
        alpha: The part of the way that the slow weights follow, in (0, 1].

    Raises:
        SpecError: If ``k`` or ``alpha`` is out of bounds.

    >>> p = torch.zeros(1, requires_grad=True)
    >>> optimizer = Lookahead(torch.optim.SGD([p], lr=1.0), k=2, alpha=0.5)
    >>> p.grad = torch.ones(1)
    >>> for _ in range(2):
    ...     optimizer.step()
    >>> p.item()
    -1.0
    """

    def __init__(self, optimizer: torch.optim.Optimizer, k: int = 5, alpha: float = 0.5) -> None:
        if not (isinstance(k, int) and k >= 1):
            raise SpecError(f"k = {k!r}: Lookahead takes a whole number of steps, such as 5.")
        if not 0 < alpha <= 1:
            raise SpecError(f"alpha = {alpha!r}: it is above 0 and at most 1, such as 0.5.")
        super().__init__([{"params": group["params"]} for group in optimizer.param_groups], {})
        self.inner = optimizer
        self.k = k
        self.alpha = alpha
        self._taken = 0
        self._slow: dict[Tensor, Tensor] = {}
        self._share()

    def _share(self) -> None:
        self.defaults = self.inner.defaults
        self.param_groups = self.inner.param_groups
        self.state = self.inner.state

    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Adds parameters to the optimizer within; slow weights follow them too.

        Args:
            param_group: As the optimizer within takes it.
        """
        if hasattr(self, "inner"):
            self.inner.add_param_group(param_group)
        else:  # the base class is being built
            super().add_param_group(param_group)

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """Takes a step of the optimizer within, and every ``k`` steps one of the slow weights.

        Args:
            closure: Reevaluates the model and returns the loss; passed on.
        """
        # A frozen parameter stays as its owner has it; slow weights start where it thaws.
        parameters = [p for p in self._parameters() if p.requires_grad]
        self._slow = {
            p: self._slow[p] if p in self._slow else p.detach().clone() for p in parameters
        }
        loss: float | None = self.inner.step(closure)
        self._taken += 1
        if parameters and self._taken % self.k == 0:
            with torch.no_grad():
                slow = [self._slow[parameter] for parameter in parameters]
                torch._foreach_lerp_(slow, parameters, self.alpha)
                torch._foreach_copy_(parameters, slow)
        return loss

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clears the gradients.

        Args:
            set_to_none: Whether they become None, and not zero.
        """
        self.inner.zero_grad(set_to_none)

    def state_dict(self) -> dict[str, Any]:
        """Returns the state of the optimizer within, and the slow weights in the groups' order."""
        return {
            "inner": self.inner.state_dict(),
            "slow": [self._slow.get(parameter) for parameter in self._parameters()],
            "taken": self._taken,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restores a state of :meth:`state_dict`.

        Raises:
            ValueError: If the state is of other parameters.
        """
        parameters, slow = self._parameters(), state_dict["slow"]
        if [p.shape for p in parameters] != [
            p.shape if s is None else s.shape for p, s in zip(parameters, slow, strict=False)
        ]:
            raise ValueError("The state is of Lookahead over other parameters than these.")
        self.inner.load_state_dict(state_dict["inner"])
        self._taken = int(state_dict["taken"])
        self._slow = {
            parameter: weights.detach().clone().to(parameter)
            for parameter, weights in zip(parameters, slow, strict=True)
            if weights is not None
        }
        # Loading replaces groups and state, so the shared view of them is taken anew.
        self._share()

    def _parameters(self) -> list[Tensor]:
        return [p for group in self.param_groups for p in group["params"]]

    def __repr__(self) -> str:
        return f"Lookahead({type(self.inner).__name__}, k={self.k}, alpha={self.alpha:g})"
