"""The turns of a training loop: what happens between two iterations, whoever owns the loop."""

from __future__ import annotations

from typing import Any

import torch

from tuner.training.checkpointing import Checkpointing
from tuner.training.evaluations import Evaluations
from tuner.training.optimization import Optimization
from tuner.training.reporting import Interrupted, Reporter
from tuner.training.steps import Steps


class Turns:
    """Takes the turns of a loop: a step begins, and after it the trial is saved or stopped.

    :meth:`Run.steps` takes them for a loop of its own. A trainer that owns the loop takes them
    from its callbacks; it gets them from :meth:`Run.follow`.

    Args:
        steps: The trial's steps.
        optimization: Its optimizers and schedules.
        evaluations: Its evaluations, and how they end the trial.
        checkpointing: Its checkpoints.
        reporter: The worker, or a test, that hears that training goes on.
        device: The device it trains on.
    """

    def __init__(
        self,
        steps: Steps,
        optimization: Optimization,
        evaluations: Evaluations,
        checkpointing: Checkpointing,
        reporter: Reporter,
        device: torch.device,
    ) -> None:
        self._steps = steps
        self._optimization = optimization
        self._evaluations = evaluations
        self._checkpointing = checkpointing
        self._reporter = reporter
        self._device = device

    @property
    def kept(self) -> dict[str, Any] | None:
        """The objects that the trainer saved in the attempt before this one; None at the start."""
        return self._checkpointing.kept

    @property
    def wants_save(self) -> bool:
        """Whether the loop has asked for a checkpoint at the end of this step."""
        return self._checkpointing.requested

    def begin(self) -> None:
        """Begins to count turns, before the first one of this attempt.

        Raises:
            SpecError: If the length of a full trial is not known, or a schedule is missing.
            StaleCheckpointError: If the checkpoint does not fit the models.
            WorkloadError: If a parameter group takes nothing.
        """
        self._optimization.check_groups()
        self._optimization.check_schedules()
        if not self._steps.begun:
            self._checkpointing.restore_training()
        self._steps.begin()
        self._evaluations.timing.begin(self._device)

    def enter(self) -> int | None:
        """Begins a turn.

        Returns:
            The steps taken before it, or None if the trial is at its end.

        Raises:
            Interrupted: If training is to stop here, to go on later.
            Pruned: If the trial is over, and its loop has gone on.
        """
        if self._steps.is_over:
            return None
        if self._evaluations.over is not None:
            raise self._evaluations.over
        return self._steps.enter()

    def leave(self) -> None:
        """Ends a turn: training may be saved here, or be told to stop at the next one."""
        self._evaluations.timing.mark()
        if self._steps.leave():
            # What remains is the loop's return; a checkpoint here would leave it no step to find
            # its value in.
            return
        if self._checkpointing.requested:
            self._checkpointing.requested = False
            self._reporter.save()
        if not self._reporter.advance(self._steps.taken):
            self._evaluations.over = Interrupted()
            self.hold()

    def hold(self) -> None:
        """Asks the trainer to save once more before it stops: afterwards it cannot any longer."""
        if self._checkpointing.keeper is not None and self._checkpointing.resumable:
            self._checkpointing.hold()
