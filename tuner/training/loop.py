"""Training loops: a trial is run through one to its ending; a workload class has ours."""

from __future__ import annotations

import contextlib
import math
import numbers
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

import torch
from torch import Tensor, nn

from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.errors import WorkloadError
from tuner.training.device import autocast, is_mixed
from tuner.training.forks import ending_forks
from tuner.training.numbers import to_float
from tuner.training.prepared_workload import Evaluated, PreparedWorkload
from tuner.training.reporting import Diverged, Interrupted, Pruned
from tuner.training.run import Run
from tuner.training.seeds import BatchOrder, derive_seed, seed_torch
from tuner.training.workload import Batch

TrainingLoop = Callable[[Run], Any]
"""A training loop: takes a run, returns the study's metric, or None for the last one reported."""

OWN_OPTIMIZER = (
    "The training loop trains with an optimizer of its own, which no trial sets: use the one that "
    "run.optimizer(model) returns."
)
"""The error text for a loop that does not use its run's optimizer."""

_LOSSES_KEPT = 1024


class Ending(StrEnum):
    """The reason why a trial left its loop."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True)
class TrialResult:
    """The ending of a trial, and the value that its loop returned.

    Attributes:
        ending: The reason it left its loop.
        value: The metric that the loop returned, or None.
        diverged_step: The first step known to be infinite or NaN, or None.
        fault: Why a complete trial has failed all the same, or None.
    """

    ending: Ending
    value: float | None = None
    diverged_step: int | None = None
    fault: str | None = None


def run_trial(loop: TrainingLoop, run: Run) -> TrialResult:
    """Trains a trial from where it stands to its end.

    Args:
        loop: The training loop.
        run: The trial; an interrupted one can be continued from its ``state_dict()``.

    Returns:
        How it ended.

    Raises:
        WorkloadError: If the loop returns something else than a number.
    """
    try:
        with ending_forks():
            returned = loop(run)
        value = _to_value(returned, run.metric)
        if value is None:
            value = run.evaluations.late_value
        if run.evaluations.over is not None:
            # The loop has caught what was to end it; it is over all the same.
            raise run.evaluations.over
        if value is not None:
            run.evaluations.check_measured()
        if value is not None and not math.isfinite(value):
            run.evaluations.diverge(run.taken)
    except Diverged as ending:
        return TrialResult(Ending.DIVERGED, diverged_step=ending.step)
    except Pruned:
        return TrialResult(Ending.PRUNED)
    except Interrupted:
        return TrialResult(Ending.INTERRUPTED)
    return TrialResult(Ending.COMPLETE, value)


@dataclass(frozen=True)
class WorkloadLoop:
    """The training loop of a workload class.

    Attributes:
        prepared: The workload on its device.
    """

    prepared: PreparedWorkload

    def __call__(self, run: Run) -> None:
        """Trains a trial."""
        train_workload(run, self.prepared)


def train_workload(run: Run, prepared: PreparedWorkload) -> None:
    """Trains a trial of a workload class, with an evaluation wherever one is due.

    Args:
        run: The trial.
        prepared: The workload on its device.

    Raises:
        SpecError: If the batch size exceeds the training set.
        WorkloadError: If the optimizer cannot train this model.
    """
    if prepared.split_seed is not None:
        prepared = prepared.on_split(run.split_seed)
    run.measure(examples=prepared.train_examples)
    run.measure(prepared.train_examples // prepared.examples_a_step(run.batch_size))
    takes = OPTIMIZERS[run.config.optimizer].takes
    model = prepared.build_model(run.seed, tells_sparse=takes == "sparse")
    optimizer = run.optimizer(model)
    schedule = run.schedule(optimizer)
    step = Step(run, prepared, model, optimizer)
    losses = Losses(run.device)
    run.checkpoint(losses=losses)
    order = BatchOrder(prepared.train_examples, run.batch_size, run.seed, run.device)
    seed_torch(derive_seed(run.seed, "train"))
    parts = Parts(prepared, order, run.train.accumulate)

    def evaluate(of: Evaluated) -> dict[str, float]:
        with run.evaluation(parts, forward=step.compute) as alive:
            return prepared.evaluate(model, alive, of)

    with _testing(run, prepared, evaluate):
        for _ in run.steps():
            losses.add(step(prepared.batch(order(run.turns))))
            schedule.step()
            if run.due():
                _check_losses(run, losses)
                run.report(None, **evaluate("val"))
                losses.forget()
    run.compare_average(
        lambda: prepared.evaluate(model, run.alive)[run.metric], parts, forward=step.compute
    )


@contextlib.contextmanager
def _testing(
    run: Run, prepared: PreparedWorkload, evaluate: Callable[[Evaluated], dict[str, float]]
) -> Iterator[None]:
    """Takes the metrics over test data once training ends in the block, if the run confirms."""
    tests = run.is_confirming and prepared.has_test
    try:
        yield
    except Pruned as ending:
        # One that has reached the study's target ends so, and is complete.
        if tests and not isinstance(ending, Diverged):
            run.report_test(**evaluate("test"))
        raise
    if tests:
        run.report_test(**evaluate("test"))


def _check_losses(run: Run, losses: Losses) -> None:
    """Logs the mean training loss, and ends the trial if a loss is infinite or NaN."""
    history = losses.read()
    bad = next((i for i, loss in enumerate(history) if not math.isfinite(loss)), None)
    if bad is not None:
        # The losses end with this step's; a step that cost several counts as its last.
        run.evaluations.diverge(run.taken - (len(history) - 1 - bad))
    run.log(train_loss=math.fsum(history) / len(history))


class Step:
    """Trains a model on one batch a call, without waiting for the device.

    Args:
        run: The trial.
        prepared: The workload on its device.
        model: The model.
        optimizer: Its optimizer.
    """

    def __init__(
        self,
        run: Run,
        prepared: PreparedWorkload,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
    ) -> None:
        self._prepared = prepared
        self._model = model
        self._optimizer = optimizer
        self._precision = run.train.precision
        self._is_mixed = is_mixed(self._precision)
        self._grad_clip = run.train.grad_clip
        self._accumulate = run.train.accumulate
        self._repeats = OPTIMIZERS[run.config.optimizer].closure

    def __call__(self, batch: Batch) -> Tensor:
        """Returns the loss before the step, a scalar."""
        if not self._repeats:
            loss = self._differentiate(batch)
            self._optimizer.step()
            return loss
        first: Tensor = self._optimizer.step(lambda: self._differentiate(batch))  # type: ignore[arg-type, return-value, assignment]
        return first.detach()

    def compute(self, batch: Batch) -> Tensor:
        """Returns the loss of a batch, or of a part of one."""
        if not self._is_mixed:
            return self._prepared.loss(self._model, batch)
        with autocast(self._precision, self._prepared.device):
            return self._prepared.loss(self._model, batch)

    def _differentiate(self, batch: Batch) -> Tensor:
        """Puts the gradients of a batch into the parameters, and returns its loss."""
        # Its zero_grad() does the same, but opens a profiler's record at every step.
        for group in self._optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        if self._accumulate == 1:
            loss = self.compute(batch)
            loss.backward()
        else:
            loss = self._accumulate_parts(batch)
        if self._grad_clip is not None:
            groups = self._optimizer.param_groups
            nn.utils.clip_grad_norm_([p for g in groups for p in g["params"]], self._grad_clip)
        return loss.detach()

    def _accumulate_parts(self, batch: Batch) -> Tensor:
        losses = []
        for part, share in split(batch, self._accumulate):
            loss = self.compute(part) if share == 1 else share * self.compute(part)
            loss.backward()
            losses.append(loss.detach())
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()


def split(batch: Batch, parts: int) -> Iterator[tuple[Batch, float]]:
    """Yields a batch in parts, each with its share of the examples; none is empty.

    Args:
        batch: The batch.
        parts: The number of parts, at most.

    >>> [(part[0].tolist(), share) for part, share in split((torch.arange(4),), 3)]
    [([0, 1], 0.5), ([2], 0.25), ([3], 0.25)]
    """
    if parts == 1:
        yield batch, 1.0
        return
    rows = len(batch[0])
    pieces = (tensor.tensor_split(min(parts, rows)) for tensor in batch)
    for part in zip(*pieces, strict=True):
        yield part, len(part[0]) / rows


class Parts:
    """Iterates over the batches of the first epoch, in the parts that steps compute them in.

    Args:
        prepared: The workload on its device.
        order: The indices of the examples of each step.
        accumulate: Parts a batch is computed in.
    """

    def __init__(self, prepared: PreparedWorkload, order: BatchOrder, accumulate: int) -> None:
        self._prepared = prepared
        self._order = order
        self._accumulate = accumulate

    def __iter__(self) -> Iterator[Batch]:
        for turn in range(self._order.steps_per_epoch):
            for part, _ in split(self._prepared.batch(self._order(turn)), self._accumulate):
                yield part


class Losses:
    """Keeps the training losses since the last evaluation on the device until they are read.

    Args:
        device: The device.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._joined = torch.empty(0, device=device)
        self._parts: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        """Adds a step's loss, a scalar."""
        self._parts.append(loss)
        if len(self._parts) > _LOSSES_KEPT:
            self._join()

    def read(self) -> list[float]:
        """Returns the losses, one a step, waiting for the device once."""
        losses: list[float] = self._join().tolist()
        return losses

    def forget(self) -> None:
        """Removes all losses, for the steps up to the next evaluation."""
        self._joined, self._parts = self._joined[:0], []

    def state_dict(self) -> dict[str, Tensor]:
        """Returns the losses for a checkpoint."""
        return {"losses": self._join()}

    def load_state_dict(self, state: dict[str, Tensor]) -> None:
        """Continues from a :meth:`state_dict`."""
        self._joined, self._parts = state["losses"].to(self._device), []

    def _join(self) -> Tensor:
        if self._parts:
            self._joined = torch.cat([self._joined, torch.stack(self._parts).reshape(-1)])
            self._parts = []
        return self._joined


def _to_value(returned: Any, metric: str) -> float | None:
    if returned is None:
        return None
    shape = getattr(returned, "shape", None)
    if isinstance(returned, numbers.Real) or (shape is not None and math.prod(shape) == 1):
        return to_float(returned, metric)
    given = f"{returned!r:.80}" if shape is None else f"{metric} of shape {tuple(shape)}"
    raise WorkloadError(
        f"The training loop returned {given}: return the study's metric as a number, such as its "
        "mean, or nothing to have the last one reported count."
    )
