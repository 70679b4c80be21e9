"""What the loops of the page call, besides ``mine.py``."""

import torch
from mine import build_loader, build_model, evaluate, train_step, x, y
from torch import nn
from torch.nn import functional as F
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, TensorDataset

__all__ = [
    "DataLoader",
    "DistributedDataParallel",
    "accuracy_over",
    "build_loader",
    "build_model",
    "data",
    "load",
    "loss_of",
    "loss_over",
    "test",
    "train_step",
    "validation",
]

Pairs = tuple[torch.Tensor, torch.Tensor]

data = TensorDataset(x[:300], y[:300])
validation: Pairs = (x[300:], y[300:])
test = evaluate


def load(split_seed: int) -> tuple[DataLoader[tuple[torch.Tensor, ...]], Pairs, Pairs]:
    """Returns training batches, validation and test data."""
    order = torch.randperm(350, generator=torch.Generator().manual_seed(split_seed))
    training, validation = order.split([250, 100])
    loader = DataLoader(TensorDataset(x[training], y[training]), batch_size=32, shuffle=True)
    return loader, (x[validation], y[validation]), (x[350:], y[350:])


def loss_of(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Returns the loss over a batch."""
    return F.cross_entropy(model(inputs), labels)


@torch.no_grad()
def loss_over(model: nn.Module, data: Pairs) -> float:
    """Returns the loss over a part of the data."""
    return float(loss_of(model, *data))


@torch.no_grad()
def accuracy_over(model: nn.Module, data: Pairs) -> float:
    """Returns the share of a part of the data that is classified rightly."""
    return float((model(data[0]).argmax(1) == data[1]).float().mean())
