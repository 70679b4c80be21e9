"""YellowFin's closed loop: it steers the total momentum of training by the applied one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

SAMPLE = 65_536
"""The most coordinates, evenly spread, that the median is taken over."""

LIMIT = 0.99
"""The largest absolute value of the applied momentum."""


class ClosedLoop:
    """Finds the momentum to apply, so that the total momentum becomes the tuned one.

    Zhang and Mitliagkas, "YellowFin and the Art of Momentum Tuning", 2019, section 4.

    Gradients that are some updates old act like additional momentum, so less has to be applied,
    at times less than none. Both the estimate, a median over coordinates, and the rule, which
    closes a part of the gap with every step, are those of the paper's closed loop; here the
    gradient counts with the learning rate of the step it is compared with, and the median is
    over a sample of the coordinates.

    Attributes:
        total: The total momentum last seen; NaN while there is not enough to compare, or where
            nothing moves.

    Args:
        device: Where the parameters are.
        staleness: The age, in updates, of the parameters that a gradient was computed at.
        gain: The part of the gap that a step closes, in (0, 1].
    """

    def __init__(self, device: torch.device, *, staleness: int, gain: float) -> None:
        self._staleness = staleness
        self._gain = gain
        self._momentum = torch.zeros((), dtype=torch.float64, device=device)
        self.total = torch.full_like(self._momentum, torch.nan)
        self._coordinates = 0
        self._positions: list[Tensor] = []  # oldest first: x(t-τ-2) … x(t)
        self._rates: list[Tensor] = []  # those of the steps t-τ … t

    def applied(self, parameters: Sequence[Tensor]) -> Tensor:
        """Returns the momentum to apply; to be asked before a step moves the parameters."""
        coordinates = sum(parameter.numel() for parameter in parameters)
        if coordinates != self._coordinates:  # the first step, or others have joined
            self._coordinates = coordinates
            self._positions, self._rates = [_sample(parameters)], []
        return self._momentum

    def close(
        self,
        target: Tensor,
        parameters: Sequence[Tensor],
        gradients: Sequence[Tensor],
        rates: Sequence[Tensor],
    ) -> None:
        """Estimates the total momentum and moves the momentum to apply in the next step.

        Args:
            target: The total momentum asked for.
            parameters: Every parameter, after the step.
            gradients: The gradient of each that the step was taken with, zero where it had none.
            rates: The learning rate of each, a scalar, times its clipping factor.
        """
        self._positions = [*self._positions, _sample(parameters)][-self._staleness - 3 :]
        sampled = _strided(gradients)
        spread = [rate.float().expand(len(part)) for rate, part in zip(rates, sampled, strict=True)]
        self._rates = [*self._rates, torch.cat(spread)][-self._staleness - 1 :]
        if len(self._positions) < self._staleness + 3:
            return
        before, then, after = self._positions[:3]
        push = self._rates[0] * torch.cat(sampled)
        self.total = ((after - then + push) / (then - before)).nanmedian().double()
        gap = target - torch.where(self.total.isnan(), target, self.total)
        self._momentum = (self._momentum + self._gain * gap).clamp(-LIMIT, LIMIT)

    def state_dict(self) -> dict[str, Any]:
        """Returns the momentum and the positions and rates of the last steps."""
        return {
            "momentum": self._momentum,
            "total": self.total,
            "coordinates": self._coordinates,
            "positions": self._positions,
            "rates": self._rates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a state of :meth:`state_dict`."""
        device = self.total.device
        self._momentum, self.total = state["momentum"].to(device), state["total"].to(device)
        self._coordinates = state["coordinates"]
        self._positions = [position.to(device) for position in state["positions"]]
        self._rates = [rate.to(device) for rate in state["rates"]]


def _sample(tensors: Sequence[Tensor]) -> Tensor:
    return torch.cat(_strided(tensors))


def _strided(tensors: Sequence[Tensor]) -> list[Tensor]:
    """Returns every n-th coordinate of each tensor, so that there are not too many in all."""
    stride = -(-sum(tensor.numel() for tensor in tensors) // SAMPLE)
    return [tensor.detach().reshape(-1)[::stride] for tensor in tensors]
