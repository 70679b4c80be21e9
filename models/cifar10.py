"""CIFAR-10, 32x32 pixels; the last 5,000 training images validate, the test images stay unused."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Mapping

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tuner import Batch, Data, fetch

_NAME = "cifar-10-binary.tar.gz"
_MIRROR = "https://www.cs.toronto.edu/~kriz/"
_SHA256 = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9ddda3db29a59bca1dd"
_VALIDATION = 5_000


class Cifar10:
    """ResNet-8 with BatchNorm, of 77,850 parameters; 45,000 images train it, 5,000 validate it."""

    def model(self) -> nn.Module:
        """Returns the untrained network."""
        return ResNet8()

    def data(self) -> Data:
        """Returns images (N, 3, 32, 32), uint8 to save memory, and labels (N,)."""
        x, y = read_archive(fetch(f"cifar10/{_NAME}", url=_MIRROR + _NAME, sha256=_SHA256))
        cut = len(x) - _VALIDATION
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


class ResNet8(nn.Module):
    """Eight layers: a convolution, three residual blocks of two, and a linear one."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(16)
        self.blocks = nn.Sequential(Block(16, 16), Block(16, 32), Block(32, 64))
        self.head = nn.Linear(64, 10)

    def forward(self, images: Tensor) -> Tensor:
        """Returns logits of shape (N, 10) for uint8 images of shape (N, 3, 32, 32)."""
        x = images.to(self.stem.weight.dtype) / 128 - 1  # (N, 3, 32, 32) in [-1, 1)
        x = F.relu(self.norm(self.stem(x)))  # (N, 16, 32, 32)
        x = self.blocks(x)  # (N, 64, 8, 8)
        logits: Tensor = self.head(x.mean((2, 3)))
        return logits


class Block(nn.Module):
    """Two convolutions beside a shortcut; where the channels grow, the image halves."""

    def __init__(self, channels: int, wider: int) -> None:
        super().__init__()
        stride = 1 if wider == channels else 2
        self.first = nn.Conv2d(channels, wider, 3, stride, padding=1, bias=False)
        self.first_norm = nn.BatchNorm2d(wider)
        self.second = nn.Conv2d(wider, wider, 3, padding=1, bias=False)
        self.second_norm = nn.BatchNorm2d(wider)
        self.shortcut = (
            nn.Identity() if stride == 1 else nn.Conv2d(channels, wider, 1, stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """Returns shape (N, wider, H / stride, W / stride) for shape (N, channels, H, W)."""
        y = F.relu(self.first_norm(self.first(x)))
        y = self.second_norm(self.second(y))
        return F.relu(y + self.shortcut(x))


def read_archive(content: bytes) -> Batch:
    """Returns the training images, uint8 of shape (N, 3, 32, 32), and their labels, int64.

    Args:
        content: The archive of the binary version: files of rows of a label and 3,072 pixels.
    """
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        names = sorted(name for name in archive.getnames() if "data_batch" in name)
        files = [file.read() for name in names if (file := archive.extractfile(name))]
    rows = np.frombuffer(bytearray(b"".join(files)), dtype=np.uint8).reshape(-1, 1 + 3072)
    x = torch.from_numpy(rows[:, 1:].reshape(-1, 3, 32, 32))
    return x, torch.from_numpy(rows[:, 0]).long()
