"""Which matrices are of hidden layers, and so Muon's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.groups import GroupValues
from tuner.optim import CompositeOptimizer, build_optimizer
from tuner.optim.groups import hidden_matrices


class Tied(nn.Module):
    """A language model as nanoGPT's: its head is its embedding."""

    def __init__(self, *, tied: bool = True) -> None:
        super().__init__()
        self.tokens = nn.Embedding(11, 6)
        self.places = nn.Embedding(5, 6)
        self.attention = nn.MultiheadAttention(6, 2)
        self.up, self.down = nn.Linear(6, 12), nn.Linear(12, 6)
        self.norm = nn.LayerNorm(6)
        self.head = nn.Linear(6, 11, bias=False)
        if tied:
            self.head.weight = self.tokens.weight


HIDDEN = {"attention.in_proj_weight", "attention.out_proj.weight", "up.weight", "down.weight"}


def names_of(model: nn.Module, parameters: Any) -> set[str]:
    ids = {id(p) for p in parameters}
    return {name for name, p in model.named_parameters() if id(p) in ids}


@pytest.mark.parametrize("tied", [True, False])
def test_embeddings_and_the_head_are_not_hidden(tied: bool) -> None:
    model = Tied(tied=tied)
    assert names_of(model, hidden_matrices(model)) == HIDDEN


def test_convolutions_are_no_matrices_and_the_last_linear_is_the_output() -> None:
    model = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2, 5), nn.Linear(5, 3))
    assert names_of(model, hidden_matrices(model)) == {"2.weight"}


@pytest.mark.parametrize(
    ("model", "names"),
    [
        (nn.Linear(3, 2), {"weight"}),
        (nn.Sequential(nn.EmbeddingBag(7, 3), nn.Linear(3, 2)), {"0.weight", "1.weight"}),
        (nn.LayerNorm(3), set()),
    ],
)
def test_without_a_hidden_one_all_matrices_are(model: nn.Module, names: set[str]) -> None:
    assert names_of(model, hidden_matrices(model)) == names


def test_a_head_on_frozen_layers_is_what_there_is_to_train() -> None:
    model = Tied(tied=False).requires_grad_(False)
    model.head.requires_grad_(True)
    assert any(p is model.head.weight for p in hidden_matrices(model))


def test_layers_that_a_group_freezes_stay_hidden() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    groups = (GroupValues("first", "0.*", frozen_until=0.5),)
    optimizer = build_optimizer("muon", OPTIMIZERS["muon"].decode({}), model, groups)
    assert isinstance(optimizer, CompositeOptimizer)
    optimizer.thaw(0.5)
    held = {p: type(part).__name__ for part in optimizer.parts for g in part.param_groups
            for p in g["params"]}  # fmt: skip
    expected = ["Muon", "AdamW", "AdamW", "AdamW"]
    assert [held[p] for p in model.parameters()] == expected


@pytest.mark.parametrize("compiled", [False, True])
def test_the_head_moves_as_adamw_moves_it(compiled: bool) -> None:
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))
    model: Any = torch.compile(plain, backend="eager") if compiled else plain
    values = OPTIMIZERS["muon"].decode({"adamw_lr": 0.01})
    optimizer = build_optimizer("muon", values, model)
    before: list[Tensor] = [p.detach().clone() for p in plain.parameters()]
    plain(torch.ones(5, 3)).square().sum().backward()
    optimizer.step()
    head, twin = list(plain.parameters())[2], before[2].requires_grad_(True)
    twin.grad = head.grad
    torch.optim.AdamW([twin], lr=0.01).step()
    torch.testing.assert_close(head, twin)
