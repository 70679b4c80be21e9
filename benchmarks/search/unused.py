"""Workloads that neither the portfolio nor any constant was learned on, to run frozen searches on.

All but one need the data folder (``TUNER_DATA``).
"""

from __future__ import annotations

import gzip
import itertools

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn
from torch.nn import functional

from benchmarks.search.workloads import SmallWorkload
from tuner import Data, data_folder
from tuner.errors import WorkloadError


def _mnist() -> Data:
    """Returns 6,000 images of MNIST, halved in size, of shape (N, 196), and labels."""
    folder = data_folder() / "mnist"
    pixels = _read(folder / "train-images-idx3-ubyte.gz", 16).reshape(-1, 1, 28, 28)[:6000]
    images = functional.avg_pool2d(torch.from_numpy(pixels.astype(np.float32)) / 255, 2)
    labels = torch.from_numpy(_read(folder / "train-labels-idx1-ubyte.gz", 8)[:6000].astype(int))
    return _hold_out(images.flatten(1), labels)


def _read(path: object, header: int) -> npt.NDArray[np.uint8]:
    try:
        with gzip.open(str(path)) as file:
            return np.frombuffer(file.read(), np.uint8, offset=header).copy()
    except OSError as error:
        raise WorkloadError(f"{path} cannot be read: {error}. Set TUNER_DATA.") from error


def _cifar() -> Data:
    """Returns 4,000 images of CIFAR-10, a quarter in size, of shape (N, 192), and labels."""
    path = data_folder() / "cifar10" / "cifar10-subset.npz"
    with np.load(path, allow_pickle=False) as file:
        pixels = torch.from_numpy(file["x_train"][:4000]).permute(0, 3, 1, 2).float() / 255
        labels = torch.from_numpy(file["y_train"][:4000].astype(int))
    return _hold_out(functional.avg_pool2d(pixels, 4).flatten(1) - 0.5, labels)


def _letters() -> Data:
    """Returns windows of 6 characters of Shakespeare, of shape (N, 6), and the next character."""
    text = (data_folder() / "tinyshakespeare" / "input.txt").read_text(encoding="utf-8")[:8006]
    codes = {letter: code for code, letter in enumerate(sorted(set(text)))}
    line = torch.tensor([codes[letter] for letter in text])
    windows = line.unfold(0, 7, 1)[:8000]
    return _hold_out(windows[:, :6].contiguous(), windows[:, 6].contiguous())


def _board() -> Data:
    """Returns points in a square and the colours of a chessboard's four by four fields there."""
    generator = torch.Generator().manual_seed(5)
    x = 2 * torch.rand(1600, 2, generator=generator) - 1
    fields = torch.floor(2 * (x + 1)).sum(1).long() % 2
    flipped = torch.rand(1600, generator=generator) < 0.05
    return _hold_out(x, torch.where(flipped, 1 - fields, fields))


def _hold_out(x: Tensor, y: Tensor) -> Data:
    cut = len(x) * 4 // 5
    order = torch.randperm(len(x), generator=torch.Generator().manual_seed(1))
    x, y = x[order], y[order]
    return Data(train=(x[:cut], y[:cut]), val=(x[cut:], y[cut:]))


def _next_letter() -> nn.Module:
    return nn.Sequential(
        nn.Embedding(64, 12), nn.Flatten(), nn.Linear(72, 64), nn.ReLU(), nn.Linear(64, 64)
    )


def _perceptron(*widths: int) -> nn.Module:
    layers: list[nn.Module] = []
    for one, other in itertools.pairwise(widths):
        layers += [nn.Linear(one, other), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


_entropy = functional.cross_entropy

UNUSED = {
    workload.name: workload
    for workload in (
        SmallWorkload("mnist", "unused", 64, lambda: _perceptron(196, 32, 10), _mnist, _entropy),
        SmallWorkload("cifar", "unused", 64, lambda: _perceptron(192, 48, 10), _cifar, _entropy),
        SmallWorkload("letters", "unused", 64, _next_letter, _letters, _entropy),
        SmallWorkload("board", "unused", 32, lambda: _perceptron(2, 48, 48, 2), _board, _entropy),
    )
}
"""The workloads by name."""
