"""Optimizers that train other weights than they evaluate, such as schedule-free ones."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

import torch

from tuner.optim.joint import JointOptimizer
from tuner.optim.lookahead import Lookahead


@contextlib.contextmanager
def evaluation_mode(optimizers: Iterable[torch.optim.Optimizer]) -> Iterator[None]:
    """Has the weights within be those to evaluate, where an optimizer tells them apart.

    Args:
        optimizers: Optimizers that are training; what they are made of counts too.
    """
    with contextlib.ExitStack() as stack:
        for optimizer in optimizers:
            for part in _parts(optimizer):
                if hasattr(part, "train") and hasattr(part, "eval"):
                    part.eval()
                    stack.callback(part.train)
        yield


def _parts(optimizer: torch.optim.Optimizer) -> Iterator[Any]:
    match optimizer:
        case JointOptimizer():
            for part in optimizer.parts:
                yield from _parts(part)
        case Lookahead():
            yield from _parts(optimizer.inner)
        case _:
            yield optimizer
