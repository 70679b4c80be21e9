"""Optimizers inside the wrappers of trainers, such as Accelerate's."""

from __future__ import annotations

from collections.abc import Container

import torch


def unwrap(
    optimizer: torch.optim.Optimizer, known: Container[torch.optim.Optimizer]
) -> torch.optim.Optimizer:
    """Returns the optimizer in a wrapper, or itself where it is in none.

    Args:
        optimizer: An optimizer, or a wrapper with another one in its attribute ``optimizer``.
        known: The optimizers that are looked for; one of these is not looked into.

    >>> inner = torch.optim.SGD([torch.zeros(1)])
    >>> unwrap(inner, [inner]) is inner
    True
    """
    found = optimizer
    while found not in known:
        inner = getattr(found, "optimizer", None)
        if not isinstance(inner, torch.optim.Optimizer):
            return optimizer  # none of ours is in it
        found = inner
    return found
