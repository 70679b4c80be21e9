"""Every optimizer of the catalog minimises the problems that any should."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from tests.optim.networks import EVERY_OPTIMIZER
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.optim import build_optimizer

STEPS = 200
# At 0.05 where nothing else is told; what adapts its own learning rate has its default.
RATES = {
    "adadelta": 10.0,
    "adafactor": 0.5,
    "adagrad": 0.5,
    "adan": 0.2,
    "asgd": 0.1,
    "dadapt_adam": 1.0,
    "lamb": 0.03,
    "lion": 0.01,
    "lookahead(yellowfin)": 1.0,
    "momentum": 0.03,
    "muon": 0.03,
    "nesterov": 0.03,
    "prodigy": 1.0,
    "pytorch_optimizer:Lion": 0.01,
    "pytorch_optimizer:Tiger": 0.01,
    "radam": 0.1,
    "ranger": 0.2,
    "schedulefree_adamw": 0.2,
    "schedulefree_sgd": 0.5,
    "sgd": 0.1,
    "yellowfin": 1.0,
}

# Rows that sum to zero, since Ranger21 centres the gradient of a matrix row by row; what its steps
# shift a row's mean by, it cannot take back.
DRIFTING = {"ranger21": 0.05}
CENTRED = torch.tensor([[-1.0, 0.5, 0.5], [0.8, -0.2, -0.6], [0.1, 0.3, -0.4], [0.9, -0.9, 0.0]])


def quadratic(model: nn.Linear) -> Tensor:
    return (model.weight - CENTRED.double()).square().sum() + model.bias.square().sum()


def logistic(model: nn.Linear) -> Tensor:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(64, 3, generator=generator, dtype=torch.float64)
    noise = torch.randn(64, generator=generator, dtype=torch.float64)
    labels = (x @ torch.tensor([2.0, -1.0, -1.0], dtype=torch.float64) + noise > 0).long()
    return cross_entropy(model(x), labels)


def start(outputs: int) -> nn.Linear:
    model = nn.Linear(3, outputs).double()
    nn.init.zeros_(model.weight)
    with torch.no_grad():
        model.bias.copy_(torch.linspace(-1, 1, outputs))
    return model


@pytest.mark.parametrize(
    ("problem", "outputs", "left"), [(quadratic, 4, 0.01), (logistic, 2, 0.35)]
)
@pytest.mark.parametrize("name", [n for n in EVERY_OPTIMIZER if OPTIMIZERS[n].takes != "sparse"])
def test_it_leaves_little_of_the_loss(
    name: str, problem: Callable[[nn.Linear], Tensor], outputs: int, left: float
) -> None:
    model, row = start(outputs), OPTIMIZERS[name]
    rate = RATES.get(name, 0.05)
    values = row.decode({row.rate: rate}) | ({"adamw_lr": rate} if "muon" in name else {})
    optimizer = build_optimizer(name, values, model, total_steps=STEPS)

    def closure() -> Any:
        loss = problem(model)
        optimizer.zero_grad()
        loss.backward()
        return loss

    before = problem(model).item()
    for _ in range(STEPS):
        optimizer.step(closure)
    assert problem(model).item() < max(left, DRIFTING.get(name, 0)) * before
