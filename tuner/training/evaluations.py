"""How a trial is measured, as it is or as the average of what it has been, and what it reports."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from tuner.errors import WorkloadError
from tuner.training.averaging import Averaging, Forward
from tuner.training.numbers import check_name, to_float
from tuner.training.reporting import Diverged, Evaluation, Interrupted, Pruned, Reporter
from tuner.training.steps import Steps
from tuner.training.timing import Timing

PLACES = tuple(point / 6 for point in range(7))
"""Where the line from the last weights (0) to their average (1) is measured."""


class Evaluations:
    """Where a trial is measured, by which weights, and whom that is told.

    Args:
        metric: What ranks trials.
        steps: Its steps.
        averaging: The averages of its models.
        reporter: Whom to tell.

    Attributes:
        metric: What ranks trials, among the metrics a loop reports.
        timing: Seconds spent, over all attempts.
        over: Why the trial is over, once it is to stop early.
        average_line: The study's metric on the line from the last weights (0) to their average
            (1), once :meth:`compare_average` has measured it.
    """

    def __init__(self, metric: str, steps: Steps, averaging: Averaging, reporter: Reporter) -> None:
        self.metric = metric
        self._steps = steps
        self._averaging = averaging
        self._reporter = reporter
        self._observers: list[Callable[[float], None]] = []
        self._late: float | torch.Tensor | None = None
        self._warned: set[str] = set()
        self.timing = Timing()
        self.over: Pruned | Interrupted | None = None
        self.average_line: list[tuple[float, float]] = []
        self._evaluated = 0

    @property
    def evaluated(self) -> int:
        """How many of the budgeted evaluations have been reported."""
        return self._evaluated

    @property
    def late_value(self) -> float | None:
        """The metric as last reported where no point of the curve is it, or None."""
        return None if self._late is None else to_float(self._late, self.metric)

    def due(self, step: int | None = None) -> bool:
        """Tells whether the budget asks for an evaluation after this step.

        Args:
            step: The step, as the loop counts it from 0; left out, the present one.
        """
        return self._steps.evaluations_by(self._steps.at(step)) > self._evaluated

    def report(self, step: int | None = None, **metrics: float | torch.Tensor) -> None:
        """Reports an evaluation; the study's metric must be among its metrics.

        Reporting at every step is cheap: between the points where the budget asks for an
        evaluation nothing is written, and nobody is stopped.

        Args:
            step: The step, as the loop counts it from 0; left out, the present one. One that lies
                behind the optimizer's own steps, such as an epoch's number, is not believed.
            metrics: What was measured, by name.

        Raises:
            Pruned: If the trial is to stop because it is behind, or its metric is not finite.
            WorkloadError: If the study's metric is missing, a metric is no single number, or a
                parameter group takes nothing, or no database can keep a name.
        """
        if self.over is not None:
            raise self.over
        metric = self.metric
        if metric not in metrics:
            raise WorkloadError(
                f"run.report() was given {', '.join(metrics) or 'nothing'}, but study.metric is "
                f"{metric!r}: report it too, or name one of these in the study file."
            )
        for name in metrics:
            check_name("run.report", name)
        taken = self._locate(step, metrics[metric])
        index = self._steps.evaluations_by(taken)
        if index <= self._evaluated and not isinstance(metrics[metric], float | int):
            return
        values = {name: to_float(value, name) for name, value in metrics.items()}
        if not math.isfinite(values[metric]):
            self.diverge(taken)
        if index <= self._evaluated:
            return
        if not self._evaluated:
            self.check_groups()
        self._averaging.check_applied(self._steps.taken)
        self.timing.mark()
        goes_on = self._reporter.report(Evaluation(index, taken, values))
        for observe in self._observers:
            observe(values[metric])
        self._evaluated, self._late = index, None
        if not goes_on:
            self.over = Pruned(f"behind at step {taken}")
            raise self.over
        self._go_on(taken)

    def _go_on(self, taken: int) -> None:
        """Has a loop that takes no turns here live, or stop."""
        if not self._steps.begun and not self._reporter.advance(taken):
            self.over = Interrupted()
            raise self.over

    def _locate(self, step: int | None, value: float | torch.Tensor) -> int:
        """Returns the steps taken at a report, and warns where its step can hardly be meant."""
        steps = self._steps
        taken = steps.at(step)
        if step is not None and steps.lags(step):
            self._warn(
                "behind",
                f"run.report was given step {step} after {taken} steps of the optimizer, as if "
                "it counted epochs: reports are placed by the optimizer's steps. Leave the step "
                f"out: run.report({self.metric}=...).",
            )
        beyond = steps.reach(taken)
        if beyond or not self._evaluated:
            # It may draw no point, but is what the trial has come to.
            self._late = value.detach().clone() if isinstance(value, torch.Tensor) else value
        if beyond:
            self._warn(
                "beyond",
                f"run.report came at step {taken} of a full trial of {steps.total}: from there on "
                "no point of the curve is kept and nothing is pruned. Set [budget] to what the "
                "loop trains, or take its steps from run.steps().",
            )
        return taken

    def _warn(self, topic: str, text: str) -> None:
        """Tells whoever reads the log something of a topic, once."""
        if topic not in self._warned:
            self._warned.add(topic)
            self._reporter.warn(text)

    def check_groups(self) -> None:
        """Sees that every parameter group takes a parameter; a run knows which there are."""

    def diverge(self, step: int) -> None:
        """Ends the trial because something is infinite or NaN.

        Raises:
            Diverged: Always.
        """
        self.over = Diverged(step)
        raise self.over

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
                self.average_line.append((weight, to_float(measure(), self.metric)))
            self.alive()

    def check_measured(self) -> None:
        """Sees that a loop that reported nothing measured what it returned of the averages.

        Raises:
            WorkloadError: If it did not.
        """
        if not self._evaluated:
            self._averaging.check_applied()
