"""What benchmarks train: the workloads of ``models/``, on whichever data is at hand."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tuner import Batch, Data, data_folder
from tuner.errors import WorkloadError
from tuner.training.workload import Workload, load_workload


@dataclass(frozen=True)
class Size:
    """How much is trained where ways to train are compared.

    Attributes:
        batch: Examples a step.
        lanes: Trials that train side by side.
        steps: Of a trial.
        evaluations: Of a trial, spread over its steps.
    """

    batch: int
    lanes: int
    steps: int
    evaluations: int = 10


@dataclass(frozen=True)
class StudySize:
    """How much a whole study trains.

    Attributes:
        trials: Its budget.
        steps: Of a full trial.
    """

    trials: int
    steps: int


SIZES = {
    "parabola": Size(batch=32, lanes=64, steps=1000),
    "digits": Size(batch=128, lanes=64, steps=300),
    "mnist": Size(batch=128, lanes=32, steps=500),
    "cifar10": Size(batch=128, lanes=8, steps=20, evaluations=2),
}
OWN, SUBSET, NOISE = "its own", "a subset", "noise"
STUDIES = {
    "parabola": StudySize(trials=1000, steps=300),
    "digits": StudySize(trials=1000, steps=500),
    "mnist": StudySize(trials=64, steps=2000),
}


def import_string(name: str) -> str:
    """Returns where a workload is found.

    >>> import_string("digits")
    'models.digits:Digits'
    """
    return f"models.{name}:{name.capitalize()}"


def load(name: str, source: str | None = None) -> Supplied:
    """Returns a workload that has data.

    Where its own is neither in the data folder nor to be downloaded, it is a smaller copy in that
    folder, or noise of the same shape, which takes as long to train on and can only be learned by
    heart.

    Args:
        name: The workload.
        source: The data to take, as :attr:`Supplied.source` says it; None for the best there is.
    """
    workload = load_workload(import_string(name))
    if not isinstance(workload, Workload):
        raise SystemExit(f"{name} has a training loop of its own")
    if source in (None, OWN):
        try:
            return Supplied(workload, OWN, workload.data())
        except WorkloadError as error:
            print(f"Training on other data: {error}", file=sys.stderr)
    path = data_folder() / "cifar10" / "cifar10-subset.npz"
    if name == "cifar10" and path.exists() and source != NOISE:
        return Supplied(workload, SUBSET, _subset(str(path)))
    return Supplied(workload, NOISE, _NOISE[name]())


class Supplied:
    """A workload on data that is given to it.

    Args:
        workload: The workload.
        source: Which data it is: :data:`OWN`, :data:`SUBSET` or :data:`NOISE`.
        data: The data.
    """

    def __init__(self, workload: Workload, source: str, data: Data) -> None:
        self._workload, self.source, self._data = workload, source, data

    def model(self) -> nn.Module:
        """Returns the workload's model."""
        return self._workload.model()

    def data(self) -> Data:
        """Returns the data."""
        return self._data

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Returns the workload's loss."""
        return self._workload.loss(model, batch)

    def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Returns the workload's metrics."""
        return self._workload.metrics(model, batch)


def _subset(path: str) -> Data:
    with np.load(path) as files:
        x = torch.from_numpy(files["x_train"]).permute(0, 3, 1, 2).contiguous()
        y = torch.from_numpy(files["y_train"]).long()
    return Data(train=(x[1000:], y[1000:]), val=(x[:1000], y[:1000]))


def _images() -> Data:
    x = torch.randint(0, 256, (10_000, 3, 32, 32), dtype=torch.uint8, generator=_generator())
    return _labelled(x, 1_000)


def _flat() -> Data:
    return _labelled(torch.rand(60_000, 784, generator=_generator()), 10_000)


_NOISE: dict[str, Callable[[], Data]] = {"cifar10": _images, "mnist": _flat}


def _labelled(x: Tensor, held_out: int) -> Data:
    y = torch.randint(0, 10, (len(x),), generator=_generator())
    return Data(train=(x[held_out:], y[held_out:]), val=(x[:held_out], y[:held_out]))


def _generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)
