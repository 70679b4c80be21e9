"""Small workloads of several families, of which thousands of trials train in seconds as lanes.

Their data comes with scikit-learn, or is generated from a fixed seed: nothing is downloaded.
Each is found by its name, such as ``benchmarks.search.workloads:digits_mlp``.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from sklearn import datasets
from torch import Tensor, nn
from torch.nn import functional

from tuner import Batch, Data


@dataclass(frozen=True)
class SmallWorkload:
    """A workload of a table: a model of inputs, and a criterion of its outputs and the targets.

    Attributes:
        name: Its name.
        family: Its kin, that can be left out with it.
        batch_size: Examples a step.
        build: Returns the untrained model.
        load: Returns inputs and targets, the same on every call.
        criterion: Returns the loss of outputs and targets, a mean over examples.
    """

    name: str
    family: str
    batch_size: int
    build: Callable[[], nn.Module]
    load: Callable[[], Data]
    criterion: Callable[[Tensor, Tensor], Tensor]

    def model(self) -> nn.Module:
        """Returns the untrained model."""
        return self.build()

    def data(self) -> Data:
        """Returns inputs and targets."""
        return self.load()

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Returns the criterion over a batch."""
        x, y = batch
        return self.criterion(model(x), y)

    def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Returns the criterion as ``val_loss``."""
        return {"val_loss": self.loss(model, batch)}


# Models.


class Residual(nn.Module):
    """Adds to its input what a layer makes of it, normalised.

    Args:
        width: Features in and out.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.first, self.second = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        """Returns features of the same shape."""
        change: Tensor = self.second(functional.relu(self.first(self.norm(x))))
        return x + change


class Attention(nn.Module):
    """Looks a key up among pairs of keys and values, by one head.

    Args:
        symbols: The number of keys, and of values.
        width: Features of a symbol.
    """

    def __init__(self, symbols: int, width: int) -> None:
        super().__init__()
        self.keys, self.values = nn.Embedding(symbols, width), nn.Embedding(symbols, width)
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.head = nn.Linear(width, symbols)

    def forward(self, x: Tensor) -> Tensor:
        """Returns logits of the value of the last key.

        Args:
            x: Symbols of shape (N, 2·pairs + 1): a key and its value in turns, and a key.
        """
        pairs = self.keys(x[:, :-1:2]) + self.values(x[:, 1::2])
        query, key = self.query(self.keys(x[:, -1:])), self.key(pairs)
        scores = torch.matmul(query, key.transpose(1, 2)) / math.sqrt(key.shape[-1])
        found = torch.matmul(torch.softmax(scores, -1), self.value(pairs))
        logits: Tensor = self.head(found[:, 0])
        return logits


