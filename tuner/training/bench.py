"""A workload on a device: its data placed once, its model built, its metrics measured."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tuner.domain.train import FULL, BatchSize
from tuner.errors import SpecError
from tuner.training.device import autocast, dtype_of
from tuner.training.seeds import derive_seed, seed_torch
from tuner.training.workload import Batch, Data, Workload

_EVALUATION_ROWS = 2048


@dataclass(frozen=True)
class Bench:
    """A workload with its data on a device, shared by all trials of a worker.

    Attributes:
        workload: The workload.
        data: Its data, on the device and in the study's precision.
        device: Where trials train.
        precision: The study's ``train.precision``.
        evaluation_rows: Examples that are evaluated at once, at most.
    """

    workload: Workload
    data: Data
    device: torch.device
    precision: str
    evaluation_rows: int = _EVALUATION_ROWS

    @classmethod
    def prepare(cls, workload: Workload, device: torch.device, precision: str) -> Bench:
        """Loads the data and moves it to the device once.

        Raises:
            SpecError: If the workload returns something else than :class:`Data`, or the device
                cannot compute in this precision.
        """
        dtype = dtype_of(precision, device)
        data = workload.data()
        if not isinstance(data, Data):
            raise SpecError(f"data() returned {type(data).__name__}: return tuner.Data.")

        def place(batch: Batch) -> Batch:
            return tuple(t.to(device, dtype if t.is_floating_point() else t.dtype) for t in batch)

        return cls(workload, Data(train=place(data.train), val=place(data.val)), device, precision)

    @property
    def train_examples(self) -> int:
        """Size of the training set."""
        return len(self.data.train[0])

    def examples_a_step(self, batch_size: BatchSize) -> int:
        """Returns how many examples a batch has.

        Args:
            batch_size: The trial's, which may be ``full``.

        Raises:
            SpecError: If it exceeds the training set.
        """
        size = self.train_examples if batch_size == FULL else batch_size
        if size > self.train_examples:
            raise SpecError(
                f"train.batch_size = {size}: the workload has only {self.train_examples} training "
                "examples; use a smaller batch."
            )
        return size

    def build_model(self, seed: int) -> nn.Module:
        """Returns a new model on the device, initialised from the study's seed."""
        seed_torch(derive_seed(seed, "init"))
        model = self.workload.model()
        if not isinstance(model, nn.Module):
            raise SpecError(f"model() returned {type(model).__name__}: return a torch nn.Module.")
        return model.to(self.device, dtype_of(self.precision, self.device))

    def batch(self, indices: Tensor) -> Batch:
        """Returns some rows of the training data.

        Args:
            indices: Which, int64 of shape (rows,).
        """
        return tuple(tensor.index_select(0, indices) for tensor in self.data.train)

    def chunks(self) -> Iterator[tuple[Batch, float]]:
        """Iterates over the validation data in parts, and what share of it each is."""
        rows = len(self.data.val[0])
        # As few and as equal as can be: a fused evaluation is compiled for every size.
        size = math.ceil(rows / math.ceil(rows / self.evaluation_rows))
        for chunk in zip(*(tensor.split(size) for tensor in self.data.val), strict=True):
            yield chunk, len(chunk[0]) / rows

    def evaluate(
        self, model: nn.Module, on_chunk: Callable[[], object] = lambda: None
    ) -> dict[str, float]:
        """Returns the workload's metrics over the whole validation set, means over examples.

        Args:
            model: The model.
            on_chunk: Called after each part of the validation set.

        Raises:
            SpecError: If ``metrics()`` returns something else than scalars by name.
        """
        model.eval()
        totals: dict[str, Tensor] = {}
        with torch.no_grad(), autocast(self.precision, self.device):
            for chunk, share in self.chunks():
                for name, value in check_metrics(self.workload.metrics(model, chunk)).items():
                    weighted = value.detach().reshape(()).double() * share
                    totals[name] = totals[name] + weighted if name in totals else weighted
                on_chunk()
        model.train()
        values = torch.stack(list(totals.values())).tolist()
        return dict(zip(totals, values, strict=True))


def check_metrics(metrics: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Returns what a workload's ``metrics()`` gave.

    Raises:
        SpecError: If it is something else than scalars by name.
    """
    if not isinstance(metrics, Mapping) or not metrics:
        raise SpecError("metrics() must return a mapping from names to scalar tensors.")
    for name, value in metrics.items():
        if not isinstance(value, Tensor) or value.numel() != 1:
            kind = f"of type {type(value).__name__}"
            given = f"of shape {tuple(value.shape)}" if isinstance(value, Tensor) else kind
            raise SpecError(
                f"metrics()[{name!r}] must be a scalar tensor, but is {given}: return its mean."
            )
    return metrics
