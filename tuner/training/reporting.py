"""The messages between a trial and its reporter: evaluations one way, a stop the other."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Protocol

from tuner.domain.catalog.dimensions import Dimension, Value
from tuner.errors import WorkloadError


class Pruned(Exception):  # noqa: N818 (it is no error)
    """Ends a trial that is behind; raised by :meth:`Run.report`."""


class Diverged(Pruned):
    """Ends a trial whose loss or metric is infinite or NaN.

    Args:
        step: The first step, from 1, of which that is known.
    """

    def __init__(self, step: int) -> None:
        super().__init__(f"not finite at step {step}")
        self.step = step


class Interrupted(BaseException):
    """Stops training here, to go on later from a checkpoint."""


class StaleCheckpointError(WorkloadError):
    """A checkpoint that does not fit the loop's model, optimizer or settings."""


@dataclass(frozen=True)
class Evaluation:
    """An evaluation that a trial reports.

    Attributes:
        index: Its number among the budgeted evaluations, from 1.
        step: Steps taken.
        metrics: The measured numbers, by name.
    """

    index: int
    step: int
    metrics: dict[str, float]


class Reporter(Protocol):
    """A worker, a rehearsal or a test that trials report to while they train.

    The trials of a group report together: the lanes of a cohort, or the one trial of a run, which
    is lane 0.
    """

    def report(self, evaluations: Sequence[Evaluation | None]) -> Sequence[bool]:
        """Takes an evaluation of every lane; returns which of the lanes go on.

        Args:
            evaluations: One a lane, each with a finite metric; None for lanes that are over.
        """

    def diverged(self, lane: int, step: int) -> None:
        """Hears that a lane is over, since something is infinite or NaN since a step.

        A cohort calls it before it reports the other lanes. A run never does: it ends.
        """

    def advance(self, step: int) -> bool:
        """Hears that training goes on; returns False if all lanes are to stop where they are.

        Called after every step, and between the parts of an evaluation, which is not stopped.
        """

    def left(self) -> Collection[int]:
        """Returns the lanes that have stopped where they were, right after an evaluation.

        A cohort asks after every step; of a run's only lane :meth:`advance` says so.
        """

    def suggest(self, name: str, axis: Dimension) -> Value:
        """Returns a value for a hyperparameter of the workload's own; only a run asks for one."""

    def warn(self, text: str) -> None:
        """Takes a sentence about the training loop of a run, which the log is to show once."""

    def save(self) -> object:
        """Writes a checkpoint of every lane now."""
