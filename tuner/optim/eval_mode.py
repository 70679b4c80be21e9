"""Evaluation with optimizers that train other weights than they evaluate (schedule-free ones)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from tuner.optim.composite import CompositeOptimizer
from tuner.optim.lookahead import Lookahead


@contextlib.contextmanager
def evaluation_mode(optimizers: Iterable[torch.optim.Optimizer]) -> Iterator[None]:
    """Switches optimizers that tell them apart to the weights to evaluate, and back at the end.

    Args:
        optimizers: Optimizers that are training; their parts are switched too.
    """
    with contextlib.ExitStack() as stack:
        for optimizer in optimizers:
            for part in parts_of(optimizer):
                if hasattr(part, "train") and hasattr(part, "eval"):
                    part.eval()
                    stack.callback(part.train)
        yield


def parts_of(optimizer: torch.optim.Optimizer) -> Iterator[Any]:
    """Yields the parts of an optimizer, down to those that have none: itself, if it has none."""
    match optimizer:
        case CompositeOptimizer():
            for part in optimizer.parts:
                yield from parts_of(part)
        case Lookahead():
            yield from parts_of(optimizer.inner)
        case _:
            yield optimizer
