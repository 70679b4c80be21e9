from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from tuner.optim import CompositeOptimizer
from tuner.optim.composite import FrozenGroup


def network() -> nn.Linear:
    torch.manual_seed(0)
    return nn.Linear(4, 3).double()


def joint(model: nn.Linear) -> CompositeOptimizer:
    return CompositeOptimizer(
        [
            torch.optim.SGD([model.weight], lr=0.1, momentum=0.9),
            torch.optim.Adam([model.bias], lr=0.01),
        ]
    )


def loss_of(model: nn.Linear, step: int) -> Tensor:
    x = torch.randn(8, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(step))
    loss: Tensor = (model(x) - 1).square().mean()
    return loss


def train(model: nn.Linear, optimizer: torch.optim.Optimizer, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        loss_of(model, step).backward()
        optimizer.step()


def test_it_updates_as_its_parts_would_on_their_own() -> None:
    together, apart = network(), network()
    train(together, joint(together), range(5))
    parts = joint(apart).parts
    for step in range(5):
        apart.zero_grad()
        loss_of(apart, step).backward()
        for part in parts:
            part.step()
    assert torch.equal(together.weight, apart.weight)
    assert torch.equal(together.bias, apart.bias)


def test_a_restored_state_continues_identically() -> None:
    straight, resumed = network(), network()
    optimizer = joint(straight)
    train(straight, optimizer, range(7))
    saved = copy.deepcopy(optimizer.state_dict())
    resumed.load_state_dict(straight.state_dict())
    train(straight, optimizer, range(7, 15))
    continued = joint(resumed)
    continued.load_state_dict(saved)
    train(resumed, continued, range(7, 15))
    assert torch.equal(straight.weight, resumed.weight)
    assert torch.equal(straight.bias, resumed.bias)


def test_its_groups_are_those_of_its_parts_also_after_loading() -> None:
    model = network()
    optimizer = joint(model)
    for _ in range(2):
        groups = [group for part in optimizer.parts for group in part.param_groups]
        assert all(a is b for a, b in zip(optimizer.param_groups, groups, strict=True))
        optimizer.load_state_dict(optimizer.state_dict())


def test_a_scheduler_drives_every_part_also_after_loading() -> None:
    model = network()
    optimizer = joint(model)
    schedule = LambdaLR(optimizer, lambda step: 0.5**step)
    train(model, optimizer, range(1))
    schedule.step()
    optimizer.load_state_dict(optimizer.state_dict())
    train(model, optimizer, range(1))
    schedule.step()
    rates = [part.param_groups[0]["lr"] for part in optimizer.parts]
    assert rates == pytest.approx([0.025, 0.0025])


def test_zero_grad_reaches_every_part() -> None:
    model = network()
    optimizer = joint(model)
    loss_of(model, 0).backward()
    optimizer.zero_grad(set_to_none=False)
    for p in model.parameters():
        assert p.grad is not None
        assert not p.grad.any()
    optimizer.zero_grad()
    assert model.weight.grad is model.bias.grad is None


def test_a_closure_is_called_once_and_its_loss_returned() -> None:
    model = network()
    optimizer = joint(model)
    calls = []

    def closure() -> float:
        optimizer.zero_grad()
        loss = loss_of(model, 0)
        loss.backward()
        calls.append(loss.item())
        return loss.item()

    with torch.no_grad():
        returned = optimizer.step(closure)
    assert calls == [returned]


def test_a_parameter_in_two_parts_is_refused() -> None:
    model = network()
    parts = [torch.optim.SGD(model.parameters(), lr=1.0), torch.optim.SGD([model.bias], lr=1.0)]
    with pytest.raises(ValueError, match="belongs to two optimizers"):
        CompositeOptimizer(parts)


def test_no_parts_are_refused() -> None:
    with pytest.raises(ValueError, match="at least one optimizer"):
        CompositeOptimizer([])


def test_the_state_of_another_number_of_parts_is_refused() -> None:
    model = network()
    state = joint(model).state_dict()
    single = CompositeOptimizer([torch.optim.SGD(model.parameters(), lr=1.0)])
    with pytest.raises(ValueError, match="The state has 2 parts, not 1"):
        single.load_state_dict(state)


def test_it_shows_its_parts() -> None:
    assert repr(joint(network())) == "CompositeOptimizer(SGD, Adam)"


def with_frozen(model: nn.Linear) -> CompositeOptimizer:
    optimizer = torch.optim.SGD([model.weight], lr=0.1, momentum=0.9)
    group = {**optimizer.param_groups[0], "params": [model.bias], "frozen_until": 0.5}
    model.bias.requires_grad_(False)
    return CompositeOptimizer([optimizer], [FrozenGroup(optimizer, group, (model.bias,))])


@pytest.mark.parametrize("thawed", [False, True])
def test_a_restored_state_thaws_what_had_thawed(thawed: bool) -> None:
    straight, resumed = network(), network()
    optimizer, continued = with_frozen(straight), with_frozen(resumed)
    train(straight, optimizer, range(3))
    if thawed:
        optimizer.thaw(0.5)
        train(straight, optimizer, range(3, 6))
    saved = copy.deepcopy(optimizer.state_dict())
    resumed.load_state_dict(straight.state_dict())
    continued.load_state_dict(saved)
    for model, trained in ((straight, optimizer), (resumed, continued)):
        trained.thaw(0.6)
        train(model, trained, range(6, 9))
    assert torch.equal(straight.weight, resumed.weight)
    assert torch.equal(straight.bias, resumed.bias)


def test_the_state_of_before_a_thaw_is_refused_afterwards() -> None:
    optimizer = with_frozen(network())
    before = optimizer.state_dict()
    optimizer.thaw(0.5)
    with pytest.raises(ValueError, match="other groups frozen"):
        optimizer.load_state_dict(before)


def test_the_state_of_more_groups_than_there_are_is_refused() -> None:
    optimizer = joint(network())
    with pytest.raises(ValueError, match="other groups frozen"):
        optimizer.load_state_dict(optimizer.state_dict() | {"thawed": 1})


def test_a_frozen_parameter_does_not_change() -> None:
    model = network()
    optimizer = with_frozen(model)
    bias = model.bias.clone()
    train(model, optimizer, range(3))
    assert torch.equal(model.bias, bias)
    optimizer.thaw(0.5)
    train(model, optimizer, range(3, 6))
    assert not torch.equal(model.bias, bias)
