"""The averages of a trial's models: updated as it trains, and used where it is evaluated."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from tuner.domain.trials import TrialConfig
from tuner.errors import WorkloadError
from tuner.optim.averages import Average, build_average
from tuner.optim.eval_mode import evaluation_mode
from tuner.training.module_modes import Modes, training_norms
from tuner.training.seeds import derive_seed, seeded
from tuner.training.steps import Steps

Forward = Callable[[Any], object]
"""Passes a batch through a loop's models; the result is ignored."""


class Averaging:
    """Holds the averages of a trial's models, if it averages any.

    Args:
        config: The trial's settings.
        steps: Its steps.
        seed: The study's seed.
        device: The device it trains on.

    Attributes:
        averages: The averages, one a model.
    """

    def __init__(self, config: TrialConfig, steps: Steps, seed: int, device: torch.device) -> None:
        self._config = config
        self._steps = steps
        self._seed = seed
        self._device = device
        self._models: list[nn.Module] = []
        self._modes: list[Modes] = []
        self._optimizers: list[torch.optim.Optimizer] = []
        self._applied_at: int | None = None
        self.averages: list[Average] = []

    def follow(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> Average | None:
        """Averages a model's weights, as an optimizer moves them.

        Returns:
            The average, or None where the trial averages nothing or has one of this model.
        """
        self._optimizers.append(optimizer)
        if any(model is known for known in self._models):
            return None
        self._models.append(model)
        average = build_average(self._config.average, self._config.average_values, model)
        if average is not None:
            self.averages.append(average)
            modes = Modes(model)
            self._modes.append(modes)

            def follow(*_: object) -> None:
                average.follow(self._steps.of(optimizer), self._steps.total)
                modes.note()

            optimizer.register_step_post_hook(follow)
        return average

    @property
    def begun(self) -> bool:
        """Whether there is an average yet."""
        return any(average.count for average in self.averages)

    @contextlib.contextmanager
    def applied(
        self,
        batches: Iterable[Any] | None,
        forward: Forward | None,
        alive: Callable[[], object],
        *,
        weight: float = 1.0,
    ) -> Iterator[None]:
        """Puts the weights to evaluate into the models, and afterwards those that train.

        The former are their averages once there are some, or the weights that a schedule-free
        optimizer evaluates.

        Args:
            batches: Training data for the statistics of BatchNorm.
            forward: Passes a batch through the models.
            alive: Called after each batch.
            weight: Where on the line from the models' own weights (0) to the averages (1).

        Raises:
            WorkloadError: If a model has BatchNorm and there are no batches.
        """
        self._applied_at = self._steps.taken
        with contextlib.ExitStack() as stack:
            stack.enter_context(evaluation_mode(self._optimizers))
            # Backwards they are put back, so that models may share weights.
            for average in self.averages:
                if average.count:
                    stack.enter_context(average.applied(weight))
            if self.begun:
                self._refresh_norms(batches, forward, alive)
            yield

    def check_applied(self, taken: int | None = None) -> None:
        """Checks that the metric was measured with the averages in the models.

        Args:
            taken: The steps after which it was measured; left out, after any.

        Raises:
            WorkloadError: If it was measured without them.
        """
        if self.begun and (self._applied_at is None or taken not in (None, self._applied_at)):
            raise WorkloadError(
                f"This trial averages its weights (average = {self._config.average!r}), but the "
                "training loop measured its metric without them: compute it within 'with "
                'run.evaluation():\', or leave average out of [train], or set it to "none".'
            )

    def _refresh_norms(
        self, batches: Iterable[Any] | None, forward: Forward | None, alive: Callable[[], object]
    ) -> None:
        """Measures the statistics of BatchNorm anew, for the weights the models hold now.

        It is what torch's update_bn does, but norms that were in eval mode when the weights were
        trained, as frozen ones are, keep theirs.
        """
        before = [Modes(model) for model in self._models]
        try:
            for modes in self._modes:
                modes.put_back()
            if norms := [norm for model in self._models for norm in training_norms(model).values()]:
                self._measure_norms(norms, batches, forward or self._pass_inputs, alive)
        finally:
            for modes in before:
                modes.put_back()

    def _measure_norms(
        self,
        norms: list[_BatchNorm],
        batches: Iterable[Any] | None,
        forward: Forward,
        alive: Callable[[], object],
    ) -> None:
        if batches is None:
            raise WorkloadError(
                "The model has BatchNorm, and the statistics in it are not those of its averaged "
                "weights: hand the evaluation batches of training data to measure them by, with "
                "'with run.evaluation(loader):'."
            )
        momenta, passed = [norm.momentum for norm in norms], False
        try:
            with seeded(derive_seed(self._seed, "norms"), self._device), torch.no_grad():
                for norm in norms:
                    norm.reset_running_stats()
                    norm.momentum = None  # the mean of all batches
                for batch in batches:
                    forward(batch)
                    passed = True
                    alive()
        finally:
            for norm, momentum in zip(norms, momenta, strict=True):
                norm.momentum = momentum
        if not passed:
            raise WorkloadError(
                "run.evaluation() was given no batches to measure the statistics of BatchNorm by: "
                "hand it a loader, which can be gone through again and again."
            )

    def _pass_inputs(self, batch: Any) -> object:
        """Passes the first tensor of a batch through the model, as torch's update_bn does."""
        inputs = batch[0] if isinstance(batch, list | tuple) else batch
        if len(self._models) != 1 or not isinstance(inputs, Tensor):
            raise WorkloadError(
                f"run.evaluation() does not know how a {type(batch).__name__} goes through "
                f"{'the model' if len(self._models) == 1 else 'several models'}: tell it, with "
                "'with run.evaluation(loader, forward=lambda batch: model(batch[...])):'."
            )
        return self._models[0](inputs.to(self._device))
