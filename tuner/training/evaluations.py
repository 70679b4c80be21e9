"""How a trial's models are measured: as they are, or as the average of what they have been."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from tuner.training.averaging import Averaging, Forward
from tuner.training.reporting import Reporter
from tuner.training.timing import Timing

PLACES = tuple(point / 6 for point in range(7))
"""Where the line from the last weights (0) to their average (1) is measured."""


class Evaluations:
    """Where a trial is measured, and by which weights.

    Args:
        averaging: The averages of its models.
        reporter: Whom to tell that it lives.

    Attributes:
        timing: Seconds spent, over all attempts.
        average_line: The study's metric on the line from the last weights (0) to their average
            (1), once :meth:`compare_average` has measured it.
    """

    def __init__(self, averaging: Averaging, reporter: Reporter) -> None:
        self._averaging = averaging
        self._reporter = reporter
        self.timing = Timing()
        self.average_line: list[tuple[float, float]] = []
        self._evaluated = 0

    @property
    def evaluated(self) -> int:
        """How many of the budgeted evaluations have been reported."""
        return self._evaluated

    @contextlib.contextmanager
    def evaluation(
        self, batches: Iterable[Any] | None = None, *, forward: Forward | None = None
    ) -> Iterator[Callable[[], object]]:
        """Has the models be what is evaluated, and counts the time within as evaluation.

        Where the trial averages its weights, the models hold the averages within, from where
        they begin; afterwards they are as they were, buffers included.

        Args:
            batches: Training data, such as a DataLoader, gone through to measure the statistics
                of BatchNorm of the averaged weights; without BatchNorm not needed. Not the very
                loader of :meth:`steps` where that has persistent workers.
            forward: Passes a batch through the models; left out, what is first in a batch goes
                through the one model.

        Yields:
            A function to call now and then in a long evaluation: it says that the trial lives.

        Raises:
            WorkloadError: If the averaged model has BatchNorm, and there are no batches.
        """
        with (
            self.timing.evaluation(),
            self._averaging.applied(batches, forward, self.alive),
        ):
            yield self.alive

    def alive(self) -> object:
        """Says in a long evaluation that the trial lives; nothing is stopped by it."""
        return self._reporter.advance(self._averaging.taken)

    def compare_average(
        self,
        measure: Callable[[], float | torch.Tensor],
        batches: Iterable[Any] | None = None,
        *,
        forward: Forward | None = None,
    ) -> None:
        """Measures the line from the last weights to their average, for the report.

        Call it after the last step. Where the trial averages nothing, it does nothing.

        Args:
            measure: Returns the study's metric of the models as they are when it is called.
            batches: As in :meth:`evaluation`.
            forward: As in :meth:`evaluation`.
        """
        if not self._averaging.begun:
            return
        self.average_line = []
        for weight in PLACES:
            with (
                self.timing.evaluation(),
                self._averaging.applied(batches, forward, self.alive, weight=weight),
            ):
                self.average_line.append((weight, to_float(measure())))
            self.alive()

    def check_measured(self) -> None:
        """Sees that a loop that reported nothing measured what it returned of the averages.

        Raises:
            WorkloadError: If it did not.
        """
        if not self._evaluated:
            self._averaging.check_applied()


def to_float(value: float | torch.Tensor) -> float:
    """Returns a number, waiting for the device where it is a tensor's."""
    return float(value.detach() if isinstance(value, torch.Tensor) else value)
