"""What the script of the page calls, besides ``mine.py``."""

import torch
from mine import build_loader, build_model, evaluate, train_step
from torch import nn

__all__ = ["loader", "loss_over", "model", "train_step", "validation"]

model = build_model()
loader = build_loader(batch_size=30)
validation = None


def loss_over(model: nn.Module, _: object) -> float | torch.Tensor:
    """Returns the loss over the validation data."""
    return evaluate(model)
