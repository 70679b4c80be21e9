"""Lookahead does what its paper says, around any optimizer, and as part of a run."""

from __future__ import annotations

import io
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from tests.optim.networks import network, train
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.groups import GroupValues
from tuner.errors import SpecError
from tuner.optim import CompositeOptimizer, Lookahead, build_optimizer


def around_momentum(model: nn.Module, k: int = 5, alpha: float = 0.5) -> Lookahead:
    return Lookahead(torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9), k, alpha)


def by_the_paper(model: nn.Module, k: int, alpha: float, steps: int) -> list[Tensor]:
    """Returns the weights after some steps of momentum in Lookahead, written as in the paper."""
    fast = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    slow = [p.detach().clone() for p in model.parameters()]
    for step in range(steps):
        train_once(model, fast, step)
        if (step + 1) % k == 0:
            for phi, theta in zip(slow, model.parameters(), strict=True):
                phi.add_(alpha * (theta.detach() - phi))
                theta.data.copy_(phi)
    return [p.detach() for p in model.parameters()]


def train_once(model: nn.Module, optimizer: torch.optim.Optimizer, step: int) -> None:
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(step)).double()
    optimizer.zero_grad()
    (model(x) - x[:, :3].square()).square().mean().backward()
    optimizer.step()


def through_disk(state: dict[str, Any]) -> dict[str, Any]:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    loaded: dict[str, Any] = torch.load(file, weights_only=True)
    return loaded


def same(a: nn.Module, b: nn.Module) -> bool:
    return all(torch.equal(p, q) for p, q in zip(a.parameters(), b.parameters(), strict=True))


@settings(max_examples=20)
@given(k=st.integers(1, 7), alpha=st.floats(0.1, 1.0), steps=st.integers(1, 15))
def test_it_is_the_paper_s_algorithm(k: int, alpha: float, steps: int) -> None:
    model, reference = network(torch.float64), network(torch.float64)
    optimizer = around_momentum(model, k, alpha)
    for step in range(steps):
        train_once(model, optimizer, step)
    expected = by_the_paper(reference, k, alpha, steps)
    for mine, theirs in zip(model.parameters(), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


def test_slow_weights_that_follow_at_once_change_nothing() -> None:
    model, plain = network(torch.float64), network(torch.float64)
    train(model, around_momentum(model, k=1, alpha=1.0), 5)
    train(plain, torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9), 5)
    assert same(model, plain)


def test_a_closure_is_called_once_and_its_loss_returned() -> None:
    model = network()
    optimizer = around_momentum(model)
    calls = []

    def closure() -> float:
        optimizer.zero_grad()
        loss: Tensor = model(torch.ones(2, 4)).square().mean()
        loss.backward()
        calls.append(loss.item())
        return loss.item()

    assert optimizer.step(closure) == calls[0]
    assert len(calls) == 1


@pytest.mark.parametrize("stopped_at", [0, 1, 4, 5, 7])
def test_a_state_restored_from_disk_continues_identically(stopped_at: int) -> None:
    whole, resumed = network(torch.float64), network(torch.float64)
    optimizer = around_momentum(whole)
    for step in range(stopped_at):
        train_once(whole, optimizer, step)
    state, weights = through_disk(optimizer.state_dict()), through_disk(whole.state_dict())
    for step in range(stopped_at, 13):
        train_once(whole, optimizer, step)
    resumed.load_state_dict(weights)
    continued = around_momentum(resumed)
    continued.load_state_dict(state)
    for step in range(stopped_at, 13):
        train_once(resumed, continued, step)
    assert same(whole, resumed)


def test_a_restored_state_keeps_nothing_of_what_was_there() -> None:
    model = network()
    optimizer = around_momentum(model)
    fresh = through_disk(optimizer.state_dict())
    train(model, optimizer, 3)
    optimizer.load_state_dict(fresh)
    assert optimizer.state_dict()["slow"] == [None] * 4
    assert not optimizer.state


def test_its_groups_and_state_are_those_of_the_optimizer_within_also_after_loading() -> None:
    model = network()
    optimizer = around_momentum(model)
    for _ in range(2):
        train(model, optimizer, 2)
        assert optimizer.param_groups is optimizer.inner.param_groups
        assert optimizer.state is optimizer.inner.state
        optimizer.load_state_dict(optimizer.state_dict())


