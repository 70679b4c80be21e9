"""A parabola with noise: the smallest network that can be trained well or badly."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tuner import Batch, Data


class Parabola:
    """A network 1-10-1 on y = x² + 0.1·noise for x in [-1, 1].

    800 points train it, 200 validate it, and 1,000 test finalists.
    """

    def model(self) -> nn.Module:
        """Returns the untrained network."""
        return nn.Sequential(nn.Linear(1, 10), nn.ReLU(), nn.Linear(10, 1))

    def data(self) -> Data:
        """Returns x and y, both of shape (N, 1)."""
        generator = torch.Generator().manual_seed(0)
        (x, y), test = _draw(generator), _draw(generator)
        return Data(train=(x[:800], y[:800]), val=(x[800:], y[800:]), test=test)

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Returns the mean squared error."""
        x, y = batch
        return F.mse_loss(model(x), y)

    def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Returns the mean squared error; the noise alone makes 0.01 of it."""
        return {"val_loss": self.loss(model, batch)}


def _draw(generator: torch.Generator) -> Batch:
    """Returns 1,000 points."""
    x = 2 * torch.rand(1000, 1, generator=generator) - 1
    return x, x.square() + 0.1 * torch.randn(1000, 1, generator=generator)
