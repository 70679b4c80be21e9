"""Parameter groups: a partition of the model, each part with its own settings."""

from __future__ import annotations

import fnmatch
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.optim.networks import EVERY_OPTIMIZER, Words, network
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.groups import GroupValues
from tuner.errors import WorkloadError
from tuner.optim import CompositeOptimizer, build_optimizer
from tuner.optim.groups import check_groups, describe_groups, select_parameters, split_model

GROUPED = [
    name for name in EVERY_OPTIMIZER if OPTIMIZERS[name].groups and OPTIMIZERS[name].takes == "all"
]
PATTERNS = ("*", "0.*", "2.*", "*.weight", "*.bias", "2.weight", "?.bias", "[02].*", "none.*")

patterns = st.lists(st.sampled_from(PATTERNS), max_size=4)


def groups_of(*matches: str, **values: Any) -> tuple[GroupValues, ...]:
    return tuple(GroupValues(f"g{i}", match, **values) for i, match in enumerate(matches))


def build(name: str, model: nn.Module, *groups: GroupValues, **options: Any) -> Any:
    values = OPTIMIZERS[name].decode({})
    return build_optimizer(name, values, model, groups, total_steps=100, **options)


def described(optimizer: torch.optim.Optimizer) -> dict[str, dict[str, Any]]:
    return {group["name"]: group for group in describe_groups(optimizer)}


@settings(max_examples=100)
@given(matches=patterns, spare_vectors=st.booleans(), untrained=st.integers(0, 4))
def test_a_model_is_split_by_the_first_match_and_nothing_is_left_out(
    matches: list[str], spare_vectors: bool, untrained: int
) -> None:
    model = network()
    for parameter in list(model.parameters())[:untrained][:-1]:
        parameter.requires_grad_(False)
    named = dict(model.named_parameters())
    first = {
        n: next((i for i, m in enumerate(matches) if fnmatch.fnmatch(n, m)), -1) for n in named
    }
    blocks = split_model(model, groups_of(*matches), spare_vectors=spare_vectors)
    split = {id(p): block for block in blocks for p in block.parameters}
    assert sum(len(block.parameters) for block in blocks) == len(named)
    for name, parameter in named.items():
        block = split[id(parameter)]
        assert block.values.name == ("rest" if first[name] < 0 else f"g{first[name]}")
        assert block.spared == (spare_vectors and parameter.ndim < 2)


def test_a_group_that_takes_nothing_names_what_there_is() -> None:
    check_groups(["0.weight", "0.bias"], groups_of("*.bias", "*"))
    with pytest.raises(WorkloadError, match=r"'g1': match = '\*\.bias' takes no .*0\.weight, 0\."):
        check_groups(["0.weight", "0.bias"], groups_of("*", "*.bias"))


@settings(max_examples=50)
@given(ranks=st.lists(st.integers(0, 3), min_size=1, max_size=8))
def test_matrices_and_others_share_the_parameters_between_them(ranks: list[int]) -> None:
    model = nn.ParameterList([torch.zeros((2,) * rank) for rank in ranks])
    parameters = list(model.parameters())
    matrices = select_parameters("matrices", parameters, model)
    others = select_parameters("others", parameters, model)
    assert all(p.ndim == 2 for p in matrices)
    assert sorted(map(id, matrices + others)) == sorted(map(id, parameters))
    assert list(map(id, select_parameters("all", parameters, model))) == list(map(id, parameters))


def compiled(model: nn.Module) -> Any:
    return torch.compile(model, backend="eager")


def inside(model: Any) -> Any:
    model[0] = compiled(model[0])
    return model


@pytest.mark.parametrize(
    "wrap",
    [
        compiled,
        inside,
        nn.DataParallel,
        lambda model: compiled(nn.DataParallel(inside(model))),
        lambda model: nn.DataParallel(compiled(model)),
    ],
)
def test_patterns_match_the_names_of_the_model_that_is_wrapped(wrap: Any) -> None:
    model = network()
    blocks = split_model(wrap(model), groups_of("0.*"), spare_vectors=False)
    assert [block.values.name for block in blocks] == ["g0", "rest"]
    assert {id(p) for p in blocks[0].parameters} == {id(p) for p in model[0].parameters()}


def test_sparse_and_dense_share_the_parameters_between_them() -> None:
    model = Words()
    parameters = list(model.parameters())
    sparse = select_parameters("sparse", parameters, model)
    assert [p is model.words.weight for p in sparse] == [True]
    assert len(select_parameters("dense", parameters, model)) == 2


@pytest.mark.parametrize("name", GROUPED)
def test_every_optimizer_trains_each_group_at_its_own_rate(name: str) -> None:
    row = OPTIMIZERS[name]
    model = network()
    groups = (GroupValues("first", "0.*", lr_multiplier=0.5),)
    values = row.decode({row.rate: 0.02})
    optimizer = build_optimizer(name, values, model, groups, total_steps=100)
    rates = [(group["name"], group[row.rate]) for group in optimizer.param_groups]
    assert rates == [("first", 0.01), ("rest", 0.02)]
    held = [{id(p) for p in group["params"]} for group in optimizer.param_groups]
    assert held == [{id(p) for p in model[index].parameters()} for index in (0, 2)]


