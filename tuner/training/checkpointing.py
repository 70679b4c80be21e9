"""The checkpoints of one trial: the state of all its parts, written and restored."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import nn

from tuner.domain.trials import TrialConfig
from tuner.errors import WorkloadError
from tuner.training.checkpoint_state import Snapshot, describe
from tuner.training.evaluations import Evaluations
from tuner.training.optimization import Optimization
from tuner.training.reporting import StaleCheckpointError
from tuner.training.seeds import random_state
from tuner.training.steps import Steps
from tuner.training.suggestions import Suggestions


class Keeper(Protocol):
    """A trainer that owns the loop, and has checkpoints of its own."""

    @property
    def ready(self) -> bool:
        """Whether it can save now, between two turns."""

    def save(self) -> dict[str, Any]:
        """Returns models, optimizers, schedules, randomness and its own state, to continue from.

        They are tensors, numbers, text and containers of them, as :func:`save_checkpoint` takes
        them. Randomness is its own affair since only it knows what was drawn ahead of the step.
        Of several ranks all save together, and each later gets what rank 0 has returned, with the
        entries of its own in their place.
        """


@dataclass
class Checkpointing:
    """Restores the parts of a trial from a checkpoint, and collects their state for the next.

    Attributes:
        snapshot: The checkpoint that the trial continues from, which may be empty.
        config: The trial's settings.
        seed: The study's seed.
        device: The device it trains on.
        steps: Its steps.
        suggestions: The values of its loop's own hyperparameters.
        optimization: Its optimizers and schedules.
        evaluations: Its evaluations, and the averages of its models.
        requested: Whether the loop has asked for a checkpoint at the end of this step.
        keeper: The trainer that owns the loop, if any.
        kept_elsewhere: Whether another process, which trains, keeps a checkpoint of its own.
    """

    snapshot: Snapshot
    config: TrialConfig
    seed: int
    device: torch.device
    steps: Steps
    suggestions: Suggestions
    optimization: Optimization
    evaluations: Evaluations
    requested: bool = False
    keeper: Keeper | None = None
    kept_elsewhere: bool = False
    _objects: dict[str, Any] = field(default_factory=dict)
    _held: dict[str, Any] | None = None

    def restore_counts(self) -> None:
        """Restores all that does not wait for an object that the loop builds.

        Raises:
            StaleCheckpointError: If the checkpoint is of another trial.
        """
        snapshot = self.snapshot
        if snapshot:
            self.check_length()
            self.steps.load_state_dict(snapshot["steps"])
            snapshot.check_evaluated(self.steps)
            self.evaluations.restore(snapshot["evaluated"], snapshot["timing"], snapshot["test"])
            self.suggestions.own |= snapshot["own"]

    def check_length(self) -> None:
        """Checks that the checkpoint is of this trial and, once that is known, of its length.

        Raises:
            StaleCheckpointError: If it is not.
        """
        self.snapshot.check(self.config, self.seed, self.steps.length)

    def follow(self, model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        """Averages a model's weights where the trial does, from the average in the checkpoint on.

        Args:
            model: The model.
            optimizer: The optimizer that moves its weights.
        """
        averaging = self.evaluations.averaging
        average = averaging.follow(model, optimizer)
        if average is not None:
            self.snapshot.restore("averages", len(averaging.averages) - 1, average)

    def add(self, objects: Mapping[str, Any]) -> None:
        """Includes objects in the checkpoints, and restores each that the last one has.

        Args:
            objects: By name, objects with ``state_dict`` and ``load_state_dict``.

        Raises:
            WorkloadError: If an object has no state to keep.
        """
        for name, target in objects.items():
            if not (hasattr(target, "state_dict") and hasattr(target, "load_state_dict")):
                raise WorkloadError(
                    f"run.checkpoint was given {name}, a {type(target).__name__}: what it keeps "
                    "needs state_dict() and load_state_dict(). Keep a plain value in a class "
                    "that has both."
                )
            self._objects[name] = target
            self.snapshot.restore_object(name, target)

    @property
    def kept(self) -> dict[str, Any] | None:
        """The objects that a trainer saved in the earlier attempt, by name, or None."""
        kept: dict[str, Any] | None = self.snapshot["kept"] if self.snapshot else None
        return kept

    def keep_by(self, keeper: Keeper) -> None:
        """Leaves models, optimizers and schedules to a trainer's own checkpoint.

        Raises:
            StaleCheckpointError: If the trial was saved without one.
        """
        if self.snapshot and self.kept is None:
            raise StaleCheckpointError("The checkpoint is of a loop that no trainer owned.")
        self.keeper = keeper

    def restore_training(self) -> None:
        """Restores which parameters train, and every source of randomness, before the first step.

        Raises:
            StaleCheckpointError: If the checkpoint does not fit the models.
        """
        if self.keeper is not None:
            return
        if self.kept is not None:
            raise StaleCheckpointError("The checkpoint is of a loop that a trainer owned.")
        self.optimization.restore_trained()
        self.snapshot.restore_randomness(self.device)

    @property
    def resumable(self) -> bool:
        """Whether a trial can go on from a state written now: not in a step or at the end."""
        if self._held is not None:
            return True
        if self.keeper is not None and not self.keeper.ready:
            return False
        steps = self.steps
        within = steps.inside or (steps.begun and steps.is_over)
        kept = self.kept_elsewhere or bool(self.optimization.optimizers)
        return steps.begun and not within and kept

    @property
    def stepped(self) -> bool:
        """Whether any optimizer has stepped, in this attempt or an earlier one."""
        before = bool(self.snapshot) and bool(self.snapshot["stepped"])
        return before or self.steps.stepped() > 0 or self.steps.elsewhere

    def state_dict(self) -> dict[str, Any]:
        """Returns everything needed to continue later, between two steps."""
        if self._held is not None:
            return self._held
        averages = self.evaluations.averaging.averages
        kept = None if self.keeper is None else self.keeper.save()
        return self.optimization.state_dict(kept=kept is not None) | {
            "kept": kept,
            "averages": [average.state_dict() for average in averages],
            "objects": {name: target.state_dict() for name, target in self._objects.items()},
            "config": describe(self.config),
            "own": self.suggestions.own,
            "seed": self.seed,
            "steps": self.steps.state_dict(),
            "stepped": self.stepped,
            "evaluated": self.evaluations.reported,
            "rng": random_state(self.device),
            "timing": self.evaluations.timing.state_dict(),
            "test": self.evaluations.test,
        }

    def hold(self) -> None:
        """Takes the state now, for whoever asks for it later: a trainer cannot give it then."""
        self._held = self.state_dict()
