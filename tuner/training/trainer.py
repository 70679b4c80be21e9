"""One trial's model, optimizer, schedule and step: the one definition of what a step is."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from tuner.domain.spec import StudySpec, evaluation_steps
from tuner.domain.trials import TrialConfig
from tuner.errors import SpecError, TunerError, WorkloadError
from tuner.optim import build_optimizer, build_schedule
from tuner.training.device import autocast, dtype_of
from tuner.training.seeds import BatchOrder, derive_seed
from tuner.training.workload import Batch, Data, Workload, load_workload

_EVALUATION_ROWS = 2048
_LOSSES_KEPT = 1024


@dataclass(frozen=True)
class Bench:
    """A workload with its data on a device, shared by all trials of a worker.

    Attributes:
        workload: The workload.
        data: Its data, on the device and in the study's precision.
        device: Where trials train.
        precision: The study's ``train.precision``.
    """

    workload: Workload
    data: Data
    device: torch.device
    precision: str

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

    def build_model(self, seed: int) -> nn.Module:
        """Returns a new model on the device, initialised from the study's seed."""
        torch.manual_seed(derive_seed(seed, "init"))
        model = self.workload.model()
        if not isinstance(model, nn.Module):
            raise SpecError(f"model() returned {type(model).__name__}: return a torch nn.Module.")
        return model.to(self.device, dtype_of(self.precision, self.device))

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
        rows = len(self.data.val[0])
        with torch.no_grad(), autocast(self.precision, self.device):
            for chunk in zip(*(t.split(_EVALUATION_ROWS) for t in self.data.val), strict=True):
                share = len(chunk[0]) / rows
                for name, value in _check_metrics(self.workload.metrics(model, chunk)).items():
                    weighted = value.detach().reshape(()).double() * share
                    totals[name] = totals[name] + weighted if name in totals else weighted
                on_chunk()
        model.train()
        values = torch.stack(list(totals.values())).tolist()
        return dict(zip(totals, values, strict=True))


