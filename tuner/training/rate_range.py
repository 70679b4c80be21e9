"""The learning-rate range test: a workload trains while its learning rate grows by the step."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.overrides import TorchFunctionMode

from tuner.analysis.rate_range import DivergenceWatch, RateCurve
from tuner.domain.budget import Budget
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.spec import StudySpec
from tuner.domain.trials import decode, default_proposal
from tuner.errors import SpecError, WorkloadError
from tuner.optim.groups import rate_key
from tuner.optim.schedules import initial_rate
from tuner.training.loop import OWN_OPTIMIZER, Ending, TrainingLoop, run_trial
from tuner.training.numbers import to_float
from tuner.training.rehearsal import Rehearsal, explained
from tuner.training.run import Run

MOST_EVALUATIONS = 200
"""Evaluations that a budget allows a trial."""


def measure_rates(
    loop: TrainingLoop,
    spec: StudySpec,
    optimizer: str,
    device: torch.device,
    *,
    low: float,
    high: float,
    steps: int,
    metric: str | None = None,
) -> RateCurve:
    """Trains a workload from its start while the learning rate of its optimizer grows.

    It begins as every trial of the study, with the optimizer's defaults, and ends once all steps
    are taken or the loss has diverged. What the loop does with its schedule is of no account.

    Args:
        loop: The workload as a training loop.
        spec: The study, resolved.
        optimizer: An optimizer of the study.
        device: The device to train on.
        low: The rate of the first step, above 0.
        high: The rate of the last step, above ``low``.
        steps: Steps to take, at least 2.
        metric: The name of a number that the loop logs or reports; left out, it is the loss whose
            ``backward()`` it calls, summed where it calls several a step.

    Returns:
        The losses by rate.

    Raises:
        SpecError: If the optimizer sets its rate itself, or calls a closure for its losses.
        WorkloadError: If the loop raises or does not train with the optimizer, or no loss is heard.
    """
    check_rate(optimizer)
    config = decode(spec, default_proposal(spec, optimizer))
    usual = float(config.optimizer_values[OPTIMIZERS[optimizer].rate])
    rise = _Rise(low, high, steps, usual, late=metric is not None)
    evaluations = 1 if metric is None else min(MOST_EVALUATIONS, steps)
    budget = Budget(trials=1, steps=steps, evaluations=evaluations)
    run = _RisingRun(spec.with_budget(budget), config, device, rise, metric)
    with _Heard(rise.hear) if metric is None else contextlib.nullcontext():
        ending = explained(spec, lambda: run_trial(loop, run).ending)
    rise.end()
    if not rise.begun:
        raise WorkloadError(OWN_OPTIMIZER)
    if not rise.losses:
        raise WorkloadError(_explain_silence(metric))
    diverged = rise.diverged or ending is Ending.DIVERGED
    return RateCurve(optimizer, tuple(rise.rates), tuple(rise.losses), diverged)


def check_rate(optimizer: str) -> None:
    """Checks that a range test can tell something of an optimizer.

    Raises:
        SpecError: If it sets its rate itself, or calls a closure for its losses.
    """
    row = OPTIMIZERS[optimizer]
    if row.rate != "lr":
        raise SpecError(f"{optimizer} sets its learning rate itself: there is no range to test.")
    if row.closure:
        raise SpecError(
            f"{optimizer} computes its loss several times a step, at weights of its own choice: a "
            "range test of it tells nothing. Test another optimizer."
        )


def _explain_silence(metric: str | None) -> str:
    if metric is None:
        return (
            "The training loop never called loss.backward(), so its loss is not known: log it with "
            "run.log(train_loss=loss), and name it: --metric train_loss"
        )
    return (
        f"--metric {metric}: the training loop neither logs nor reports it: call "
        f"run.log({metric}=...) at every step, or leave --metric out."
    )


class _Rise:
    """Raises the learning rate from step to step, and keeps the losses.

    Args:
        low: The rate of the first step.
        high: The rate of the last step.
        steps: Steps to take.
        usual: The rate that the optimizer is built with; its groups keep their ratios to it.
        late: Whether a loss becomes known only after the step that it is of.
    """

    def __init__(self, low: float, high: float, steps: int, usual: float, *, late: bool) -> None:
        self._low, self._steps, self._usual, self._late = low, steps, usual, late
        self._ratio = (high / low) ** (1 / (steps - 1))
        self._lead: torch.optim.Optimizer | None = None
        self._taken = 0
        self._heard: list[float] = []
        self._watch = DivergenceWatch()
        self.rates: list[float] = []
        self.losses: list[float] = []
        self.diverged = False

    @property
    def begun(self) -> bool:
        """Whether an optimizer has stepped."""
        return self._taken > 0

    @property
    def is_over(self) -> bool:
        """Whether there is nothing more to learn."""
        return self.diverged or self._taken >= self._steps

    def hear(self, loss: float) -> None:
        """Takes a loss, or a part of one, of the step at hand."""
        self._heard.append(loss)

    def follow(self, optimizer: torch.optim.Optimizer) -> None:
        """Sets the rates of an optimizer before each of its steps, the first one's step counts."""
        optimizer.register_step_pre_hook(lambda stepped, *_: self._raise(stepped))

    def end(self) -> None:
        """Keeps the loss of the last step, if it has become known since."""
        if self._late and self.begun:
            self._keep(self._taken - 1)

    def _raise(self, optimizer: torch.optim.Optimizer) -> None:
        if self._lead in (None, optimizer):
            self._lead = optimizer
            self.end()
            if not self._late:
                self._keep(self._taken)
            self._taken += 1
        factor = self._rate(self._taken - 1) / self._usual
        for group in optimizer.param_groups:
            key = rate_key(group)
            group[key] = initial_rate(group, key) * factor

    def _rate(self, step: int) -> float:
        return self._low * float(self._ratio ** min(step, self._steps - 1))

    def _keep(self, step: int) -> None:
        heard, self._heard = self._heard, []
        if not heard or self.diverged:
            return
        loss = heard[-1] if self._late else math.fsum(heard)
        self.diverged = self._watch.is_over(loss)
        if math.isfinite(loss):
            self.rates.append(self._rate(step))
            self.losses.append(loss)


