"""Workloads: the model, data, loss and metrics that a user writes, imported by name."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

from torch import Tensor, nn

from tuner.domain.imports import import_attribute
from tuner.errors import SpecError, tell_error

Batch = tuple[Tensor, ...]
"""Some rows of a dataset: tensors that share their first dimension."""


@dataclass(frozen=True)
class Data:
    """A workload's data: tensors that share their first dimension, one row an example.

    Attributes:
        train: Training data, such as (inputs, targets).
        val: Validation data, in the same order, for the metrics.
        test: Test data, or None. No search touches it: the metrics over it are taken once a run, at
            its end, where a study's finalists run again on fresh seeds.

    Raises:
        SpecError: If a part is no tuple of tensors, has no rows, or tensors of different lengths.

    >>> import torch
    >>> x, y = torch.randn(100, 20), torch.randint(2, (100,))  # 100 rows
    >>> data = Data(train=(x[:80], y[:80]), val=(x[80:], y[80:]))
    >>> [len(tensor) for tensor in data.train]
    [80, 80]
    """

    train: Batch
    val: Batch
    test: Batch | None = None

    def __post_init__(self) -> None:
        parts = {"train": self.train, "val": self.val}
        if self.test is not None:
            parts["test"] = self.test
        for name, tensors in parts.items():
            if not isinstance(tensors, tuple) or not all(isinstance(t, Tensor) for t in tensors):
                raise SpecError(f"Data({name}=...) must be a tuple of tensors.")
            lengths = [len(tensor) if tensor.ndim else 0 for tensor in tensors]
            if not lengths or len(set(lengths)) > 1 or lengths[0] == 0:
                raise SpecError(
                    f"Data({name}=...) has tensors of {lengths} rows: "
                    "they must share their first dimension and hold at least one row."
                )


@runtime_checkable
class Workload(Protocol):
    """A model, its data, its loss and its metrics.

    A class with these four methods is a workload; it need not inherit from this one. It is
    constructed without arguments, once a worker.

    >>> class Line:
    ...     def model(self):
    ...         return nn.Linear(1, 1)
    ...
    ...     def data(self):
    ...         x = torch.linspace(-1, 1, 100).unsqueeze(1)  # 100 rows of one number
    ...         return Data(train=(x[:80], 2 * x[:80]), val=(x[80:], 2 * x[80:]))
    ...
    ...     def loss(self, model, batch):
    ...         x, y = batch
    ...         return (model(x) - y).square().mean()
    ...
    ...     def metrics(self, model, batch):
    ...         return {"val_loss": self.loss(model, batch)}
    >>> isinstance(Line(), Workload)
    True
    """

    def model(self) -> nn.Module:
        """Returns a new model; its random initialisation is seeded by the caller."""

    def data(self, *args: Any, **kwargs: Any) -> Data:
        """Returns the data, the same on every call.

        It takes nothing, or ``seed``, an int to split the data by: then the same data for the same
        seed. A search asks for one split; where its finalists run again, each fresh seed has a
        split of its own.

        Args:
            args: None; a workload of one's own writes ``data(self)`` or ``data(self, seed)``.
            kwargs: The ``seed``, where it takes one.
        """

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Returns the loss to minimise on a batch of training data, a scalar with a gradient.

        Args:
            model: What :meth:`model` returned, on the device of the trial, in train mode.
            batch: Rows of the training data, on the same device: tensors of shape (rows, …).
        """

    def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Returns means over a batch of validation or test data, scalars by name.

        Args:
            model: As in :meth:`loss`, but in eval mode; gradients are off.
            batch: Rows of the data, as in :meth:`loss`.
        """


def load_workload(import_string: str) -> Workload | Callable[..., Any]:
    """Imports a workload, looking in the working directory first, and constructs it.

    Args:
        import_string: ``module:attribute``, such as ``models.digits:Digits``. A class is
            constructed; an object, or a training loop (a function of a run), is used as it is.

    Returns:
        The workload or the training loop.

    Raises:
        SpecError: If it cannot be imported or constructed, or is neither.
    """
    where = f"study.workload = {import_string!r}"
    return construct_workload(import_attribute(import_string, where), where)


def construct_workload(target: Any, where: str) -> Workload | Callable[..., Any]:
    """Returns a workload, constructed if it is a class.

    Args:
        target: The class, an object of one, or a training loop.
        where: The option or key that names it, for messages.

    Raises:
        SpecError: If it cannot be constructed, or is neither.
    """
    try:
        workload = target() if isinstance(target, type) else target
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise SpecError(
            f"{where}: constructing it failed: {tell_error(error)}. "
            "A workload is constructed without arguments."
        ) from error
    missing = missing_methods(workload)
    if missing and (isinstance(target, type) or not callable(workload)):
        raise SpecError(
            f"{where}: not a workload: it has no {', '.join(missing)}. A workload has the "
            "methods model, data, loss and metrics, or is a function that takes a tuner.Run."
        )
    if missing and not _takes_a_run(workload):
        raise SpecError(
            f"{where}: not a training loop: it cannot be called with a run alone. A training loop "
            "is a function of one argument, def train(run), that takes its optimizer from "
            "run.optimizer(model) and reports to run.report(...)."
        )
    checked: Workload | Callable[..., Any] = workload
    return checked


def _takes_a_run(loop: Callable[..., Any]) -> bool:
    try:
        signature = inspect.signature(loop)
    except (TypeError, ValueError):  # of a callable without one: its call tells
        return True
    try:
        signature.bind(None)
    except TypeError:
        return False
    return True


def redraws_splits(workload: Workload) -> bool:
    """Tells whether a workload splits its data by a seed: whether ``data`` takes ``seed``."""
    try:
        return "seed" in inspect.signature(workload.data).parameters
    except (TypeError, ValueError):  # of a callable without one
        return False


def missing_methods(candidate: Any) -> list[str]:
    """Returns the names of the workload methods that an object or class lacks."""
    return [m for m in ("model", "data", "loss", "metrics") if not hasattr(candidate, m)]