class Recurrence(nn.Module):
    """Remembers by units that each fade at a pace of their own, and reads the last state.

    Args:
        inputs: Features of an element of the sequence.
        units: Features of the state.
        outputs: Features of the answer.
    """

    def __init__(self, inputs: int, units: int, outputs: int) -> None:
        super().__init__()
        self.enter, self.leave = nn.Linear(inputs, units), nn.Linear(units, units)
        self.fade = nn.Parameter(torch.full((units,), 3.0))
        self.head = nn.Linear(units, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what is read in the end.

        Args:
            x: Sequences of shape (N, length, inputs).
        """
        entering, kept = torch.tanh(self.enter(x)), torch.sigmoid(self.fade)
        state = entering[:, 0]
        for place in range(1, x.shape[1]):
            state = kept * state + entering[:, place]
        read: Tensor = self.head(torch.tanh(self.leave(state)))
        return read


class Factors(nn.Module):
    """Estimates elements of a matrix by the products of two narrow ones.

    Args:
        rows: Of the matrix.
        columns: Of the matrix.
        rank: The width of the narrow ones.
    """

    def __init__(self, rows: int, columns: int, rank: int) -> None:
        super().__init__()
        self.rows, self.columns = nn.Embedding(rows, rank), nn.Embedding(columns, rank)

    def forward(self, x: Tensor) -> Tensor:
        """Returns elements.

        Args:
            x: Places of shape (N, 2): a row and a column.
        """
        products: Tensor = self.rows(x[:, 0]) * self.columns(x[:, 1])
        return products.sum(-1)


def _mlp(*widths: int, act: Callable[[], nn.Module] = nn.ReLU) -> nn.Sequential:
    """Returns linear layers with activations between them."""
    layers: list[nn.Module] = []
    for inputs, outputs in itertools.pairwise(widths):
        layers += [nn.Linear(inputs, outputs), act()]
    return nn.Sequential(*layers[:-1])


def _convolutions() -> nn.Module:
    return nn.Sequential(
        nn.Unflatten(1, (1, 8)),
        nn.Conv2d(1, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, stride=2, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(32, 10),
    )


def _layer_norms() -> nn.Module:
    blocks = [Residual(32) for _ in range(2)]
    return nn.Sequential(nn.Linear(64, 32), *blocks, nn.LayerNorm(32), nn.Linear(32, 10))


def _batch_norms() -> nn.Module:
    layers: list[nn.Module] = []
    for inputs in (16, 32):
        # A norm takes a bias before it away again.
        layers += [nn.Linear(inputs, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(32, 6))


def _next_symbol() -> nn.Module:
    return nn.Sequential(nn.Embedding(20, 8), nn.Flatten(), *_mlp(4 * 8, 32, 20))


# Data.


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def _normal(*shape: int, generator: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=generator)


def _standard(x: Tensor) -> Tensor:
    return (x - x.mean(0)) / x.std(0)


def _hold_out(x: Tensor, y: Tensor, held_out: int) -> Data:
    """Returns shuffled data, so many examples of it for validation."""
    order = torch.randperm(len(x), generator=_generator())
    x, y = x[order], y[order]
    return Data(train=(x[held_out:], y[held_out:]), val=(x[:held_out], y[:held_out]))


def _bundled(read: Callable[..., tuple[object, object]]) -> tuple[Tensor, Tensor]:
    """Returns what a function of scikit-learn reads or makes."""
    x, y = read()
    return torch.as_tensor(x).float(), torch.as_tensor(y)


def _parabola() -> Data:
    generator = _generator()
    x = 2 * torch.rand(1000, 1, generator=generator) - 1
    return _hold_out(x, x.square() + 0.1 * _normal(1000, 1, generator=generator), 200)


def _friedman() -> Data:
    x, y = _bundled(lambda: datasets.make_friedman1(1200, noise=1.0, random_state=0))
    return _hold_out(_standard(x), _standard(y.float()[:, None]), 400)


def _diabetes() -> Data:
    x, y = _bundled(lambda: datasets.load_diabetes(return_X_y=True))
    return _hold_out(_standard(x), _standard(y.float()[:, None]), 142)


def _waves() -> Data:
    generator = _generator()
    x = 2 * torch.rand(1000, 1, generator=generator) - 1
    y = torch.sin(3 * x) + 0.5 * torch.sin(8 * x + 1) + 0.25 * torch.sin(15 * x + 2)
    return _hold_out(x, y + 0.05 * _normal(1000, 1, generator=generator), 300)


def _digits() -> Data:
    x, y = _bundled(lambda: datasets.load_digits(return_X_y=True))
    return _hold_out(x / 16, y.long(), 400)


def _images() -> Data:
    def shape(batch: Batch) -> Batch:
        return batch[0].unflatten(1, (8, 8)), batch[1]

    data = _digits()
    return Data(train=shape(data.train), val=shape(data.val))


def _copies() -> Data:
    data = _digits()
    return Data(train=(data.train[0],) * 2, val=(data.val[0],) * 2)


def _cancer() -> Data:
    x, y = _bundled(lambda: datasets.load_breast_cancer(return_X_y=True))
    return _hold_out(_standard(x), y.long(), 200)


def _wine() -> Data:
    x, y = _bundled(lambda: datasets.load_wine(return_X_y=True))
    return _hold_out(_standard(x), y.long(), 60)


def _spirals() -> Data:
    generator = _generator()
    y = torch.arange(1200) % 2
    turn = 0.5 + 2.5 * torch.pi * torch.rand(1200, generator=generator).sqrt()
    x = turn[:, None] * torch.stack(
        [torch.cos(turn + torch.pi * y), torch.sin(turn + torch.pi * y)], 1
    )
    return _hold_out(_standard(x + 0.4 * _normal(1200, 2, generator=generator)), y, 400)


def _markov() -> Data:
    generator = _generator()
    first, second = _normal(2, 20, 6, generator=generator)
    mixed = torch.tanh(first[:, None] + second)
    chances = torch.softmax(mixed @ _normal(6, 20, generator=generator), -1)
    text = [0, 1]
    for _ in range(2402):
        text.append(int(torch.multinomial(chances[text[-2], text[-1]], 1, generator=generator)))
    windows = torch.tensor(text).unfold(0, 5, 1)
    return _hold_out(windows[:, :4], windows[:, 4], 400)


def _recall() -> Data:
    generator = _generator()
    keys = torch.rand(2400, 8, generator=generator).argsort(1)[:, :4]
    values = torch.randint(8, (2400, 4), generator=generator)
    asked = torch.randint(4, (2400, 1), generator=generator)
    pairs = torch.stack([keys, values], 2).flatten(1)
    answers = values.gather(1, asked)[:, 0]
    wrong = torch.rand(2400, generator=generator) < 0.1
    answers = torch.where(wrong, torch.randint(8, (2400,), generator=generator), answers)
    return _hold_out(torch.cat([pairs, keys.gather(1, asked)], 1), answers, 400)


def _parity() -> Data:
    generator = _generator()
    bits = torch.randint(2, (2400, 10), generator=generator)
    marks = torch.zeros(2400, 10, dtype=torch.int64)
    marks.scatter_(1, torch.rand(2400, 10, generator=generator).argsort(1)[:, :2], 1)
    x = torch.stack([marks * (2 * bits - 1), marks], 2).float()
    return _hold_out(x, (bits * marks).sum(1) % 2, 400)


def _teacher() -> Data:
    generator = _generator()
    x = _normal(2000, 16, generator=generator)
    hidden = torch.tanh(x @ _normal(16, 12, generator=generator) / 2)
    y = (hidden @ _normal(12, 6, generator=generator)).argmax(1)
    return _hold_out(x * torch.logspace(-1, 1, 16), y, 400)


def _elements() -> Data:
    generator = _generator()
    matrix = _normal(50, 3, generator=generator) @ _normal(3, 40, generator=generator)
    x = torch.cartesian_prod(torch.arange(50), torch.arange(40))
    y = matrix.flatten() + 0.1 * _normal(2000, generator=generator)
    return _hold_out(x, y, 400)


# The table.


def _table(*workloads: SmallWorkload) -> dict[str, SmallWorkload]:
    return {workload.name: workload for workload in workloads}


_mse, _entropy = functional.mse_loss, functional.cross_entropy

WORKLOADS = _table(
    SmallWorkload("parabola", "regression", 32, lambda: _mlp(1, 10, 1), _parabola, _mse),
    SmallWorkload("friedman", "regression", 32, lambda: _mlp(10, 32, 32, 1), _friedman, _mse),
    SmallWorkload("diabetes", "regression", 16, lambda: _mlp(10, 16, 1), _diabetes, _mse),
    SmallWorkload(
        "waves", "regression", 64, lambda: _mlp(1, 24, 24, 24, 1, act=nn.Tanh), _waves, _mse
    ),
    SmallWorkload("digits_mlp", "images", 64, lambda: _mlp(64, 64, 10), _digits, _entropy),
    SmallWorkload("digits_deep", "images", 32, lambda: _mlp(64, *6 * [32], 10), _digits, _entropy),
    SmallWorkload("digits_conv", "images", 32, _convolutions, _images, _entropy),
    SmallWorkload("cancer", "tables", 32, lambda: nn.Linear(30, 2), _cancer, _entropy),
    SmallWorkload("wine", "tables", 16, lambda: _mlp(13, 16, 3), _wine, _entropy),
    SmallWorkload(
        "spirals", "tables", 32, lambda: _mlp(2, 32, 32, 2, act=nn.Tanh), _spirals, _entropy
    ),
    SmallWorkload("markov", "sequences", 32, _next_symbol, _markov, _entropy),
    SmallWorkload("recall", "sequences", 32, lambda: Attention(8, 16), _recall, _entropy),
    SmallWorkload("parity", "sequences", 32, lambda: Recurrence(2, 16, 2), _parity, _entropy),
    SmallWorkload("digits_norm", "normalised", 32, _layer_norms, _digits, _entropy),
    SmallWorkload("teacher_norm", "normalised", 32, _batch_norms, _teacher, _entropy),
    SmallWorkload("autoencoder", "compression", 32, lambda: _mlp(64, 32, 8, 32, 64), _copies, _mse),
    SmallWorkload("factors", "compression", 32, lambda: Factors(50, 40, 4), _elements, _mse),
)
"""The workloads by name."""


def __getattr__(name: str) -> SmallWorkload:
    """Returns a workload, as the import string of a study names it."""
    if name in WORKLOADS:
        return WORKLOADS[name]
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
