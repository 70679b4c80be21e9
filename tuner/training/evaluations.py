"""The evaluations of a trial: when they are due, with which weights, and their reports."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch

from tuner.errors import WorkloadError
from tuner.training.numbers import check_name, to_float
from tuner.training.reporting import Diverged, Evaluation, Interrupted, Pruned, Reporter
from tuner.training.steps import Steps
from tuner.training.timing import Timing
from tuner.training.weight_averaging import Averaging, Forward

PLACES = tuple(point / 6 for point in range(7))
"""Where the line from the last weights (0) to their average (1) is measured."""


class Evaluations:
    """Evaluates a trial, with its averaged weights if it averages, and reports the metrics.

    Args:
        metric: The metric that ranks trials.
        steps: The trial's steps.
        averaging: The averages of its models.
        reporter: The worker, or a test, that takes the reports.

    Attributes:
        metric: The metric that ranks trials, among those a loop reports.
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
        """The metric as last reported, if that is no point of the curve; else None."""
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
                behind the optimizer's own steps, such as an epoch's number, is ignored.
            metrics: What was measured, by name.

        Raises:
            Pruned: If the trial is to stop because it is behind, or its metric is not finite.
            WorkloadError: If the study's metric is missing, a metric is not a single number, a
                parameter group takes no parameter, or no database can keep a name.
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
        [goes_on] = self._reporter.report([Evaluation(index, taken, values)])
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
        """Checks that every parameter group takes a parameter; a run overrides this."""

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
        """Puts the weights to evaluate into the models, and times the block as evaluation.

        Where the trial averages its weights and averaging has begun, the models hold the averages
        within the block; afterwards they are as they were, buffers included.

        Args:
            batches: Training data, such as a DataLoader, to measure the BatchNorm statistics of
                the averaged weights; not needed without BatchNorm. Use another loader than that
                of :meth:`steps` if that one has persistent workers.
            forward: Passes a batch through the models; left out, the first element of a batch
                goes through the only model.

        Yields:
            A function to call now and then in a long evaluation, as :meth:`alive`.

        Raises:
            WorkloadError: If the averaged model has BatchNorm, and there are no batches.
        """
        with (
            self.timing.evaluation(),
            self._averaging.applied(batches, forward, self.alive),
        ):
            yield self.alive

    def alive(self) -> object:
        """Gives a sign of life in a long evaluation, so that it does not count as hung."""
        return self._reporter.advance(self._averaging.taken)

    def compare_average(
        self,
        measure: Callable[[], float | torch.Tensor],
        batches: Iterable[Any] | None = None,
        *,
        forward: Forward | None = None,
    ) -> None:
        """Evaluates points on the line from the last weights to their average, for the report.

        Call it after the last step. It does nothing if the trial does not average.

        Args:
            measure: Returns the study's metric for the models as they are when it is called.
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
        """Checks that a loop that reported nothing evaluated its return value by the averages.

        Raises:
            WorkloadError: If it did not.
        """
        if not self._evaluated:
            self._averaging.check_applied()
