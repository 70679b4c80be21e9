"""What every workload must do: hold its contract, and learn."""

from __future__ import annotations

from functools import partial

import torch

from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialConfig
from tuner.training.loop import run_trial, train_workload
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.rehearsal import Rehearsal
from tuner.training.run import Run
from tuner.training.workload import Workload


def prepare(workload: Workload) -> PreparedWorkload:
    return PreparedWorkload.prepare(workload, torch.device("cpu"), "float32")


def learn(
    prepared: PreparedWorkload, steps: int, lr: float = 0.01, optimizer: str = "adam"
) -> dict[str, float]:
    """Returns the metrics after some steps."""
    tree = {
        "study": {"name": "s", "workload": "a:B"},
        "budget": {"steps": steps, "evaluations": 1},
        "space": {"optimizers": [optimizer]},
    }
    spec = StudySpec.model_validate(tree).resolve()
    values = OPTIMIZERS[optimizer].decode({"lr": lr})
    config = TrialConfig(optimizer, values, "constant", {"warmup": 0.0}, 64)
    reporter = Rehearsal()
    run = Run(spec, config, device=prepared.device, reporter=reporter)
    run_trial(partial(train_workload, prepared=prepared), run)
    return reporter.metrics
