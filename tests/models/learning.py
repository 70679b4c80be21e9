"""What every workload must do: hold its contract, and learn."""

from __future__ import annotations

from typing import Any

import torch

from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialConfig
from tuner.training.trainer import Bench, Trainer
from tuner.training.workload import Workload


def prepare(workload: Workload) -> Bench:
    return Bench.prepare(workload, torch.device("cpu"), "float32")


def learn(bench: Bench, steps: int, lr: float = 0.01) -> dict[str, Any]:
    """Returns the metrics after some steps of Adam."""
    tree = {"study": {"name": "s", "workload": "a:B"}, "budget": {"steps": steps}}
    spec = StudySpec.model_validate(tree).resolve()
    values = {"lr": lr, "beta1": 0.9, "beta2": 0.999, "eps": 1e-8, "weight_decay": 0.0}
    trainer = Trainer(bench, spec, TrialConfig("adam", values, "constant", {"warmup": 0.0}, 64), 0)
    for _ in range(steps):
        trainer.step()
    return trainer.evaluate()
