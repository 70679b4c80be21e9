"""Weights to evaluate are in place while it is evaluated, and only then."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tests.optim.networks import network, train
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.groups import GroupValues
from tuner.optim import CompositeOptimizer, Lookahead, build_optimizer
from tuner.optim.eval_mode import evaluation_mode

SCHEDULE_FREE = ("schedulefree_sgd", "schedulefree_adamw", "pytorch_optimizer:ScheduleFreeRAdam")


def weights(model: nn.Module) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1).clone() for p in model.parameters()])


def modes(optimizer: torch.optim.Optimizer) -> set[bool]:
    return {group["train_mode"] for group in optimizer.param_groups}


@pytest.mark.parametrize("name", SCHEDULE_FREE)
def test_averaged_weights_are_evaluated_and_training_goes_on_from_its_own(name: str) -> None:
    model = network(torch.float64)
    optimizer = build_optimizer(name, OPTIMIZERS[name].decode({}), model)
    train(model, optimizer, 7)
    training = weights(model)
    averaged = [
        p.detach().lerp(optimizer.state[p]["z"], 1 - 1 / 0.9) for p in model.parameters()
    ]  # from y = βx + (1−β)z
    with evaluation_mode([optimizer]):
        for p, x in zip(model.parameters(), averaged, strict=True):
            torch.testing.assert_close(p.detach(), x, rtol=1e-12, atol=1e-12)
        assert not torch.equal(weights(model), training)
    torch.testing.assert_close(weights(model), training, rtol=1e-12, atol=1e-12)


def test_weights_come_back_also_from_an_evaluation_that_fails() -> None:
    model = network(torch.float64)
    optimizer = build_optimizer("schedulefree_sgd", {"lr": 1.0, "momentum": 0.9}, model)
    train(model, optimizer, 3)
    training = weights(model)
    with pytest.raises(KeyError), evaluation_mode([optimizer]):
        raise KeyError
    assert modes(optimizer) == {True}
    torch.testing.assert_close(weights(model), training, rtol=1e-12, atol=1e-12)


def test_what_an_optimizer_is_made_of_is_switched_too() -> None:
    model = network()
    frozen = (GroupValues("first", "0.*", frozen_until=0.5),)
    joint = build_optimizer(
        "schedulefree_sgd", OPTIMIZERS["schedulefree_sgd"].decode({}), model, frozen
    )
    assert isinstance(joint, CompositeOptimizer)
    other = network()
    around = Lookahead(build_optimizer("schedulefree_sgd", {"lr": 1.0}, other))
    with evaluation_mode([joint, around]):
        assert modes(joint) == modes(around) == {False}
    assert modes(joint) == modes(around) == {True}


def test_other_optimizers_have_one_kind_of_weights() -> None:
    model = network()
    optimizer = build_optimizer("muon", OPTIMIZERS["muon"].decode({}), model)
    train(model, optimizer, 2)
    before = weights(model)
    with evaluation_mode([optimizer]):
        assert torch.equal(weights(model), before)
