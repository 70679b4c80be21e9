"""The progress of a trial's process: its reports become steps and evaluations of the run."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from tuner.errors import CommandError
from tuner.training.processes.output import ReportLine
from tuner.training.run import Run


class Progress:
    """Passes on to a run what the process of its trial reports.

    Where the budget counts epochs, and the process does not say how many steps one has, an epoch
    counts as a step.

    Args:
        run: The trial.
        kept: Whether its process keeps a checkpoint of what it has reported.

    Attributes:
        has_metric: Whether anything has been reported.
        beyond: Whether something has been reported from beyond a full trial.
    """

    def __init__(self, run: Run, *, kept: bool) -> None:
        self._run, self._kept = run, kept
        self._counted: tuple[int, Mapping[str, float]] | None = None
        self._final: Mapping[str, float] | None = None
        self.has_metric = self.beyond = False
        if run.length is None:
            run.measure(1)

    @property
    def unit(self) -> Literal["step", "epoch"]:
        """The unit in which reports count: steps or epochs."""
        return "step" if self._run.budget.epochs is None else "epoch"

    @property
    def is_counted(self) -> bool:
        """Whether an evaluation has said after how many steps or epochs it stands."""
        return self._counted is not None

    @property
    def is_over(self) -> bool:
        """Whether a full trial has been trained."""
        return self._run.taken >= self._run.total_steps

    def take_line(self, report: ReportLine) -> None:
        """Takes a line that reports an evaluation.

        Raises:
            Pruned: If the trial is to stop because it is behind, or its metric is not finite.
            Interrupted: If it is to stop where it is.
        """
        count = report.step if self.unit == "step" else report.epoch
        if count is None:
            self.take_final(report.metrics)
        else:
            self.take(count, report.metrics)

    def take_final(self, metrics: Mapping[str, float]) -> None:
        """Takes an evaluation of which nobody says where it stands: it counts at the end."""
        self.has_metric, self._final = True, metrics

    def take(self, count: int, metrics: Mapping[str, float]) -> None:
        """Takes an evaluation after some steps, or epochs.

        Raises:
            Pruned: As for :meth:`take_line`.
            Interrupted: As for :meth:`take_line`.
        """
        run = self._run
        self.has_metric = True
        if count > run.total_steps and run.place is not None:
            self.beyond = True
            if run.taken == 0:
                raise CommandError(
                    f"The command reported its first evaluation after {count} {self.unit}s, where "
                    f"a full trial has {run.total_steps}: have it evaluate more often, or raise "
                    f"budget.{self.unit}s."
                )
            run.state.track(run.total_steps, kept=self._kept)
            return
        self._counted = count, metrics
        run.state.track(count, metrics, kept=self._kept)

    def move(self, count: int) -> None:
        """Takes note of steps that have been taken, without an evaluation.

        A process that keeps checkpoints goes on from what it has evaluated: these count alone.
        """
        taken = self._run.taken if self._kept else min(count, self._run.total_steps - 1)
        self._run.state.track(taken, kept=self._kept)

    def look(self) -> None:
        """Gives a sign of life.

        Raises:
            Interrupted: If the trial is to stop where it is.
        """
        self._run.state.track(self._run.taken, kept=self._kept)

    def conclude(self) -> bool:
        """Takes the end of a process that has come to it by itself; tells whether it has a value.

        One that never said how far it is has trained in full, and so has one whose last step is the
        last as counted from 0.
        """
        total = self._run.total_steps
        if self._counted is None and self._final is not None:
            self._run.state.track(total, self._final, kept=self._kept)
        elif self._counted is not None and self._counted[0] == total - 1:
            self._run.state.track(total, self._counted[1], kept=self._kept)
        return self.has_metric or self._run.state.evaluated > 0
