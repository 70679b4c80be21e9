"""Parameters that are frozen when an optimizer is built, and that their loop thaws later."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.optim.networks import EVERY_OPTIMIZER, Words
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.pytorch_optimizer import PACKAGE
from tuner.domain.groups import GroupValues
from tuner.errors import WorkloadError
from tuner.optim import build_optimizer

EVERY = (*EVERY_OPTIMIZER, *(f"pytorch_optimizer:{name}" for name in PACKAGE))
THAWED_AT, STEPS = 22, 26
"""Later than what some look at in their first steps."""


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 3))


def build(name: str, model: nn.Module, *groups: GroupValues, **options: Any) -> Any:
    # On batches, L-BFGS at its default rate goes anywhere.
    values = OPTIMIZERS[name].decode({"lr": 0.01} if name == "lbfgs" else {})
    return build_optimizer(name, values, model, groups, total_steps=STEPS, **options)


def first_of(model: nn.Module) -> Tensor:
    return next(iter(model.parameters()))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int) -> None:
    generator = torch.Generator().manual_seed(1)
    for _ in range(steps):
        x = torch.randn(16, 4, generator=generator)

        def closure(x: Tensor = x) -> Any:
            optimizer.zero_grad()
            loss = (model(x) - x[:, :3].square()).square().mean()
            loss.backward()
            return loss

        optimizer.step(closure)


@pytest.mark.parametrize("name", EVERY)
def test_what_the_loop_thaws_trains_from_then_on(name: str) -> None:
    model = Words() if OPTIMIZERS[name].takes == "sparse" else network()
    weight = first_of(model)
    weight.requires_grad_(False)
    before = weight.detach().clone()
    optimizer = build(name, model)
    train(model, optimizer, THAWED_AT)
    assert torch.equal(weight, before)
    weight.requires_grad_(True)
    if OPTIMIZERS[name].grows:
        train(model, optimizer, STEPS - THAWED_AT)
        assert not torch.equal(weight, before)
    else:
        with pytest.raises(WorkloadError, match=r"0\.weight began to .* by frozen_until: leave"):
            train(model, optimizer, 1)


@pytest.mark.parametrize("name", ["adamw", "lookahead(adam)", "muon", "yellowfin", "lbfgs"])
def test_what_stays_frozen_is_left_to_its_owner(name: str) -> None:
    """A momentum encoder, say, which a loop moves by hand."""
    model = network()
    weight = first_of(model)
    weight.requires_grad_(False)
    optimizer = build(name, model)
    for value in range(12):
        with torch.no_grad():
            weight.fill_(value)
        train(model, optimizer, 1)
        assert bool((weight == value).all())


def test_what_is_thawed_before_the_first_step_may_join_any_optimizer() -> None:
    model = network()
    model.requires_grad_(False)
    model[4].requires_grad_(True)
    optimizer = build("prodigy", model)
    model.requires_grad_(True)
    before = first_of(model).detach().clone()
    train(model, optimizer, 3)
    assert not torch.equal(first_of(model), before)


def test_a_group_may_be_of_frozen_parameters_and_is_told_as_what_trains() -> None:
    model = network()
    model[0].requires_grad_(False)
    optimizer = build("sgd", model, GroupValues("first", "0.*", lr_multiplier=0.5))
    sizes = [sum(p.numel() for p in group["params"]) for group in optimizer.param_groups]
    assert sizes == [40, 99]
    model[0].requires_grad_(True)
    before = first_of(model).detach().clone()
    train(model, optimizer, 1)
    assert not torch.equal(first_of(model), before)


def test_a_group_thaws_only_what_it_froze() -> None:
    model = network()
    model[0].bias.requires_grad_(False)
    optimizer = build("adam", model, GroupValues("first", "0.*", frozen_until=0.5))
    assert optimizer.thaw(0.5)
    assert model[0].weight.requires_grad
    assert not model[0].bias.requires_grad


def test_whole_numbers_are_no_parameters_to_optimize() -> None:
    model = network()
    model.register_parameter("codes", nn.Parameter(torch.zeros(3, dtype=torch.int8), False))
    for name in ("adam", "yellowfin", "lbfgs"):
        train(model, build(name, model), 2)
