"""Whether ranks train one model: some of its weights, which must be the same on all of them."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from tuner.errors import WorkloadError
from tuner.training.ranks import is_sharded

_PARAMETERS, _ELEMENTS = 128, 4
"""Parameters of a model that are looked at, and elements of each."""

_SHARE = 1e-4
"""Differences between ranks, as a share of the way that weights have gone, that are rounding."""

_ROUNDINGS = 16


class Likeness:
    """Tells some weights of a rank's models, and how far those of other ranks may be from them.

    Ranks that see other batches and do not exchange gradients soon have other weights; those that
    do exchange them have the same to the last bit, or nearly so.
    """

    def __init__(self) -> None:
        self._start: list[list[float]] | None = None

    def begin(self, models: Sequence[nn.Module]) -> None:
        """Notes where the weights are, once: the way they go is measured from there."""
        if self._start is None and models:
            self._start = [[value for value, _ in _sample(model)] for model in models]

    def tell(self, models: Sequence[nn.Module]) -> list[list[float]]:
        """Returns weights, each with the distance within which it has to be on other ranks.

        Models that lie in parts on the ranks are left out, as are those that have not moved.
        """
        told: list[list[float]] = []
        for model, start in zip(models, self._start or [], strict=False):
            present = list(_sample(model))
            if len(present) != len(start):
                continue  # its parameters have been exchanged, or frozen
            way = max((abs(v - s) for (v, _), s in zip(present, start, strict=True)), default=0.0)
            if way > 0 and math.isfinite(way):
                told += [[value, max(_SHARE * way, rounding)] for value, rounding in present]
        return told


def check_alike(told: Sequence[Sequence[Sequence[float]]], step: int) -> None:
    """Checks that ranks train one model.

    Args:
        told: What :meth:`Likeness.tell` has returned, by rank.
        step: The steps taken, for the message.

    Raises:
        WorkloadError: If their weights differ.
    """
    first, *others = told
    for rank, weights in enumerate(others, 1):
        if len(weights) == len(first) and not any(
            abs(other - value) > within
            for (value, within), (other, _) in zip(first, weights, strict=True)
        ):
            continue
        raise WorkloadError(
            f"Rank {rank} trains another model than rank 0: their weights differ after step "
            f"{step}, so each follows the gradients of its own batches. Wrap each model, "
            "model = DistributedDataParallel(model), and train by what that returns; a trainer "
            "has to know of all ranks (docs/integrations.md, On several processes). Or leave "
            "--processes out."
        )


@torch.no_grad()
def _sample(model: nn.Module) -> Iterator[tuple[float, float]]:
    """Yields some of a model's weights, each with the size of some roundings of it."""
    if is_sharded(model):
        return
    trained = [
        parameter
        for parameter in model.parameters()
        if parameter.requires_grad and parameter.numel() and not is_lazy(parameter)
    ]
    for parameter in trained[:: math.ceil(len(trained) / _PARAMETERS) or 1]:
        flat = parameter.detach().flatten()
        some = flat[:: math.ceil(flat.numel() / _ELEMENTS)]
        unit = _ROUNDINGS * torch.finfo(some.dtype).eps
        for value in some.double().tolist():
            yield value, unit * abs(value)
