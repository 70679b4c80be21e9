"""A workload on a device: data placed once, models built, losses and metrics computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tuner.domain.train import FULL, BatchSize
from tuner.errors import SpecError
from tuner.training.device import autocast, cast, dtype_of
from tuner.training.forks import leave_if_forked
from tuner.training.module_modes import begin_training, evaluating
from tuner.training.seeds import derive_seed, seed_torch, seeded, undisturbed
from tuner.training.workload import Batch, Data, Workload, redraws_splits

Evaluated = Literal["val", "test"]
"""The data that metrics are taken over."""

_EVALUATION_ROWS = 2048
_FEW_ROWS = 16


@dataclass(frozen=True)
class PreparedWorkload:
    """Holds a workload and its data on a device, for all trials of a worker.

    Attributes:
        workload: The workload.
        data: Its data, on the device and in the study's precision; test data stays as it was given
            until it is evaluated.
        device: The device that trials train on.
        precision: The study's ``train.precision``.
        evaluation_rows: The most examples that are evaluated at once.
        split_seed: The seed that the data is split by, or None if the workload takes none.
    """

    workload: Workload
    data: Data
    device: torch.device
    precision: str
    evaluation_rows: int = _EVALUATION_ROWS
    split_seed: int | None = None
    # The last of the other splits: data may take much of the device.
    _other: dict[int, PreparedWorkload] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def prepare(
        cls, workload: Workload, device: torch.device, precision: str, split_seed: int = 0
    ) -> PreparedWorkload:
        """Returns a workload with its data loaded and moved to a device.

        Args:
            workload: The workload.
            device: The device.
            precision: The study's ``train.precision``.
            split_seed: The seed to split the data by, if the workload takes one.

        Raises:
            SpecError: If the workload returns something else than :class:`Data`, or the device
                cannot compute in this precision.
        """
        dtype = dtype_of(precision, device)
        seed = split_seed if redraws_splits(workload) else None
        if seed is None:
            data = workload.data()
        else:
            # Also if it draws from generators that all share, a split is that of its seed.
            with seeded(seed, device):
                data = workload.data(seed=seed)
        leave_if_forked()
        if not isinstance(data, Data):
            raise SpecError(f"data() returned {type(data).__name__}: return tuner.Data.")
        train, val = (_place(part, dtype, device) for part in (data.train, data.val))
        return cls(workload, Data(train, val, data.test), device, precision, split_seed=seed)

    def on_split(self, seed: int) -> PreparedWorkload:
        """Returns the workload with its data split by a seed; itself if it takes none.

        The last other split is kept, since finalists train on it one after the other.

        Args:
            seed: The seed.

        Raises:
            SpecError: As :meth:`prepare` does.
        """
        if self.split_seed is None or self.split_seed == seed:
            return self
        if seed not in self._other:
            self._other.clear()  # before another takes its place on the device
            new = self.prepare(self.workload, self.device, self.precision, seed)
            self._other[seed] = replace(self, data=new.data, split_seed=seed)
        return self._other[seed]

    @property
    def train_examples(self) -> int:
        """Size of the training set."""
        return len(self.data.train[0])

    def examples_a_step(self, batch_size: BatchSize) -> int:
        """Returns the number of examples in a batch.

        Args:
            batch_size: The trial's batch size, which may be ``full``.

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

    def build_model(self, seed: int, *, tells_sparse: bool = False) -> nn.Module:
        """Returns a new model on the device, initialised from the study's seed, ready to train.

        A few examples have gone through lazy modules, which is part of their initialisation.

        Args:
            seed: The study's seed.
            tells_sparse: Whether parameters with sparse gradients start with an empty sparse one.

        Raises:
            SpecError: If ``model()`` returns something else, or leaves open what trains.
        """
        seed_torch(derive_seed(seed, "init"))
        model = self.workload.model()
        leave_if_forked()
        if not isinstance(model, nn.Module):
            raise SpecError(f"model() returned {type(model).__name__}: return a torch nn.Module.")
        dtype = dtype_of(self.precision, self.device)
        model = begin_training(model).to(self.device)
        # As its to(dtype) does, which would take the imaginary part from complex numbers.
        model._apply(lambda tensor: cast(tensor, dtype))  # noqa: SLF001
        if any(is_lazy(tensor) for tensor in (*model.parameters(), *model.buffers())):
            self._materialise(model)
        if tells_sparse:
            self._tell_sparse(model, seed)
        return model

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Returns the workload's loss of a model on a batch."""
        loss = self.workload.loss(model, batch)
        leave_if_forked()
        return loss

    def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Returns the workload's metrics of a model on a batch."""
        metrics = self.workload.metrics(model, batch)
        leave_if_forked()
        return metrics

    def _materialise(self, model: nn.Module) -> None:
        """Gives lazy modules their shapes by one forward pass that changes nothing else."""
        with evaluating(model), torch.no_grad(), autocast(self.precision, self.device):
            self.loss(model, self._few())

    def _tell_sparse(self, model: nn.Module, seed: int) -> None:
        """Gives parameters an empty sparse gradient where those of a model like it are sparse."""
        with undisturbed(self.device):
            other = self.build_model(seed)
            with autocast(self.precision, self.device):
                loss = self.loss(other, self._few())
            loss.backward()
        for parameter, tried in zip(model.parameters(), other.parameters(), strict=True):
            if tried.grad is not None and tried.grad.is_sparse:
                parameter.grad = torch.zeros_like(tried.grad)

    def _few(self) -> Batch:
        return tuple(tensor[:_FEW_ROWS] for tensor in self.data.train)

    def batch(self, indices: Tensor) -> Batch:
        """Returns some rows of the training data.

        Args:
            indices: The indices of the rows, int64 of shape (rows,).
        """
        return tuple(tensor.index_select(0, indices) for tensor in self.data.train)

    @property
    def has_test(self) -> bool:
        """Whether there is test data."""
        return self.data.test is not None

    def chunks(self, of: Evaluated = "val") -> Iterator[tuple[Batch, float]]:
        """Yields data to evaluate in parts, each with its share of the examples, in (0, 1].

        Args:
            of: Which data: ``val``, or ``test`` where there is some.
        """
        data = self.data.val if of == "val" else self.data.test or ()
        rows = len(data[0])
        # As few and as equal as can be: a fused evaluation is compiled for every size.
        size = math.ceil(rows / math.ceil(rows / self.evaluation_rows))
        dtype = dtype_of(self.precision, self.device)
        for chunk in zip(*(tensor.split(size) for tensor in data), strict=True):
            yield _place(chunk, dtype, self.device), len(chunk[0]) / rows

    def evaluate(
        self,
        model: nn.Module,
        on_chunk: Callable[[], object] = lambda: None,
        of: Evaluated = "val",
    ) -> dict[str, float]:
        """Returns the workload's metrics over all validation or test data, means over examples.

        Args:
            model: The model.
            on_chunk: Called after each part of the data.
            of: Which data, as in :meth:`chunks`.

        Raises:
            SpecError: If ``metrics()`` returns something else than scalars by name.
        """
        totals: dict[str, Tensor] = {}
        with evaluating(model), torch.no_grad(), autocast(self.precision, self.device):
            for chunk, share in self.chunks(of):
                for name, value in check_metrics(self.metrics(model, chunk)).items():
                    weighted = value.detach().reshape(()).double() * share
                    totals[name] = totals[name] + weighted if name in totals else weighted
                on_chunk()
        values = torch.stack(list(totals.values())).tolist()
        return dict(zip(totals, values, strict=True))


def _place(batch: Batch, dtype: torch.dtype, device: torch.device) -> Batch:
    return tuple(cast(tensor, dtype).to(device) for tensor in batch)


def check_metrics(metrics: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """Returns a workload's metrics unchanged, once they are checked.

    Args:
        metrics: The return value of ``metrics()``.

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