def test_a_scheduler_drives_the_optimizer_within() -> None:
    model = network()
    optimizer = around_momentum(model)
    schedule = LambdaLR(optimizer, lambda step: 0.5**step)
    train(model, optimizer, 1)
    schedule.step()
    assert optimizer.inner.param_groups[0]["lr"] == 0.05


def test_a_group_may_join_between_two_updates_of_the_slow_weights() -> None:
    model = network(torch.float64)
    first, last = list(model[0].parameters()), list(model[2].parameters())
    optimizer = Lookahead(torch.optim.SGD(first, lr=0.1, momentum=0.9), k=2)
    train_once(model, optimizer, 0)
    optimizer.add_param_group({"params": last, "lr": 0.2})
    before = [p.detach().clone() for p in last]
    train_once(model, optimizer, 1)
    rates = [(group["lr"], group["momentum"]) for group in optimizer.inner.param_groups]
    assert rates == [(0.1, 0.9), (0.2, 0.9)]
    for p, start in zip(last, before, strict=True):
        assert p.grad is not None
        torch.testing.assert_close(p.detach(), start - 0.5 * 0.2 * p.grad, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", ["lookahead(momentum)", "lookahead(muon)", "ranger"])
def test_a_thawed_group_survives_a_checkpoint(name: str) -> None:
    groups = (GroupValues("first", "0.*", frozen_until=0.5),)
    models = network(torch.float64), network(torch.float64)
    whole, continued = (
        build_optimizer(name, OPTIMIZERS[name].decode({}), model, groups) for model in models
    )
    assert isinstance(whole, CompositeOptimizer)
    for step in range(9):
        if step == 3:
            whole.thaw(0.5)
        train_once(models[0], whole, step)
    models[1].load_state_dict(models[0].state_dict())
    continued.load_state_dict(through_disk(whole.state_dict()))
    for step in range(9, 16):
        train_once(models[0], whole, step)
        train_once(models[1], continued, step)
    assert same(*models)
    assert all(p.grad is not None for p in models[0].parameters())


def test_it_may_wait_for_its_first_group_to_thaw() -> None:
    groups = (GroupValues("matrices", "*.weight", frozen_until=0.5),)
    model, row = network(), OPTIMIZERS["lookahead(muon)"]
    optimizer = build_optimizer(row.name, row.decode({"lookahead_k": 2}), model, groups)
    assert isinstance(optimizer, CompositeOptimizer)
    weight = model.get_parameter("0.weight")
    before = weight.detach().clone()
    train(model, optimizer, 4)
    assert torch.equal(weight, before)
    optimizer.thaw(0.5)
    train(model, optimizer, 1)
    assert not torch.equal(weight, before)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.complex64])
def test_slow_weights_are_of_the_kind_of_the_parameters(dtype: torch.dtype) -> None:
    parameter = torch.ones(3, dtype=dtype, requires_grad=True)
    optimizer = Lookahead(torch.optim.SGD([parameter], lr=0.5), k=2)
    for _ in range(2):
        parameter.grad = torch.ones(3, dtype=dtype)
        optimizer.step()
    assert torch.equal(parameter.detach(), torch.full((3,), 0.5, dtype=dtype))
    assert optimizer.state_dict()["slow"][0].dtype == dtype


@pytest.mark.parametrize(
    ("k", "alpha", "said"), [(0, 0.5, "k = 0"), (2.5, 0.5, r"k = 2\.5"), (5, 0.0, r"alpha = 0\.0")]
)
def test_what_is_out_of_bounds_is_refused(k: Any, alpha: float, said: str) -> None:
    with pytest.raises(SpecError, match=said):
        around_momentum(network(), k, alpha)


def test_the_state_of_other_parameters_is_refused() -> None:
    model = network()
    optimizer = around_momentum(model)
    train(model, optimizer, 1)
    other = Lookahead(torch.optim.SGD([torch.zeros(3, 3)], lr=0.1))
    with pytest.raises(ValueError, match="other parameters"):
        other.load_state_dict(optimizer.state_dict())


def test_it_shows_what_it_is_around() -> None:
    assert repr(around_momentum(network())) == "Lookahead(SGD, k=5, alpha=0.5)"