class Trainer:
    """A trial in training.

    Args:
        bench: The workload on its device.
        spec: The study, resolved.
        config: What this trial trains with.
        seed: The seed of initialisation, data order and dropout.

    Attributes:
        step_number: Steps taken.
        total_steps: Steps of a full trial.
        evaluation_steps: The steps after which it is evaluated.
        evaluated: How many of these evaluations have been reported.

    Raises:
        SpecError: If the batch size exceeds the training set.
        WorkloadError: If the optimizer cannot train this model.
    """

    def __init__(self, bench: Bench, spec: StudySpec, config: TrialConfig, seed: int) -> None:
        if config.batch_size > bench.train_examples:
            raise SpecError(
                f"train.batch_size = {config.batch_size}: the workload has only "
                f"{bench.train_examples} training examples; use a smaller batch."
            )
        self.bench = bench
        self.seed = seed
        self.step_number = 0
        self.evaluated = 0
        self.total_steps = spec.budget.full_steps(bench.train_examples, config.batch_size)
        self.evaluation_steps = evaluation_steps(self.total_steps, spec.budget.evaluations)
        self.model = bench.build_model(seed)
        self.optimizer = build_optimizer(config.optimizer, config.optimizer_values, self.model)
        self.schedule = build_schedule(
            config.schedule, config.schedule_values, self.optimizer, self.total_steps
        )
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        self._order = BatchOrder(bench.train_examples, config.batch_size, seed, bench.device)
        self._grad_clip = spec.train.grad_clip
        self._losses: list[Tensor] = []
        torch.manual_seed(derive_seed(seed, "train"))
        self.model.train()

    def step(self) -> None:
        """Trains one batch; nothing waits for the device."""
        indices = self._order(self.step_number)
        batch = tuple(t.index_select(0, indices) for t in self.bench.data.train)
        with autocast(self.bench.precision, self.bench.device):
            loss = self.bench.workload.loss(self.model, batch)
        self.optimizer.zero_grad()
        loss.backward()
        if self._grad_clip is not None:
            nn.utils.clip_grad_norm_(self._parameters, self._grad_clip)
        self.optimizer.step()
        self.schedule.step()
        self._losses.append(loss.detach())
        self.step_number += 1
        if len(self._losses) > _LOSSES_KEPT:
            self._losses = [self._joined_losses()]

    def collect_losses(self) -> list[float]:
        """Returns the training losses since the last evaluation, waiting for the device once.

        They are kept until :meth:`forget_losses`, so that a checkpoint written before the
        evaluation has been reported still holds them.
        """
        losses: list[float] = self._joined_losses().tolist()
        return losses

    def forget_losses(self) -> None:
        """Starts a new interval, after an evaluation has been reported."""
        self._losses = []

    def _joined_losses(self) -> Tensor:
        return torch.cat([loss.reshape(-1) for loss in self._losses] or [torch.empty(0)])

    def evaluate(self, on_chunk: Callable[[], object] = lambda: None) -> dict[str, float]:
        """Returns the metrics of the model as it is now; see :meth:`Bench.evaluate`."""
        return self.bench.evaluate(self.model, on_chunk)

    def state_dict(self) -> dict[str, Any]:
        """Returns all that continuing needs: model, optimizer, schedule, seed, step, randomness."""
        cuda = self.bench.device.type == "cuda"
        return {
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "schedule": self.schedule.state_dict(),
            "seed": self.seed,
            "step": self.step_number,
            "total_steps": self.total_steps,
            "evaluated": self.evaluated,
            "losses": self._joined_losses(),
            "rng": torch.get_rng_state(),
            "device_rng": torch.cuda.get_rng_state(self.bench.device) if cuda else None,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from what :meth:`state_dict` gave.

        Raises:
            WorkloadError: If the state is of another model, optimizer, seed or length.
        """
        if (state["seed"], state["total_steps"]) != (self.seed, self.total_steps):
            raise WorkloadError("The checkpoint is of a trial with another seed or length.")
        try:
            self.model.load_state_dict(state["model"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.schedule.load_state_dict(state["schedule"])
        except (RuntimeError, ValueError, KeyError) as error:
            raise WorkloadError(f"The checkpoint is of another model: {error}") from error
        self.step_number = int(state["step"])
        self.evaluated = int(state["evaluated"])
        self._losses = [state["losses"].to(self.bench.device)]
        torch.set_rng_state(state["rng"].cpu())
        if state["device_rng"] is not None and self.bench.device.type == "cuda":
            torch.cuda.set_rng_state(state["device_rng"].cpu(), self.bench.device)


def prepare_checked(spec: StudySpec, device: torch.device) -> Bench:
    """Loads a study's workload and sees it run: one forward and backward pass, one evaluation.

    Args:
        spec: The study.
        device: Where.

    Returns:
        The workload with its data on the device.

    Raises:
        SpecError: If the workload cannot be loaded, breaks its contract, or lacks the metric.
        WorkloadError: If its code raises.
    """
    where = f"study.workload = {spec.study.workload!r}"
    workload = load_workload(spec.study.workload)
    try:
        bench = Bench.prepare(workload, device, spec.train.precision)
        probe(bench, spec)
    except SpecError as error:
        raise SpecError(f"{where}: {error}") from error
    except TunerError:
        raise
    except Exception as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise WorkloadError(
            f"{where} does not run: {type(error).__name__}: {error} "
            f"({frame.filename}:{frame.lineno}, in {frame.name})."
        ) from error
    return bench


def probe(bench: Bench, spec: StudySpec) -> dict[str, float]:
    """Runs one forward pass, one backward pass and one evaluation of a workload.

    Args:
        bench: The workload on its device.
        spec: The study it is to train in, resolved.

    Returns:
        The metrics of the untrained model.

    Raises:
        SpecError: If the workload breaks its contract or lacks the study's metric.
    """
    choices = getattr(spec.train.batch_size, "choices", None)
    sizes = choices or [getattr(spec.train.batch_size, "value", 1)]
    largest = max(int(size) for size in sizes)
    if largest > bench.train_examples:
        raise SpecError(
            f"train.batch_size = {largest}: the workload has only {bench.train_examples} "
            "training examples; use a smaller batch."
        )
    model = bench.build_model(spec.search.seed)
    with autocast(bench.precision, bench.device):
        loss = bench.workload.loss(model, tuple(t[:largest] for t in bench.data.train))
    if not isinstance(loss, Tensor) or loss.ndim != 0 or not loss.requires_grad:
        raise SpecError("loss() must return a scalar tensor with a gradient.")
    loss.backward()
    metrics = bench.evaluate(model)
    if spec.study.metric not in metrics:
        raise SpecError(
            f"study.metric = {spec.study.metric!r}: the workload returns "
            f"{', '.join(sorted(metrics))}; name one of these."
        )
    return metrics


def _check_metrics(metrics: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    if not isinstance(metrics, Mapping) or not metrics:
        raise SpecError("metrics() must return a mapping from names to scalar tensors.")
    for name, value in metrics.items():
        if not isinstance(value, Tensor) or value.numel() != 1:
            raise SpecError(f"metrics()[{name!r}] must be a scalar tensor.")
    return metrics
