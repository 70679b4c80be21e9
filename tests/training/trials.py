"""Trials to train, and a reporter that remembers what it was told."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tuner.domain.optimizers import OPTIMIZERS
from tuner.domain.schedules import SCHEDULES
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialConfig
from tuner.training.loop import Evaluation, Outcome, run_trial
from tuner.training.trainer import Bench, Trainer


def make_spec(steps: int = 40, evaluations: int = 4, **tables: Any) -> StudySpec:
    tree: dict[str, Any] = {
        "study": {"name": "s", "workload": "models.digits:Digits"},
        "budget": {"steps": steps, "evaluations": evaluations},
    }
    return StudySpec.model_validate(tree | tables).resolve()


def make_trainer(
    bench: Bench,
    optimizer: str = "adam",
    spec: StudySpec | None = None,
    *,
    seed: int = 0,
    schedule: str = "cosine",
    warmup: float = 0.1,
    batch_size: int = 32,
    **values: float,
) -> Trainer:
    """Returns a trial; keyword arguments are the optimizer's values in torch's form."""
    config = TrialConfig(
        optimizer,
        OPTIMIZERS[optimizer].decode(dict(values)),
        schedule,
        SCHEDULES[schedule].decode({"warmup": warmup}),
        batch_size,
    )
    return Trainer(bench, spec or make_spec(), config, seed)


@dataclass
class Recorder:
    """A reporter that stops where it is told to.

    Attributes:
        prune_at: Step of the evaluation that ends the trial, or None.
        interrupt_at: Step that ends the trial, or None.
        on_step: Called after every step.
    """

    prune_at: int | None = None
    interrupt_at: int | None = None
    on_step: Callable[[int], None] = lambda step: None
    evaluations: list[Evaluation] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)

    def report(self, evaluation: Evaluation) -> bool:
        self.evaluations.append(evaluation)
        return evaluation.step != self.prune_at

    def advance(self, step: int) -> bool:
        self.steps.append(step)
        self.on_step(step)
        return step != self.interrupt_at

    @property
    def metrics(self) -> list[tuple[int, int, dict[str, float]]]:
        return [(e.index, e.step, e.metrics) for e in self.evaluations]


def run(trainer: Trainer, recorder: Recorder | None = None) -> tuple[Outcome, Recorder]:
    recorder = recorder or Recorder()
    return run_trial(trainer, "val_loss", recorder), recorder


def parameters_of(trainer: Trainer) -> Tensor:
    return nn.utils.parameters_to_vector(trainer.model.parameters()).detach().clone()


def is_same(a: object, b: object) -> bool:
    """Tells whether two states are equal bit for bit."""
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        return a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict) and isinstance(b, dict):
        return a.keys() == b.keys() and all(is_same(a[key], b[key]) for key in a)
    if isinstance(a, list | tuple) and isinstance(b, list | tuple):
        return len(a) == len(b) and all(map(is_same, a, b))
    return a == b
