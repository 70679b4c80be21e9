"""YellowFin for many lanes: the statistics of their gradients, and the momentum and rate from them.

The rule is that of tuner/optim/yellowfin.py and yellowfin_statistics.py (Zhang and Mitliagkas,
"YellowFin and the Art of Momentum Tuning", 2019, algorithms 1 to 4), which say why. Here all lanes
are measured at once, as the catalog has YellowFin: with adaptive clipping, in an open loop. The
statistics of a lane are a row of numbers in float64: the steps measured, running averages, and a
ring of ‖g‖². The mean gradient is the second buffer of the lane's parameters.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from tuner.fused.lane_state import LaneState, Segment
from tuner.fused.lane_update import Coefficients, Kind, norm_lanes
from tuner.optim.yellowfin import LONGEST_STEP
from tuner.optim.yellowfin_statistics import (
    EPSILON,
    FIRST_RATE,
    PROTECTION,
    SLOW_START,
    Tuning,
    solve_step,
)

_AVERAGES = 5
"""The averages of log h_min, log h_max, ‖g‖² and ‖g‖, then of the quotient of ‖g‖ and ‖g‖²."""


def new_measurements(lanes: int, window: int, device: torch.device) -> Tensor:
    """Returns the statistics of lanes that have not been trained.

    Args:
        lanes: The number of lanes.
        window: The longest window, in steps, that there is room for.
        device: The device of the lanes.
    """
    return torch.zeros(lanes, 1 + _AVERAGES + window, dtype=torch.float64, device=device)


def tune_lanes(
    state: LaneState, g: Tensor, coefficients: Tensor, segments: Sequence[Segment]
) -> Tensor:
    """Measures the gradients, and returns coefficients with the rates and momenta from them.

    Args:
        state: The lanes; their measurements are written in place.
        g: Their gradients, of shape (lanes, width).
        coefficients: As for :func:`tuner.fused.lane_update.update_lanes`; those of YellowFin hold
            its beta, its window, and its factor on the learning rate.
        segments: The columns that train, and the coefficients they have.

    Returns:
        Coefficients of the same shape; those of other lanes are as they were.
    """
    if state.measured is None:
        return coefficients
    c = Coefficients(*coefficients.unbind(1))
    # All that trains of a lane with YellowFin is measured as one gradient.
    measures, window, weight = (
        values[segments[0].column].double() for values in (c.kind, c.s_scale, c.s_grad)
    )
    beta = 1 - weight
    steps, averages, ring = state.measured.split(
        [1, _AVERAGES, state.measured.shape[1] - 1 - _AVERAGES], 1
    )
    norm = norm_lanes(g, segments, torch.float64)
    usual = (averages[:, 1:2] / (1 - beta**steps)).exp().sqrt() / norm
    measuring = torch.where(steps > 1, (PROTECTION * usual).clamp(max=1.0), 1.0)
    moving = torch.where(steps > 0, usual.clamp(max=1.0), 1.0)

    ring = _put(ring, (norm * measuring).square(), steps, window)
    averages = _average(averages, norm * measuring, ring, weight, window)
    sums = state.s * c.s_decay[segments[0].column] + g * (weight * measuring).to(g.dtype)
    now = steps + 1
    debias = 1 - beta**now
    mean = norm_lanes(sums, segments, torch.float64) / debias
    tuning = _tune(averages / debias, mean, now, window)

    found = torch.cat([now, averages, ring], 1)
    state.measured.copy_(torch.where(measures == Kind.TUNED.value, found, state.measured))
    longest = LONGEST_STEP / (norm * moving)
    changes = {
        "m_decay": tuning.momentum,
        "m_grad": moving,
        "s_grad": weight * measuring,
        "step_m": torch.minimum(tuning.lr * c.step_g, longest),
        "step_g": torch.zeros_like(norm),
    }
    ours = c.kind == Kind.TUNED.value
    own = {
        name: torch.where(ours, value.to(g.dtype), getattr(c, name))
        for name, value in changes.items()
    }
    return torch.stack(c._replace(**own), 1)


def _put(ring: Tensor, energy: Tensor, steps: Tensor, window: Tensor) -> Tensor:
    """Returns rings of ‖g‖² with the next one in its place; the first one fills a ring."""
    place = torch.arange(ring.shape[1], device=ring.device)
    return torch.where((place == steps % window) | (steps == 0), energy, ring)


def _average(
    averages: Tensor, norm: Tensor, ring: Tensor, weight: Tensor, window: Tensor
) -> Tensor:
    """Returns the running averages with the next gradient in them."""
    inside = torch.arange(ring.shape[1], device=ring.device) < window
    low = torch.where(inside, ring, torch.inf).amin(1, keepdim=True)
    high = torch.where(inside, ring, 0.0).amax(1, keepdim=True)
    new = torch.cat([(low + EPSILON).log(), (high + EPSILON).log(), norm.square(), norm], 1)
    means = averages[:, :4].lerp(new, weight)
    quotient = means[:, 3:] / (means[:, 2:3] + EPSILON)
    return torch.cat([means, averages[:, 4:].lerp(quotient, weight)], 1)


def _tune(means: Tensor, mean: Tensor, steps: Tensor, window: Tensor) -> Tuning:
    """Returns the learning rate and momentum of each lane.

    Args:
        means: The averages, their bias corrected.
        mean: The norm of the mean gradient.
        steps: Steps measured, this one included.
        window: Steps over which the extremes of the curvature are taken.
    """
    low, high, energy, _, distance = means.unsqueeze(-1).unbind(1)
    variance = (energy - mean.square()).clamp(min=EPSILON)
    lr, momentum = solve_step(
        low.exp() + EPSILON, high.exp() + EPSILON, 2 * (variance + EPSILON), distance + EPSILON
    )
    lr = lr * (steps / (SLOW_START * window)).clamp(max=1.0)
    first = steps == 1
    return Tuning(torch.where(first, FIRST_RATE, lr), torch.where(first, 0 * distance, momentum))
