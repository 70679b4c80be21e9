from __future__ import annotations

import itertools
import math
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from tests.training.cohorts import CohortRecorder, Trained, train_lanes
from tests.training.trials import Line, bench_of, make_config, make_spec, train
from tuner.domain.groups import GroupValues
from tuner.domain.optimizers import OPTIMIZERS
from tuner.domain.schedules import SCHEDULES
from tuner.domain.trials import TrialConfig
from tuner.errors import SpecError
from tuner.optim.lane_rules import RULES
from tuner.training.bench import Bench
from tuner.training.reporting import StaleCheckpointError
from tuner.training.workload import Batch, Data

FUSABLE = [
    name
    for name, row in OPTIMIZERS.items()
    if all(call.target in RULES for call in row.calls(row.decode({}), 1))
]


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


class Droopy(Blobs):
    def model(self) -> nn.Module:
        return nn.Sequential(nn.Linear(4, 32), nn.Dropout(0.5), nn.Tanh(), nn.Linear(32, 3))


@pytest.fixture(scope="module")
def blobs() -> Bench:
    return bench_of(Blobs(), "float64")


def check_same(fused: Trained, lane: int, bench: Bench, spec: Any, config: TrialConfig) -> None:
    single = train(bench, spec, config)
    label = f"{config.optimizer} {config.schedule}"
    torch.testing.assert_close(
        fused.values(lane), single.values, rtol=1e-10, atol=1e-10, msg=lambda m: f"{label}: {m}"
    )
    assert fused.outcomes[lane] == single.outcome, label
    logged = [value for _, _, value in single.run.take_logged()]
    assert [v for _, _, v in fused.logged(lane)] == pytest.approx(logged, rel=1e-9), label


def cases(optimizers: list[str]) -> list[TrialConfig]:
    return [
        make_config(optimizer, schedule=schedule, warmup=0.1)
        for optimizer, schedule in itertools.product(optimizers, SCHEDULES)
    ]


@pytest.mark.parametrize("optimizer", [name for name in FUSABLE if "muon" not in name])
def test_lanes_of_every_schedule_train_as_single_trials_do(blobs: Bench, optimizer: str) -> None:
    spec = make_spec(steps=200, evaluations=5)
    configs = cases([optimizer])

    fused = train_lanes(blobs, configs, spec)

    for lane, config in enumerate(configs):
        check_same(fused, lane, blobs, spec, config)
