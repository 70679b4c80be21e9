"""Cohorts to train, and a reporter that remembers what it was told."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

from tests.training.trials import make_spec, through_disk
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialConfig
from tuner.training.bench import Bench
from tuner.training.cohort import Cohort
from tuner.training.fused_model import FusedModel
from tuner.training.lane import LaneStart
from tuner.training.loop import Outcome
from tuner.training.reporting import Evaluation


@dataclass
class CohortRecorder:
    """A reporter that keeps what it hears.

    Attributes:
        prune_at: Steps taken at the evaluation that ends a lane, by lane.
        interrupt_at: Steps taken from which on the cohort is to stop, or None.
        on_step: Called whenever the reporter hears that the cohort goes on.
    """

    prune_at: dict[int, int] = field(default_factory=dict)
    interrupt_at: int | None = None
    on_step: Callable[[int], None] = lambda step: None
    evaluations: dict[int, list[Evaluation]] = field(default_factory=dict)
    diverged_at: dict[int, int] = field(default_factory=dict)
    steps: list[int] = field(default_factory=list)

    def report(self, evaluations: Sequence[Evaluation | None]) -> Sequence[bool]:
        for lane, evaluation in enumerate(evaluations):
            if evaluation is not None:
                self.evaluations.setdefault(lane, []).append(evaluation)
        return [
            evaluation is not None and self.prune_at.get(lane) != evaluation.step
            for lane, evaluation in enumerate(evaluations)
        ]

    def diverged(self, lane: int, step: int) -> None:
        self.diverged_at[lane] = step

    def advance(self, step: int) -> bool:
        self.steps.append(step)
        self.on_step(step)
        return self.interrupt_at is None or step < self.interrupt_at

    def save(self) -> None:
        raise AssertionError("nobody asks for a checkpoint")


@dataclass(frozen=True)
class Trained:
    """A cohort that has ended."""

    outcomes: list[Outcome]
    cohort: Cohort
    recorder: CohortRecorder

    def values(self, lane: int) -> list[float]:
        """Returns what a lane reported."""
        return [e.metrics["val_loss"] for e in self.recorder.evaluations.get(lane, [])]

    def logged(self, lane: int) -> list[tuple[int, str, float]]:
        """Returns what was logged of a lane."""
        return self.cohort.take_logged(lane)

    def states(self, lanes: Sequence[int]) -> list[dict[str, Any]]:
        """Returns lanes as their checkpoints give them back."""
        return [through_disk(self.cohort.state_dict(lane)) for lane in lanes]


def train_lanes(
    bench: Bench,
    configs: Sequence[TrialConfig],
    spec: StudySpec | None = None,
    recorder: CohortRecorder | None = None,
    states: Sequence[dict[str, Any]] | None = None,
    *,
    compiled: bool = False,
    smallest: int = 1,
) -> Trained:
    """Trains a cohort."""
    model = FusedModel(bench, spec or make_spec(), compiled=compiled, smallest=smallest)
    recorder = recorder or CohortRecorder()
    found = states or [None] * len(configs)
    starts = [LaneStart(*pair) for pair in zip(configs, found, strict=True)]
    cohort = Cohort(model, starts, recorder)
    return Trained(cohort.train(), cohort, recorder)
