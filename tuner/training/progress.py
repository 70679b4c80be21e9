"""How far a trial is, as its loop and whoever follows it may ask."""

from __future__ import annotations

from tuner.training.steps import Steps


class Progress:
    """The counts of a trial's steps.

    Args:
        steps: The steps.
    """

    def __init__(self, steps: Steps) -> None:
        self._steps = steps

    @property
    def batch_size(self) -> int:
        """Examples a step.

        Raises:
            SpecError: If batches are full, and ``run.measure`` has not been told of how many
                examples.
        """
        return self._steps.batch_size

    @property
    def taken(self) -> int:
        """Steps taken, the present one included; without :meth:`steps`, those of an optimizer."""
        return self._steps.taken

    @property
    def turns(self) -> int:
        """Turns of the loop that are over: steps, but for optimizers with closures."""
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
