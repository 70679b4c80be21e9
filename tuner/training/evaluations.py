"""The evaluations of a trial: when they are due, with which weights, and their reports."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch

from tuner.errors import WorkloadError
from tuner.training.numbers import check_name, to_float
from tuner.training.optimization import Optimization
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
        optimization: Its optimizers and schedules, some of which follow the metric.
        averaging: The averages of its models.
        reporter: The worker, or a test, that takes the reports.

    Attributes:
        metric: The metric that ranks trials, among those a loop reports.
        averaging: The averages of its models.
        timing: Seconds spent in training and in evaluation, over all attempts.
        reported: Budgeted evaluations that have been reported.
        over: The exception that ends the trial early, once it is to end; else None.
        average_line: The study's metric on the line from the last weights (0) to their average
            (1), once :meth:`compare_average` has measured it.
        test: The metrics over test data, as last reported.
    """

    def __init__(
        self,
        metric: str,
        steps: Steps,
        optimization: Optimization,
        averaging: Averaging,
        reporter: Reporter,
    ) -> None:
        self.metric = metric
        self._steps = steps
        self._optimization = optimization
        self.averaging = averaging
        self._reporter = reporter
        self._late: float | torch.Tensor | None = None
        self._warned: set[str] = set()
        self.timing = Timing()
        self.reported = 0
        self.over: Pruned | Interrupted | None = None
        self.average_line: list[tuple[float, float]] = []
        self.test: dict[str, float] = {}

    def restore(
        self, reported: int, timing: Mapping[str, float], test: Mapping[str, float]
    ) -> None:
        """Continues after the evaluations of an earlier attempt.

        Args:
            reported: Evaluations reported there.
            timing: The :meth:`Timing.state_dict` of that attempt.
            test: The metrics over test data that were reported there.
        """
        self.reported, self.test = reported, dict(test)
        self.timing = Timing(timing["train_s"], timing["eval_s"])

    @property
    def late_value(self) -> float | None:
        """The metric as last reported, if that is no point of the curve; else None."""
        return None if self._late is None else to_float(self._late, self.metric)

    def report(self, step: int | None, metrics: Mapping[str, float | torch.Tensor]) -> None:
        """Reports an evaluation where one is due; see :meth:`Run.report`.

        Args:
            step: The step, as the loop counts it from 0; None is the present one.
            metrics: The measured numbers, by name.

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
        if index <= self.reported and not isinstance(metrics[metric], float | int):
            return
        values = {name: to_float(value, name) for name, value in metrics.items()}
        if not math.isfinite(values[metric]):
            self.diverge(taken)
        if index <= self.reported:
            return
        if not self.reported:
            self._optimization.check_groups()
        self.averaging.check_applied(self._steps.taken)
        self.timing.mark()
        [goes_on] = self._reporter.report([Evaluation(index, taken, values)])
        self._optimization.observe(values[metric])
        self.reported, self._late = index, None
        if not goes_on:
            self.over = Pruned(f"behind at step {taken}")
            raise self.over
        self.go_on(taken)

    def report_test(self, metrics: Mapping[str, float | torch.Tensor]) -> None:
        """Keeps metrics over test data, in place of any before; see :meth:`Run.report_test`.

        Args:
            metrics: The measured numbers, by name.

        Raises:
            WorkloadError: If one is not a single number, or no database can keep its name.
        """
        for name in metrics:
            check_name("run.report_test", name)
        self.test = {name: to_float(value, name) for name, value in metrics.items()}

    def go_on(self, taken: int) -> None:
        """Gives a sign of life for a loop that takes no turns, and ends it if it is to stop.

        Args:
            taken: Steps taken.

        Raises:
            Interrupted: If it is to stop where it is.
        """
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
        if beyond or not self.reported:
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
        """Writes a sentence to the log, once a topic."""
        if topic not in self._warned:
            self._warned.add(topic)
            self._reporter.warn(text)

    def diverge(self, step: int) -> None:
        """Ends the trial because a loss or a metric is infinite or NaN.

        Args:
            step: The first step, from 1, of which that is known.

        Raises:
            Diverged: Always.
        """
        self.over = Diverged(step)
        raise self.over

    @contextlib.contextmanager
    def evaluation(
        self, batches: Iterable[Any] | None, forward: Forward | None
    ) -> Iterator[Callable[[], object]]:
        """Puts the weights to evaluate into the models; see :meth:`Run.evaluation`.

        Args:
            batches: Training data to measure the BatchNorm statistics of averaged weights by.
            forward: Passes a batch through the models.

        Yields:
            The function :meth:`alive`.

        Raises:
            WorkloadError: If the averaged model has BatchNorm, and there are no batches.
        """
        with (
            self.timing.evaluation(),
            self.averaging.applied(batches, forward, self.alive),
        ):
            yield self.alive

    def alive(self) -> object:
        """Gives a sign of life in a long evaluation, so that it does not count as hung."""
        return self._reporter.advance(self._steps.taken)

    def compare_average(
        self,
        measure: Callable[[], float | torch.Tensor],
        batches: Iterable[Any] | None,
        forward: Forward | None,
    ) -> None:
        """Evaluates points on the line from the last weights to their average.

        Args:
            measure: Returns the study's metric for the models as they are when it is called.
            batches: As in :meth:`evaluation`.
            forward: As in :meth:`evaluation`.
        """
        if not self.averaging.begun:
            return
        self.average_line.clear()
        for weight in PLACES:
            with (
                self.timing.evaluation(),
                self.averaging.applied(batches, forward, self.alive, weight=weight),
            ):
                self.average_line.append((weight, to_float(measure(), self.metric)))
            self.alive()

    def check_measured(self) -> None:
        """Checks that a loop that reported nothing measured its return value with the averages.

        Raises:
            WorkloadError: If it measured the value without them.
        """
        if not self.reported:
            self.averaging.check_applied()
