"""The loop of one trial: step, evaluate where the budget says, report, stop when told to."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from tuner.training.trainer import Trainer


class Ending(StrEnum):
    """Why a trial left the loop."""

    COMPLETE = "complete"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    INTERRUPTED = "interrupted"


@dataclass
class Timing:
    """Where a trial's time went, in seconds."""

    train_s: float = 0.0
    eval_s: float = 0.0


@dataclass(frozen=True)
class Evaluation:
    """A point where a trial reports.

    Attributes:
        index: Which evaluation of the trial, from 1.
        step: Optimizer steps taken.
        metrics: The workload's metrics.
        train_loss: Mean training loss since the last evaluation.
    """

    index: int
    step: int
    metrics: dict[str, float]
    train_loss: float


@dataclass
class Outcome:
    """How a trial left the loop.

    Attributes:
        ending: Why.
        metrics: The last evaluation's metrics, empty if there was none.
        diverged_step: The first step with a non-finite loss, or None.
        timing: Where the time went, over all attempts.
    """

    ending: Ending
    metrics: dict[str, float] = field(default_factory=dict)
    diverged_step: int | None = None
    timing: Timing = field(default_factory=Timing)


class Reporter(Protocol):
    """Whom the loop reports to: a worker, or a test."""

    def report(self, evaluation: Evaluation) -> bool:
        """Takes an evaluation with finite metrics; returns whether the trial goes on."""

    def advance(self, step: int) -> bool:
        """Hears that the trial goes on; returns False if it is to stop where it is.

        Called after every step, and between the parts of an evaluation, which is not stopped.
        """


def run_trial(
    trainer: Trainer, metric: str, reporter: Reporter, timing: Timing | None = None
) -> Outcome:
    """Trains a trial from where it stands to its end.

    Args:
        trainer: The trial; a resumed one stands at its checkpoint.
        metric: The metric that ranks trials; where it is not finite the trial has diverged.
        reporter: Whom to report to.
        timing: Time spent by earlier attempts, added to in place.

    Returns:
        How it ended; an interrupted trial can be continued from ``trainer.state_dict()``.
    """
    timing = timing or Timing()
    metrics: dict[str, float] = {}
    for index, boundary in enumerate(trainer.evaluation_steps, start=1):
        if index <= trainer.evaluated:
            continue
        began = time.perf_counter()
        goes_on = True
        while trainer.step_number < boundary and goes_on:
            trainer.step()
            goes_on = reporter.advance(trainer.step_number)
        if trainer.step_number < boundary:
            timing.train_s += time.perf_counter() - began
            return Outcome(Ending.INTERRUPTED, metrics, None, timing)
        losses = trainer.collect_losses()
        timing.train_s += time.perf_counter() - began
        diverged_step = _first_bad_step(losses, trainer.step_number)
        if diverged_step is not None:
            return Outcome(Ending.DIVERGED, metrics, diverged_step, timing)
        began = time.perf_counter()
        metrics = trainer.evaluate(lambda: reporter.advance(trainer.step_number))
        timing.eval_s += time.perf_counter() - began
        if not math.isfinite(metrics[metric]):
            return Outcome(Ending.DIVERGED, metrics, boundary, timing)
        train_loss = math.fsum(losses) / len(losses)
        keep = reporter.report(Evaluation(index, boundary, metrics, train_loss))
        trainer.evaluated = index
        trainer.forget_losses()
        if not keep:
            return Outcome(Ending.PRUNED, metrics, None, timing)
        if not goes_on and boundary < trainer.total_steps:
            return Outcome(Ending.INTERRUPTED, metrics, None, timing)
    return Outcome(Ending.COMPLETE, metrics, None, timing)


def _first_bad_step(losses: list[float], last: int) -> int | None:
    """Returns the first step with a non-finite loss, the losses being those up to step ``last``."""
    for offset, loss in enumerate(losses, start=1):
        if not math.isfinite(loss):
            return last - len(losses) + offset
    return None
