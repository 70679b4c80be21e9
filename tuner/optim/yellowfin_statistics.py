"""YellowFin's statistics of the gradients, and the learning rate and momentum from them.

Zhang and Mitliagkas, "YellowFin and the Art of Momentum Tuning", 2019, algorithms 1 to 4.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple

import torch
from torch import Tensor

EPSILON = 1e-6
"""Keeps quotients and logarithms finite where gradients vanish."""

FIRST_RATE = 1e-4
"""The learning rate of the first step, when nothing is known yet."""

PROTECTION = 10.0
"""The largest norm of a gradient in the averages, in multiples of the usual largest norm."""


SLOW_START = 10
"""The number of windows over which the learning rate rises to the tuned one."""

HEAVIEST = 1e4
"""The largest weight of a gradient in a sum, the first having 1, before the sum is scaled back."""


class Tuning(NamedTuple):
    """The learning rate and momentum of a step, as scalars on the device.

    Attributes:
        lr: The learning rate, before anyone's factor.
        momentum: The momentum, in [0, 1].
    """

    lr: Tensor
    momentum: Tensor


class Measurement:
    """Curvature range, gradient variance and distance to the optimum, measured step by step.

    These are the paper's algorithms 1 to 4; everything stays on the device, in float64, since
    powers of the curvature soon leave the range of float32. Nothing is repaired: once a gradient
    is not finite, neither is any of it.

    Args:
        device: Where the gradients are.
        beta: The part of an average that a step keeps, in (0, 1).
        window: Steps over which the extremes of the curvature are taken, at least 1.
        adapt_clip: Whether gradients far beyond the usual are clipped.
        sparse: Whether to account for the share of coordinates that gradients leave at zero.
    """

    def __init__(
        self, device: torch.device, *, beta: float, window: int, adapt_clip: bool, sparse: bool
    ) -> None:
        self._beta = beta
        self._adapt_clip = adapt_clip
        self.steps = 0
        self._weight = beta  # of the last gradient in the sums; of the first, 1
        # An operation with a number takes longer than one with a scalar on the device.
        constants = torch.tensor([EPSILON, 1.0, 2.0, 2 * EPSILON], dtype=torch.float64)
        self._epsilon, self._one, self._two, self._two_epsilon = constants.to(device).unbind()
        self._energies = self._one.new_zeros(window)  # a ring of ‖g‖²
        # Of log h_min, log h_max, ‖g‖², ‖g‖ and density; then of the quotient of ‖g‖ and ‖g‖².
        self._averages = self._one.new_zeros(5 if sparse else 4)
        self._quotient = self._one.new_zeros(())
        self._curvature = self._one.new_zeros(2)  # h_min, h_max
        self._estimates: dict[str, Tensor] = {}

    @property
    def values(self) -> dict[str, Tensor]:
        """The last measurements by name; empty before the first step."""
        h_min, h_max = self._curvature.unbind()
        return {"h_min": h_min, "h_max": h_max, **self._estimates} if self.steps else {}

    def clip(self, norm: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the factors on a gradient that is measured, and on one that moves parameters.

        Both are in [0, 1]: no outlier may own the averages, nor move far.

        Args:
            norm: The norm of the whole gradient.
        """
        if not self._adapt_clip or self.steps == 0:
            return self._one, self._one
        usual = self._curvature[1].sqrt() / norm
        moving = torch.minimum(usual, self._one)
        if self.steps == 1:
            return self._one, moving
        return torch.minimum(usual * PROTECTION, self._one), moving

    def discount(self) -> tuple[float, float]:
        """Returns the factor on the sums of gradients, and the weight of the next gradient in them.

        Instead of the past losing weight, the next gradient weighs more, which spares a pass over
        memory; only now and then is everything scaled back.
        """
        self._weight /= self._beta
        if self._weight <= HEAVIEST:
            return 1.0, self._weight
        decay, self._weight = 1 / self._weight, 1.0
        return decay, 1.0

    def update(self, norm: Tensor, sum_norm: Tensor, density: Tensor | None = None) -> Tuning:
        """Takes in one gradient.

        Args:
            norm: The norm of the whole gradient, clipped to be measured.
            sum_norm: The norm of the discounted sum of all gradients up to this one.
            density: The share of its coordinates that are not zero, if that is to be accounted for.
        """
        self._average(norm, density)
        debias = 1 - self._beta**self.steps
        means, distance = self._averages / debias, self._quotient / debias
        curvature = means[:2].exp()
        share = (1 - self._beta) / debias / self._weight  # of the sum in the mean
        variance = torch.addcmul(means[2], sum_norm, sum_norm, value=-(share**2))
        variance = torch.maximum(variance, self._epsilon)
        if density is not None:
            curvature = torch.maximum(curvature * means[4], self._epsilon)
            variance = variance * means[4]
            distance = distance / (means[4].sqrt() + self._epsilon)
        tuning = self._tune(curvature, variance, distance)
        self._curvature = curvature
        self._estimates = {
            "grad_var": variance,
            "dist_to_opt": distance,
            "target_momentum": tuning.momentum,
        }
        return tuning

    def _average(self, norm: Tensor, density: Tensor | None) -> None:
        energy = norm.square()
        # The first one fills the ring, so that its extremes are right before it has gone round.
        place = self._energies[self.steps % len(self._energies)] if self.steps else self._energies
        place.copy_(energy)
        self.steps += 1
        news = [*torch.aminmax(self._energies), energy, norm]
        new = torch.stack(news if density is None else [*news, density])
        new[:2].add_(self._epsilon).log_()
        self._averages.lerp_(new, 1 - self._beta)
        quotient = self._averages[3] / (self._averages[2] + self._epsilon)
        self._quotient.lerp_(quotient, 1 - self._beta)

    def _tune(self, curvature: Tensor, variance: Tensor, distance: Tensor) -> Tuning:
        """Returns learning rate and momentum."""
        if self.steps == 1:
            return Tuning(FIRST_RATE * self._one, 0 * distance)
        low, high = (curvature + self._epsilon).unbind()
        noise = torch.add(self._two_epsilon, variance, alpha=2)
        reach = distance + self._epsilon
        lr, momentum = solve_step(low, high, noise, reach, one=self._one, two=self._two)
        if self.steps < SLOW_START * len(self._energies):
            lr = lr * (self.steps / (SLOW_START * len(self._energies)))
        return Tuning(lr, momentum)

    def state_dict(self) -> dict[str, Any]:
        """Returns everything measured so far."""
        return {
            "steps": self.steps,
            "weight": self._weight,
            "energies": self._energies,
            "averages": self._averages,
            "quotient": self._quotient,
            "curvature": self._curvature,
            "estimates": self._estimates,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continues from a copy of a state of :meth:`state_dict`, of the same settings."""
        device = self._one.device
        self.steps, self._weight = state["steps"], state["weight"]
        self._energies = state["energies"].to(device, copy=True)
        self._averages = state["averages"].to(device, copy=True)
        self._quotient = state["quotient"].to(device, copy=True)
        self._curvature = state["curvature"].to(device)
        self._estimates = {name: value.to(device) for name, value in state["estimates"].items()}


def solve_step(
    low: Tensor,
    high: Tensor,
    noise: Tensor,
    distance: Tensor,
    *,
    one: Tensor | float = 1.0,
    two: Tensor | float = 2.0,
) -> Tuning:
    """Returns learning rate and momentum: the paper's SingleStep in closed form.

    Args:
        low: The least curvature, in float64 and above 0, like all of them.
        high: The largest curvature.
        noise: Twice the variance of the gradient.
        distance: The distance to the optimum.
        one: The number 1; a scalar on the device is quicker to compute with.
        two: The number 2, likewise.
    """
    root_p = distance * low * noise.rsqrt()
    # 1 − √μ: the larger momentum is that which needs the smaller of both.
    rest = torch.minimum(solve_cubic(root_p), two / ((high / low).sqrt() + one))
    return Tuning(rest.square() / low, (one - rest).square())


def solve_cubic(root_p: Tensor) -> Tensor:
    """Returns the z in (0, 1] at which z³ = p (1 − z): one minus the root of the momentum.

    With x = 1 − z it minimises x² D² + (1 − x)⁴ C / h², where p = D² h² / (2 C). The cubic's one
    real root in its hyperbolic form neither overflows nor cancels.

    Args:
        root_p: The square root of p, a scalar in float64, above 0.

    >>> round(solve_cubic(torch.tensor(0.5, dtype=torch.float64)).item(), 12)
    0.5
    """
    width = root_p * math.sqrt(4 / 3)
    return ((width.reciprocal() * 3).asinh() * (1 / 3)).sinh() * width