@pytest.mark.parametrize(
    ("name", "decay", "momentum"),
    [
        ("sgd", 0.25, 0.0),  # plain SGD stays plain: it has no momentum to set
        ("momentum", 0.25, 0.75),
        ("adam", 0.25, 0.75),
        ("adamw", 0.25, 0.75),
        ("adagrad", 0.25, None),
        ("rprop", None, None),
        ("lookahead(momentum)", 0.25, 0.75),
        ("adan", 0.25, 0.75),
        ("yellowfin", 0.25, None),  # which sets its momentum itself
    ],
)
def test_a_group_s_decay_and_momentum_apply_where_the_optimizer_has_them(
    name: str, decay: float | None, momentum: float | None
) -> None:
    model = network()
    group = GroupValues("first", "0.*", weight_decay=0.25, momentum=0.75)
    shown = described(build(name, model, group))["first"]
    assert (shown["weight_decay"], shown["momentum"]) == (decay, momentum)
    assert shown["parameters"] == 4 * 8 + 8


def test_both_halves_of_muon_follow_the_groups() -> None:
    values = OPTIMIZERS["muon"].decode(
        {"lr": 0.02, "adamw_lr": 0.004, "weight_decay": 0.1, "matrices": "all"}
    )
    group = GroupValues("first", "0.*", lr_multiplier=0.5, weight_decay=0.3, momentum=0.6)
    optimizer = build_optimizer("muon", values, network(), (group,))
    assert isinstance(optimizer, CompositeOptimizer)
    muon, adamw = optimizer.parts
    seen = [
        (type(part).__name__, g["name"], g["lr"], g["weight_decay"], len(g["params"]))
        for part in (muon, adamw)
        for g in part.param_groups
    ]
    assert seen == [
        ("Muon", "first", 0.01, 0.3, 1),
        ("Muon", "rest", 0.02, 0.1, 1),
        ("AdamW", "first", 0.002, 0.3, 1),
        ("AdamW", "rest", 0.004, 0.01, 1),
    ]
    assert muon.param_groups[0]["momentum"] == adamw.param_groups[0]["betas"][0] == 0.6


@pytest.mark.parametrize("name", ["adamw", "muon", "momentum"])
def test_biases_and_norms_may_be_spared_from_decay(name: str) -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 3))
    optimizer = build(name, model, GroupValues("last", "2.*", weight_decay=0.5), spare_vectors=True)
    decays = {
        id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]
    }
    vectors = [decays[id(p)] for p in model.parameters() if p.ndim < 2]
    assert vectors == [0.0] * 4
    assert decays[id(model[2].weight)] == 0.5
    assert decays[id(model[0].weight)] == OPTIMIZERS[name].decode({})["weight_decay"]


def test_a_model_without_groups_is_one_group() -> None:
    (group,) = describe_groups(build("adam", network()))
    assert (group["name"], group["parameters"]) == ("rest", 67)


# Frozen groups.


@pytest.mark.parametrize("name", [*(n for n in GROUPED if OPTIMIZERS[n].grows), "muon"])
def test_a_frozen_group_is_out_of_the_optimizer_until_its_time(name: str) -> None:
    model = network()
    optimizer = build(name, model, GroupValues("first", "0.*", frozen_until=0.5))
    frozen = list(model[0].parameters())
    assert isinstance(optimizer, CompositeOptimizer)
    assert not any(p.requires_grad for p in frozen)
    assert described(optimizer)["first"]["frozen_until"] == 0.5
    assert not optimizer.thaw(0.49)
    assert {g["name"] for g in optimizer.param_groups} == {"rest"}
    assert optimizer.thaw(0.5)
    assert all(p.requires_grad for p in frozen)
    held = {id(p) for group in optimizer.param_groups for p in group["params"]}
    assert held == {id(p) for p in model.parameters()}
    assert not optimizer.thaw(0.6)


def test_groups_thaw_one_after_the_other() -> None:
    optimizer = build(
        "adam",
        network(),
        GroupValues("late", "0.weight", frozen_until=0.7),
        GroupValues("early", "2.weight", frozen_until=0.3),
        GroupValues("never", "2.bias", frozen_until=1.0),
    )
    names = []
    for progress in (0.0, 0.3, 0.7, 1.0):
        optimizer.thaw(progress)
        names.append([group["name"] for group in optimizer.param_groups])
    early, late = ["rest", "early"], ["rest", "early", "late"]
    assert names == [["rest"], early, late, late]


@pytest.mark.parametrize("until", [0.5, 1.0])
@pytest.mark.parametrize("name", ["adam", "muon"])
def test_freezing_everything_is_refused_and_changes_nothing(name: str, until: float) -> None:
    model = network()
    with pytest.raises(WorkloadError, match=r"train\.groups freezes every parameter.*leave out"):
        build(name, model, *groups_of("0.*", "*", frozen_until=until))
    assert all(p.requires_grad for p in model.parameters())