class _RisingReporter(Rehearsal):
    """Lets a run train until its range test is over."""

    def __init__(self, rise: _Rise) -> None:
        super().__init__()
        self._rise = rise

    def advance(self, step: int) -> bool:
        """Tells whether the test goes on."""
        return not self._rise.is_over


class _RisingRun(Run):
    """A run whose optimizers are given rising rates, and whose numbers are heard."""

    def __init__(
        self, spec: StudySpec, config: Any, device: torch.device, rise: _Rise, metric: str | None
    ) -> None:
        super().__init__(spec, config, device=device, reporter=_RisingReporter(rise))
        self._rise, self._heard_metric = rise, metric

    def optimizer(self, model: nn.Module, name: str | None = None) -> torch.optim.Optimizer:
        """Returns the trial's optimizer, its rates rising."""
        optimizer = super().optimizer(model, name)
        self._rise.follow(optimizer)
        return optimizer

    def report(self, step: int | None = None, **metrics: float | torch.Tensor) -> None:
        """Reports an evaluation, and hears the test's metric."""
        self._hear(metrics)
        super().report(step, **metrics)

    def log(self, **values: float | torch.Tensor) -> None:
        """Logs numbers, and hears the test's metric."""
        self._hear(values)
        super().log(**values)

    def _hear(self, values: dict[str, float | torch.Tensor]) -> None:
        name = self._heard_metric
        if name is not None and name in values:
            self._rise.hear(to_float(values[name], name))


class _Heard(TorchFunctionMode):
    """Hears each loss that ``loss.backward()`` is called of, as torch lets libraries do."""

    def __init__(self, hear: Callable[[float], None]) -> None:
        super().__init__()
        self._hear = hear

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Calls a function of torch, and hears the loss if it differentiates one."""
        if func is torch.Tensor.backward and args and args[0].numel() == 1:
            self._hear(float(args[0].detach()))
        return func(*args, **(kwargs or {}))
