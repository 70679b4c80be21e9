"""Sparse gradients, whatever makes them so."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding

from tests.optim.networks import train
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.errors import WorkloadError
from tuner.optim import CompositeOptimizer, build_optimizer

# Torch's own Adagrad makes sparse tensors without saying whether to check them.
pytestmark = pytest.mark.filterwarnings("ignore:Sparse invariant checks")


class Functional(nn.Module):
    """An embedding that no module tells of, and a head."""

    def __init__(self, outputs: int = 3) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.words = nn.Parameter(torch.randn(2, 8))
        self.head = nn.Linear(8, outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Returns what the signs of x mean, summed."""
        found = embedding((x > 0).long(), self.words, sparse=True)
        logits: Tensor = self.head(torch.tanh(found).sum(1))
        return logits


class Both(Functional):
    """Has a module of sparse gradients too."""

    def __init__(self) -> None:
        super().__init__()
        self.more = nn.Embedding(2, 8, sparse=True)

    def forward(self, x: Tensor) -> Tensor:
        more: Tensor = super().forward(x) + self.head(self.more((x > 0).long()).sum(1))
        return more


def build(name: str, model: nn.Module) -> Any:
    return build_optimizer(name, OPTIMIZERS[name].decode({}), model)


@pytest.mark.parametrize("name", ["sgd", "momentum", "adagrad"])
def test_a_kernel_that_takes_no_sparse_gradients_is_left_at_the_first_one(name: str) -> None:
    model, twin = Functional(), Functional()
    optimizer = build(name, model)
    assert optimizer.param_groups[0]["fused"]
    [call] = OPTIMIZERS[name].calls(OPTIMIZERS[name].decode({}))
    constructor = getattr(torch.optim, call.target.rpartition(".")[2])
    plain = constructor(twin.parameters(), **call.arguments)
    train(model, optimizer, 5)
    train(twin, plain, 5)
    for ours, theirs in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs)


def test_a_gradient_that_is_there_tells_sparse_adam_what_is_its() -> None:
    model = Both()
    model(torch.randn(4, 4)).sum().backward()
    optimizer = build("sparse_adam", model)
    assert isinstance(optimizer, CompositeOptimizer)
    taken = {id(p) for p in optimizer.parts[0].param_groups[0]["params"]}
    assert taken == {id(model.words), id(model.more.weight)}
    before = model.words.detach().clone()
    train(model, optimizer, 2)
    assert not torch.equal(model.words, before)


def test_sparse_adam_that_finds_nothing_says_how_to_show_it() -> None:
    with pytest.raises(WorkloadError, match=r"has none: leave .* call backward\(\) on one batch"):
        build("sparse_adam", Functional())


def test_sparse_adam_that_has_missed_one_says_so_at_its_first_gradient() -> None:
    model = Both()
    optimizer = build("sparse_adam", model)
    with pytest.raises(WorkloadError, match=r"shape \(2, 8\) has a sparse .* call backward\(\)"):
        train(model, optimizer, 1)
