"""Small networks, and a loop that trains them."""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn

from tuner.domain.catalog.optimizers import OPTIMIZERS

COMPOSED = (
    "lookahead(momentum)",
    "lookahead(muon)",
    "lookahead(sparse_adam)",
    "lookahead(yellowfin)",
    "pytorch_optimizer:Lion",
    "pytorch_optimizer:Tiger",
)
"""Names that compose a row, one of every kind."""

EVERY_OPTIMIZER = (*OPTIMIZERS, *COMPOSED)


def network(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3)).to(dtype)


class Words(nn.Module):
    """An embedding with sparse gradients, and a head without."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Embedding(2, 8, sparse=True)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what the signs of x mean, summed."""
        logits: Tensor = self.head(torch.tanh(self.words((x > 0).long())).sum(1))
        return logits


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> Tensor:
    """Trains with a closure, as every optimizer can."""
    generator = torch.Generator().manual_seed(1)
    dtype = next(model.parameters()).dtype
    loss = torch.empty(0)
    for _ in range(steps):
        x = torch.randn(16, 4, generator=generator, dtype=torch.float64).to(dtype)

        def closure(x: Tensor = x) -> Any:
            optimizer.zero_grad()
            loss = (model(x) - x[:, :3].square()).square().mean()
            loss.backward()
            return loss

        loss = cast("Tensor", optimizer.step(closure))
    return loss
