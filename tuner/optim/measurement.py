"""What YellowFin measures of the gradients, and the rate and momentum it draws from that."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor

EPSILON = 1e-6
"""Keeps quotients and logarithms finite where gradients vanish."""

FIRST_RATE = 1e-4
"""The learning rate of the first step, when nothing is known yet."""

PROTECTION = 100.0
"""How many times the largest usual squared norm a gradient may have in the averages."""


class Tuning(NamedTuple):
    """What a step is taken with, as scalars on the device.

    Attributes:
        lr: The learning rate, before anyone's factor.
        momentum: The momentum, in [0, 1).
        clip: What the measured gradient is multiplied with before it moves parameters, in [0, 1].
    """

    lr: Tensor
    momentum: Tensor
    clip: Tensor


class Measurement:
    """Curvature range, gradient variance and distance to the optimum, measured step by step.

    These are the paper's algorithms 1 to 4; everything stays on the device, in float64, since
    powers of the curvature soon leave the range of float32. Nothing is repaired: once a gradient
    is not finite, neither is any of it.

    Args:
        device: Where the gradients are.
        beta: How much of an average a step keeps, in (0, 1).
        window: Steps over which the extremes of the curvature are taken, at least 1.
        adapt_clip: Whether gradients far beyond the usual are clipped.
        sparse: Whether to account for the share of coordinates that gradients leave at zero.
    """

    def __init__(
        self, device: torch.device, *, beta: float, window: int, adapt_clip: bool, sparse: bool
    ) -> None:
        self._beta = beta
        self._window = window
        self._adapt_clip = adapt_clip
        self.steps = 0
        zeros = torch.zeros(window + 6, dtype=torch.float64, device=device)
        self._one = zeros.new_ones(())
        self._curvatures = zeros[:window].clone()  # logarithms, a ring
        self._averages = zeros[: 5 if sparse else 4].clone()  # see update()
        self._distance = zeros[0].clone()
        self.values: dict[str, Tensor] = {}

    def protect(self, norm: Tensor) -> Tensor:
        """Returns what a gradient is multiplied with so that no outlier owns the averages.

        Args:
            norm: The norm of the whole gradient.
        """
        if not self._adapt_clip or self.steps < 2:
            return self._one
        return _shorten(norm, (PROTECTION * self.values["h_max"]).sqrt())

    def update(self, norm: Tensor, mean_norm: Tensor, density: Tensor | None = None) -> Tuning:
        """Takes in one gradient.

        Args:
            norm: The norm of the whole gradient, protected.
            mean_norm: The norm of the running mean of gradients, this one included, which starts
                from zero and decays by ``beta``.
            density: The share of its coordinates that are not zero, if that is to be accounted for.
        """
        energy = norm.square()
        self._curvatures[self.steps % self._window] = (energy + EPSILON).log()
        low, high = torch.aminmax(self._curvatures[: self.steps + 1])
        self.steps += 1
        debias = 1 - self._beta**self.steps
        news = [low, high, energy, norm] if density is None else [low, high, energy, norm, density]
        self._averages.lerp_(torch.stack(news), 1 - self._beta)
        low, high, energy_mean, norm_mean = self._averages[:4].unbind()
        self._distance.lerp_(norm_mean / (energy_mean + EPSILON), 1 - self._beta)

        h_min, h_max = (low / debias).exp(), (high / debias).exp()
        variance = (energy_mean / debias - mean_norm.square() / debias**2).clamp(min=EPSILON)
        distance = self._distance / debias
        if density is not None:
            filled = self._averages[4] / debias
            h_min, h_max, variance = h_min * filled, h_max * filled, variance * filled
            distance = distance / (filled.sqrt() + EPSILON)
        clip = self._one
        if self._adapt_clip and self.values:
            clip = _shorten(norm, self.values["h_max"].sqrt())
        lr, momentum = self._tune(h_min, h_max, variance, distance)
        self.values = {
            "h_min": h_min,
            "h_max": h_max,
            "grad_var": variance,
            "dist_to_opt": distance,
            "target_momentum": momentum,
        }
        return Tuning(lr, momentum, clip)

    def _tune(
        self, h_min: Tensor, h_max: Tensor, variance: Tensor, distance: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns learning rate and momentum: the paper's SingleStep in closed form."""
        if self.steps == 1:
            return FIRST_RATE * self._one, 0 * h_min
        low = h_min + EPSILON
        p = ((distance + EPSILON) * low).square() / (2 * (variance + EPSILON))
        spread = ((h_max + EPSILON) / low).sqrt()
        root = torch.maximum(solve_cubic(p), (spread - 1) / (spread + 1))
        slow_start = min(1.0, self.steps / (10 * self._window))
        return slow_start * (1 - root).square() / low, root.square()

    def state_dict(self) -> dict[str, Any]:
        """Returns everything measured so far."""
        return {
            "steps": self.steps,
            "curvatures": self._curvatures,
            "averages": self._averages,
            "distance": self._distance,
            "values": self.values,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a copy of what :meth:`state_dict` gave, of the same settings."""
        device = self._one.device
        self.steps = state["steps"]
        self._curvatures = state["curvatures"].to(device, copy=True)
        self._averages = state["averages"].to(device, copy=True)
        self._distance = state["distance"].to(device, copy=True)
        self.values = {name: value.to(device) for name, value in state["values"].items()}


def solve_cubic(p: Tensor) -> Tensor:
    """Returns the x in (0, 1) at which x p = (1 − x)³: the square root of the momentum.

    It minimises x² D² + (1 − x)⁴ C / h², with p = D² h² / (2 C). The root's hyperbolic form
    overflows nowhere; Newton's step returns the digits that 1 − … loses where x is small.

    Args:
        p: A scalar in float64, above 0.

    >>> solve_cubic(torch.tensor(0.25, dtype=torch.float64)).item()
    0.5
    """
    third = (p / 3).sqrt()
    rest = 2 * third * ((1.5 / third).asinh() / 3).sinh()  # 1 − x
    square = rest.square()
    return square * (3 - 2 * rest) / (p + 3 * square)


def _shorten(norm: Tensor, limit: Tensor) -> Tensor:
    """Returns what a vector is multiplied with to be no longer than a limit."""
    return (limit / norm).clamp(max=1.0)
