"""The reader's own code, as pages import it: a small model, its data, a step and a measurement."""

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

x = torch.randn(400, 20, generator=torch.Generator().manual_seed(0))
y = (x[:, 0] * x[:, 1] > 0).long()


def build_model() -> nn.Module:
    """Returns a new model."""
    return nn.Sequential(nn.Linear(20, 32), nn.ReLU(), nn.Linear(32, 2))


def build_loader(batch_size: int = 32) -> DataLoader[tuple[torch.Tensor, ...]]:
    """Returns batches of training data."""
    return DataLoader(TensorDataset(x[:300], y[:300]), batch_size=batch_size, shuffle=True)


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, batch: list[torch.Tensor]
) -> torch.Tensor:
    """Takes one step, and returns the loss."""
    inputs, labels = batch
    optimizer.zero_grad()
    loss = F.cross_entropy(model(inputs), labels)
    loss.backward()
    optimizer.step()
    return loss


@torch.no_grad()
def evaluate(model: nn.Module) -> float:
    """Returns the loss over validation data."""
    return float(F.cross_entropy(model(x[300:]), y[300:]))
