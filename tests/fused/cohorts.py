"""Cohorts to train, what they are compared with, and a reporter that remembers what it heard."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tests.training.trials import make_spec, through_disk, train
from tuner.domain.catalog.dimensions import Dimension, Value
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialConfig
from tuner.fused.cohort import Cohort
from tuner.fused.lane import LaneStart
from tuner.fused.model import FusedModel
from tuner.fused.update_rules import RULES
from tuner.training.loop import TrialResult
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.reporting import Evaluation
from tuner.training.workload import Batch, Data

FUSABLE = [
    name
    for name, row in OPTIMIZERS.items()
    if all(call.target in RULES for call in row.calls(row.decode({}), 1))
]

COMPILES = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "DEFAULT",
    reason="torch's compiler writes code that is none for a CPU without vector instructions",
)
"""A test that asks for compiled steps; without, tuner trains uncompiled and says so."""


class Blobs:
    """Three classes in four dimensions, and a network with a norm that tells them apart."""

    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 3))

    def data(self) -> Data:
        generator = torch.Generator().manual_seed(1)
        x = torch.randn(192, 4, generator=generator)
        y = (x[:, 0] * x[:, 1] > 0).long() + (x[:, 2] > 0).long()
        return Data(train=(x[:128], y[:128]), val=(x[128:], y[128:]))

    def loss(self, model: nn.Module, batch: Batch) -> Any:
        return cross_entropy(model(batch[0]), batch[1])

    def metrics(self, model: nn.Module, batch: Batch) -> Any:
        return {"val_loss": self.loss(model, batch)}


class Normed(Blobs):
    def model(self) -> nn.Module:
        # A bias before the norm would have a gradient of rounding errors alone, of which
        # optimizers that look at signs make steps.
        first = nn.Linear(4, 8, bias=False)
        return nn.Sequential(first, nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


class Frozen(Blobs):
    """Stands on a part that stays as in evaluation, but for the last of its norms."""

    def model(self) -> nn.Module:
        backbone = nn.Sequential(
            nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Dropout(0.5), nn.ReLU(), nn.BatchNorm1d(8)
        )
        backbone[0].requires_grad_(False)
        backbone.eval()
        backbone[4].train()
        return nn.Sequential(backbone, nn.Dropout(0.2), nn.Linear(8, 3))

    def metrics(self, model: Any, batch: Batch) -> Any:
        means = [model[0][place].running_mean.abs().sum() for place in (1, 4)]
        return {"val_loss": self.loss(model, batch), "frozen": means[0], "moved": means[1]}


class Droopy(Blobs):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 32), nn.Dropout(0.5), nn.Tanh(), nn.Linear(32, 3))


@dataclass
class CohortRecorder:
    """A reporter that keeps what it hears.

    Attributes:
        prune_at: Steps taken at the evaluation that ends a lane, by lane.
        interrupt_at: Steps taken from which on the cohort is to stop, or None.
        leave_at: Steps taken at which a lane is to stop where it is, by lane.
        on_step: Called whenever the reporter hears that the cohort goes on.
    """

    prune_at: dict[int, int] = field(default_factory=dict)
    interrupt_at: int | None = None
    leave_at: dict[int, int] = field(default_factory=dict)
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

    def left(self) -> Collection[int]:
        return [lane for lane, step in self.leave_at.items() if step <= self.steps[-1]]

    def suggest(self, name: str, axis: Dimension) -> Value:
        raise AssertionError("a cohort suggests nothing")

    def warn(self, text: str) -> None:
        raise AssertionError(text)

    def save(self) -> None:
        raise AssertionError("nobody asks for a checkpoint")


@dataclass(frozen=True)
class Trained:
    """A cohort that has ended."""

    outcomes: list[TrialResult]
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
    prepared: PreparedWorkload,
    configs: Sequence[TrialConfig],
    spec: StudySpec | None = None,
    recorder: CohortRecorder | None = None,
    states: Sequence[dict[str, Any]] | None = None,
    *,
    compiled: bool = False,
) -> Trained:
    """Trains a cohort."""
    model = FusedModel(prepared, spec or make_spec(), compiled=compiled)
    recorder = recorder or CohortRecorder()
    found: Sequence[dict[str, Any] | None] = [None] * len(configs) if states is None else states
    starts = [LaneStart(*pair) for pair in zip(configs, found, strict=True)]
    cohort = Cohort(model, starts, recorder)
    return Trained(cohort.train(), cohort, recorder)


def check_same(
    fused: Trained,
    prepared: PreparedWorkload,
    spec: Any,
    configs: Sequence[TrialConfig],
    lanes: Iterable[int] | None = None,
    *,
    tolerance: float = 1e-10,
) -> None:
    """Sees that lanes, or some of them, have trained as their trials do alone."""
    for lane in range(len(configs)) if lanes is None else lanes:
        config = configs[lane]
        single = train(prepared, spec, config)
        label = f"{config.optimizer} {config.schedule}"
        torch.testing.assert_close(
            fused.values(lane),
            single.values,
            rtol=tolerance,
            atol=tolerance,
            msg=f"{label}: {{}}".format,
        )
        assert fused.outcomes[lane] == single.outcome, label
        logged = [value for _, _, value in single.run.state.take_logged()]
        ours = [value for _, _, value in fused.logged(lane)]
        assert ours == pytest.approx(logged, rel=10 * tolerance), label
