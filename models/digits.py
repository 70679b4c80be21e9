"""Handwritten digits, 8x8 pixels, from scikit-learn: 1,797 images, no download."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional as F

from tuner import Batch, Data


class Digits:
    """A multilayer perceptron 64-64-10; 80% of the images train it, 20% validate it."""

    def model(self) -> nn.Module:
        """Returns the untrained network."""
        return nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))

    def data(self) -> Data:
        """Returns images of shape (N, 64) in [0, 1] and labels of shape (N,)."""
        images, labels = load_digits(return_X_y=True)
        order = np.random.default_rng(0).permutation(len(images))
        x = torch.tensor(images[order] / 16.0, dtype=torch.float32)
        y = torch.tensor(labels[order], dtype=torch.int64)
        cut = int(0.8 * len(x))
        return Data(train=(x[:cut], y[:cut]), val=(x[cut:], y[cut:]))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Returns the cross-entropy."""
        x, y = batch
        return F.cross_entropy(model(x), y)

    def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Returns cross-entropy and accuracy."""
        x, y = batch
        logits = model(x)
        return {
            "val_loss": F.cross_entropy(logits, y),
            "val_accuracy": (logits.argmax(1) == y).float().mean(),
        }
