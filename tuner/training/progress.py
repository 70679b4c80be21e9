"""The progress of a trial: its steps, for the loop and the worker to read."""

from __future__ import annotations

from typing import cast

from tuner.domain.train import Train
from tuner.errors import WorkloadError
from tuner.training.settings import APPLIED_BY_LOOPS, Settings
from tuner.training.steps import Steps


class Progress:
    """The counts of a trial's steps.

    Args:
        steps: The steps.
        train: How every trial trains.

    Attributes:
        train: How to train: the ``[train]`` table, for the loop to apply.
    """

    def __init__(self, steps: Steps, train: Train) -> None:
        self._steps = steps
        self._unread = set(APPLIED_BY_LOOPS)
        self.train = cast("Train", Settings(train, self._unread))

    @property
    def batch_size(self) -> int:
        """Examples a step.

        Raises:
            SpecError: If the batch is the full training set, and ``run.measure`` has not been
                told how many examples that is.
        """
        self._unread.discard("batch_size")
        return self._steps.batch_size

    @property
    def taken(self) -> int:
        """Steps taken, this one included; without :meth:`steps`, the steps of the optimizer."""
        return self._steps.taken

    @property
    def trained(self) -> int:
        """Steps of a full trial that have been trained, as the loop counts them."""
        return self._steps.trained

    @property
    def turns(self) -> int:
        """Finished iterations of the loop: equals steps, except for optimizers with closures."""
        return self._steps.turns

    @property
    def length(self) -> int | None:
        """Steps of a full trial, or None while they are not known."""
        return self._steps.length

    @property
    def total_steps(self) -> int:
        """Steps of a full trial.

        Raises:
            SpecError: If the budget counts epochs or examples, and no epoch's length is known.
        """
        return self._steps.total

    @property
    def epoch_steps(self) -> int | None:
        """Steps of an epoch, or None if it is not known."""
        return self._steps.epoch_steps

    def stop(self, why: str) -> None:
        """Ends the trial early on purpose; it is ranked with the full ones.

        Call ``break`` or ``return`` after it; a loop over :meth:`Run.steps` ends by itself after
        this step.

        Args:
            why: The reason, which the report shows, such as ``"no gain for 5 evaluations"``.

        Raises:
            WorkloadError: If it is empty.
        """
        if not isinstance(why, str) or not why.strip():
            raise WorkloadError(
                f"run.stop was given {why!r}: say in a few words why the trial ends early, such "
                'as run.stop("no gain for 5 evaluations").'
            )
        self._steps.stopped = why.strip()[:_LONGEST_REASON]


_LONGEST_REASON = 200
