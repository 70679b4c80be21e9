"""An optimizer trains as each of which the catalog says that it is a generalisation."""

from __future__ import annotations

import pytest
import torch

from tests.optim.networks import EVERY_OPTIMIZER, network, train
from tuner.domain.catalog.dimensions import Value
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.optim import build_optimizer

WITHIN: dict[str, dict[str, Value]] = {
    "momentum": {"momentum": 0.0},
    "nesterov": {"momentum": 1e-12},  # torch refuses 0
    "adamw": {"weight_decay": 0.0},
    "asgd": {"lambd": 0.0},
}
"""The settings, beside defaults and a common rate, at which an optimizer is the other one."""

PAIRS = [(name, special) for name in EVERY_OPTIMIZER for special in OPTIMIZERS[name].generalises]


def trained(name: str, values: dict[str, Value]) -> list[torch.Tensor]:
    """Returns the weights after some steps; settings in torch's form replace the defaults."""
    model = network(torch.float64)
    optimizer = build_optimizer(name, OPTIMIZERS[name].decode({}) | values, model)
    train(model, optimizer, steps=20)
    return [p.detach() for p in model.parameters()]


@pytest.mark.parametrize(("name", "special"), [pair for pair in PAIRS if pair[0] in WITHIN])
def test_at_some_settings_it_is_the_other_one(name: str, special: str) -> None:
    own = trained(name, {"lr": 0.01, **WITHIN[name]})
    other = trained(special, {"lr": 0.01})
    for mine, its in zip(own, other, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize(
    ("name", "special"),
    # Where a rate is not lr, or is that of one of two optimizers, alpha does not scale it alone.
    [pair for pair in PAIRS if pair[1] in ("momentum", "radam")],
)
def test_lookahead_in_steps_of_one_scales_the_rate(name: str, special: str) -> None:
    own = trained(name, {"lr": 0.02, "lookahead_k": 1, "lookahead_alpha": 0.5})
    other = trained(special, {"lr": 0.01})
    for mine, its in zip(own, other, strict=True):
        torch.testing.assert_close(mine, its, rtol=1e-6, atol=1e-9)


def test_every_relation_is_tested() -> None:
    around = {name for name, _ in PAIRS if OPTIMIZERS[name].wrapper}
    assert {name for name, _ in PAIRS} == WITHIN.keys() | around
