"""MNIST, 28x28 pixels; the last 10,000 training images validate, the test images stay unused."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tuner import Batch, Data, fetch

_MIRROR = "https://storage.googleapis.com/cvdf-datasets/mnist/"
# SHA-256 of the decompressed files, since recompressed copies differ in the .gz alone.
_IMAGES = (
    "train-images-idx3-ubyte.gz",
    "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
)
_LABELS = (
    "train-labels-idx1-ubyte.gz",
    "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
)


class Mnist:
    """A multilayer perceptron 784-100-10; 50,000 images train it, 10,000 validate it."""

    def model(self) -> nn.Module:
        """Returns the untrained network."""
        return nn.Sequential(nn.Linear(784, 100), nn.ReLU(), nn.Linear(100, 10))

    def data(self) -> Data:
        """Returns images of shape (N, 784) in [0, 1] and labels of shape (N,)."""
        # The files open with a header of 16 and 8 bytes: magic number, count, image size.
        images = _read(*_IMAGES)[16:].reshape(-1, 784)
        labels = _read(*_LABELS)[8:]
        x = torch.from_numpy(images).float() / 255
        y = torch.from_numpy(labels).long()
        return Data(train=(x[:50_000], y[:50_000]), val=(x[50_000:], y[50_000:]))

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


def _read(name: str, sha256: str) -> np.ndarray:
    content = fetch(f"mnist/{name}", url=_MIRROR + name, sha256=sha256)
    return np.frombuffer(bytearray(content), dtype=np.uint8)
