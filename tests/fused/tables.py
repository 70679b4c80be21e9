"""The coefficients of an optimizer as one tensor."""

from __future__ import annotations

import torch
from torch import Tensor

from tuner.fused.lane_update import Coefficients
from tuner.fused.update_rules import Settings, Stretch, coefficients_of


def tabulate(target: str, settings: Settings, stretch: Stretch) -> Tensor:
    """Returns the coefficients of an optimizer over a stretch of steps.

    Args:
        target: Import path of its class, one of :data:`RULES`.
        settings: Its arguments; those left out are its own defaults. For several lanes at once,
            numbers that differ are tensors of shape (lanes, 1).
        stretch: The steps.

    Returns:
        float64 of shape (T, WIDTH) or (lanes, T, WIDTH), the columns in the order of
        :class:`Coefficients`.
    """
    row = coefficients_of(target, settings, stretch)
    columns = [
        torch.as_tensor(row.get(name, 0.0), dtype=torch.float64).expand_as(stretch.lr)
        for name in Coefficients._fields
    ]
    return torch.stack(columns, -1)
