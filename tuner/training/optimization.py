"""The optimizers and schedules of one trial: built, restored from a checkpoint and described."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import nn

from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialConfig
from tuner.errors import SpecError
from tuner.optim import Schedule, build_optimizer, build_schedule
from tuner.optim.groups import trainable
from tuner.optim.wrapped import unwrap
from tuner.training.checkpoint_state import Snapshot
from tuner.training.networks import Networks
from tuner.training.pace import Pace
from tuner.training.steps import Steps


class Optimization:
    """Builds the optimizers and schedules of a trial.

    Args:
        spec: The study, resolved.
        config: The trial's settings.
        steps: The trial's steps.
        snapshot: The checkpoint that models, optimizers and schedules are restored from.

    Attributes:
        networks: The models, and the names that the loop gives them.
        optimizers: The optimizers, in the order they were built.
        schedules: The schedules, in the order they were built.
    """

    def __init__(
        self, spec: StudySpec, config: TrialConfig, steps: Steps, snapshot: Snapshot
    ) -> None:
        self._spec = spec
        self._config = config
        self._steps = steps
        self._snapshot = snapshot
        self.networks = Networks(spec.network)
        self.optimizers: list[torch.optim.Optimizer] = []
        self.schedules: list[Schedule] = []
        self._paces: list[Pace] = []

    def build_optimizer(self, model: nn.Module, name: str | None) -> torch.optim.Optimizer:
        """Returns an optimizer over a model, both as the checkpoint has them if there is one.

        Args:
            model: The model, on its device.
            name: The name that the loop gives it, or None.

        Raises:
            WorkloadError: If this optimizer cannot train this model, or another model has the
                name.
        """
        optimizer = build_optimizer(
            self._config.optimizer,
            self._config.values_of(name),
            model,
            self._config.groups,
            spare_vectors=self._spec.train.no_decay_on_biases_and_norms,
            total_steps=self._steps.length,
            network=name,
        )
        self.networks.enter(model, name)
        index = len(self.optimizers)
        self._snapshot.restore("models", index, model)
        self._snapshot.restore("optimizers", index, optimizer)
        self.optimizers.append(optimizer)
        return optimizer

    def build_schedule(self, optimizer: torch.optim.Optimizer) -> Schedule:
        """Returns a schedule over an optimizer, as the checkpoint has it if there is one.

        Args:
            optimizer: The optimizer, from :meth:`build_optimizer`, or a trainer's wrapper of it.

        Raises:
            SpecError: If the length of a full trial, or of an epoch that it follows, is not known.
        """
        steps, optimizer = self._steps, unwrap(optimizer, self.optimizers)
        by_epoch = self._spec.train.schedule_by == "epoch"
        if by_epoch and steps.epoch_steps is None:
            raise SpecError(
                'train.schedule_by = "epoch" needs to know an epoch\'s length: use '
                'run.schedule(optimizer, loader), or schedule_by = "step".'
            )
        pace = Pace(partial(steps.of, optimizer), partial(steps.stepped, optimizer))
        schedule = build_schedule(
            self._config.schedule,
            self._config.schedule_values,
            optimizer,
            steps.total,
            clock=pace,
            epoch_steps=steps.epoch_steps if by_epoch else None,
            evaluations=self._spec.budget.evaluations,
            direction=self._spec.study.direction,
            momentum_warmup=self._config.momentum_warmup,
        )
        self._snapshot.restore("schedules", len(self.schedules), schedule)
        self._snapshot.restore("paces", len(self.schedules), pace)
        if optimizer in self.optimizers:
            # A new schedule sets the first step's learning rate; the optimizer has a later one.
            self._snapshot.restore("optimizers", self.optimizers.index(optimizer), optimizer)
        self.schedules.append(schedule)
        self._paces.append(pace)
        return schedule

    def check_groups(self) -> None:
        """Checks, once the optimizers are built, that every group takes a parameter.

        Raises:
            WorkloadError: If no model has a parameter for a group, or no model is the network of a
                table.
        """
        self.networks.check(self._config.groups)

    def check_schedules(self) -> None:
        """Checks that there is a schedule, where a setting has no effect without one.

        Raises:
            SpecError: If there is none.
        """
        if not self.optimizers or self.schedules:
            return
        remedy = "call run.schedule(optimizer), and its step() after every step."
        if any(getattr(o, "frozen", None) for o in self.optimizers):
            raise SpecError(
                f"train.groups: a group with frozen_until is thawed by the schedule: {remedy}"
            )
        if self._config.momentum_warmup:
            raise SpecError(
                f"train.momentum_warmup: the momentum rises with the schedule: {remedy}"
            )

    def observe(self, value: float) -> None:
        """Gives an evaluation's metric to the schedules, some of which follow it."""
        for schedule in self.schedules:
            schedule.observe(value)

    def describe_groups(self) -> list[dict[str, Any]]:
        """Returns the effective settings of every parameter group."""
        return self.networks.describe_groups(self.optimizers)

    def describe(self) -> dict[str, Any]:
        """Returns the unusual properties of models and schedules, by name.

        ``networks`` has the names of the models, if any has one, and ``schedule_calls`` the
        :meth:`Pace.describe` of each schedule, unless all were stepped after each optimizer step.
        """
        calls = [pace.describe() for pace in self._paces]
        closure = OPTIMIZERS[self._config.optimizer].closure
        usual = bool(calls) and all(
            call["optimizer_steps"] == 1 and (closure or call["steps"] == 1) for call in calls
        )
        found: dict[str, Any] = {} if usual else {"schedule_calls": calls}
        if any(self.networks.names):
            found["networks"] = self.networks.names
        return found

    def restore_trained(self) -> None:
        """Makes those parameters require gradients that did when the checkpoint was written."""
        self._snapshot.restore_trained(self.networks.models)

    def state_dict(self, *, kept: bool = False) -> dict[str, Any]:
        """Returns the states of models, optimizers and schedules, in the order they were built.

        Args:
            kept: Whether a trainer keeps them itself, so that only the paces of schedules are left.
        """
        models = [] if kept else self.networks.models
        return {
            "models": [model.state_dict() for model in models],
            "trained": [list(trainable(model)) for model in models],
            "optimizers": [] if kept else [optimizer.state_dict() for optimizer in self.optimizers],
            "schedules": [] if kept else [schedule.state_dict() for schedule in self.schedules],
            "paces": [pace.state_dict() for pace in self._paces],
        }
