"""The lanes of a group of trials in training: those of a cohort, or one run as the only lane."""

from __future__ import annotations

import dataclasses
from typing import Any, Protocol

from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.spec import StudySpec
from tuner.service.ranks import refuse_ranks
from tuner.service.worker.endings import explain_no_step
from tuner.training.attributes import training_attributes
from tuner.training.loop import Ending, TrainingLoop, TrialResult, run_trial
from tuner.training.run import Run


class Lanes(Protocol):
    """The trials of a group while they train, by their number in the group.

    A :class:`tuner.fused.cohort.Cohort` is one, and so is an :class:`OnlyLane`.
    """

    @property
    def taken(self) -> int:
        """Steps taken, the present one included."""

    @property
    def total_steps(self) -> int:
        """Steps of a full trial."""

    @property
    def evaluated(self) -> int:
        """How many of the budgeted evaluations have been reported."""

    @property
    def resumable(self) -> bool:
        """Whether trials can go on from a checkpoint written now."""

    def train(self) -> list[TrialResult]:
        """Trains all lanes to their ends; returns how each has ended."""

    def take_logged(self, lane: int) -> list[tuple[int, str, float]]:
        """Returns the numbers logged of a lane since the last call, as (step, name, value)."""

    def state_dict(self, lane: int) -> dict[str, Any]:
        """Returns everything needed to continue a lane later."""

    def describe(self, lane: int) -> dict[str, Any]:
        """Returns the attributes to store of how a lane trained: its steps and costs, by name."""

    def complete(self, lane: int) -> TrialResult:
        """Returns the result of a lane that needs no further training, as it stands."""


class OnlyLane:
    """A run as the only lane of its group.

    Args:
        spec: The study, resolved.
        run: The run.
        loop: The training loop that takes it.
    """

    def __init__(self, spec: StudySpec, run: Run, loop: TrainingLoop) -> None:
        self._spec, self._run, self._loop = spec, run, loop

    @property
    def run(self) -> Run:
        """The run."""
        return self._run

    @property
    def taken(self) -> int:
        """Steps taken, the present one included."""
        return self._run.taken

    @property
    def total_steps(self) -> int:
        """Steps of a full trial."""
        return self._run.total_steps

    @property
    def evaluated(self) -> int:
        """How many of the budgeted evaluations have been reported."""
        return self._run.state.evaluated

    @property
    def resumable(self) -> bool:
        """Whether the trial can go on from a checkpoint written now."""
        return self._run.state.resumable

    def train(self) -> list[TrialResult]:
        """Trains the trial to its end; returns its result as a list of one."""
        run = self._run
        result = run_trial(self._loop, run)
        refuse_ranks()  # a loop may have made itself one
        if result.ending is Ending.COMPLETE:
            result = dataclasses.replace(self.complete(0), value=result.value)
        return [result]

    def complete(self, lane: int) -> TrialResult:
        """Returns the result of the trial as it stands; it has failed if nothing was trained."""
        run = self._run
        fault = None if run.state.stepped else explain_no_step(run.state.has_optimizer)
        return TrialResult(Ending.COMPLETE, fault=fault)

    def take_logged(self, lane: int) -> list[tuple[int, str, float]]:
        """Returns the numbers logged since the last call, as (step, name, value)."""
        return self._run.state.take_logged()

    def state_dict(self, lane: int) -> dict[str, Any]:
        """Returns everything needed to continue the trial later."""
        return self._run.state.state_dict()

    def describe(self, lane: int) -> dict[str, Any]:
        """Returns the attributes to store of how the trial trained: its steps and costs."""
        run = self._run
        attributes = training_attributes(
            self._spec,
            run.config,
            taken=run.trained,
            total_steps=run.length,
            epoch_steps=run.epoch_steps,
            line=run.average_line,
            test=run.evaluations.test,
            describe_groups=run.state.describe_groups,
        )
        attributes |= run.state.describe_loop()
        attributes |= {name: round(s, 6) for name, s in run.timing.state_dict().items()}
        if OPTIMIZERS[run.config.optimizer].closure:
            attributes["optimizer_steps"] = run.turns
        return attributes
