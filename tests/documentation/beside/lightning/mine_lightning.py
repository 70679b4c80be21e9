"""The reader's own module for Lightning, and its data."""

import lightning as L
import torch
from mine import build_model, x, y
from torch import nn
from torch.nn.functional import cross_entropy
from torch.utils.data import DataLoader, TensorDataset


class Model(L.LightningModule):
    """A small network on the data of ``mine.py``."""

    def __init__(self) -> None:
        super().__init__()
        self.net: nn.Module = build_model()

    def training_step(self, batch: list[torch.Tensor], batch_idx: int) -> torch.Tensor:
        """Returns the loss over a batch."""
        return cross_entropy(self.net(batch[0]), batch[1])

    def validation_step(self, batch: list[torch.Tensor], batch_idx: int) -> None:
        """Logs the loss over a batch of validation data."""
        self.log("val_loss", cross_entropy(self.net(batch[0]), batch[1]))


train_loader = DataLoader(TensorDataset(x[:300], y[:300]), batch_size=32, shuffle=True)
val_loader = DataLoader(TensorDataset(x[300:], y[300:]), batch_size=100)
