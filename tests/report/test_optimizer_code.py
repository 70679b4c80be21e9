"""Exported parameter groups do what the trained ones did."""

from __future__ import annotations

import tomllib
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from torch import nn

from tests.optim.networks import EVERY_OPTIMIZER, Words
from tests.report.summaries import STEPS, make_spec, summary_of, trial
from tests.report.test_code import optimizers_of, run_exported
from tuner.analysis.summary import StudySummary
from tuner.domain.catalog.dimensions import Value
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.groups import GroupValues
from tuner.domain.study_file import parse_spec
from tuner.domain.trials import decode, default_proposals
from tuner.optim import CompositeOptimizer, build_optimizer, build_schedule
from tuner.report.code import to_python, to_toml, to_winner
from tuner.report.json import to_json

GROUPED = [
    name
    for name in EVERY_OPTIMIZER
    if OPTIMIZERS[name].groups and OPTIMIZERS[name].takes != "sparse"
]
TRAIN: dict[str, Any] = {
    "no_decay_on_biases_and_norms": True,
    "groups": [
        {"name": "first", "match": "0.*", "lr_multiplier": {"low": 0.1, "high": 1.0}},
        {"name": "last", "match": "2.weight", "weight_decay": 0.3, "momentum": 0.5},
    ],
}
TOLD = ("name", "lr", "lr_factor", "weight_decay", "momentum", "betas")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 2))


def winner(optimizer: str, train: dict[str, Any]) -> StudySummary:
    space = {"optimizers": [optimizer], "schedules": ["cosine"]}
    params: dict[str, Value] = {"groups.first.lr_multiplier": 0.25}
    record = trial(1, optimizer, 0.5, schedule="cosine", params=params)
    return summary_of(record, spec=make_spec(train=train, space=space))


def trained(summary: StudySummary, model: nn.Module) -> torch.optim.Optimizer:
    assert summary.best is not None
    config = decode(summary.spec, summary.best.record.proposal)
    return build_optimizer(
        config.optimizer,
        config.optimizer_values,
        model,
        config.groups,
        spare_vectors=summary.spec.train.no_decay_on_biases_and_norms,
        total_steps=STEPS,
    )


def names_of(model: nn.Module, group: dict[str, Any]) -> set[str]:
    own = {id(parameter) for parameter in group["params"]}
    return {name for name, parameter in model.named_parameters() if id(parameter) in own}


@pytest.mark.parametrize("optimizer", GROUPED)
def test_exported_groups_are_those_that_trained(optimizer: str, tmp_path: Path) -> None:
    summary = winner(optimizer, TRAIN)
    ours, theirs = network(), network()
    expected = trained(summary, ours).param_groups
    exported = optimizers_of(run_exported(to_python(summary), tmp_path), theirs)

    def told(model: nn.Module, group: dict[str, Any]) -> tuple[Any, ...]:
        return (names_of(model, group), *(group.get(key) for key in TOLD if key in known))

    known = set(expected[0])
    groups = [group for part in exported for group in part.param_groups]
    assert sorted(map(str, (told(theirs, group) for group in groups))) == sorted(
        map(str, (told(ours, group) for group in expected))
    )
    assert {group["name"] for group in groups} > {"first", "last"}


@pytest.mark.parametrize(
    "name", ["adam", "lookahead(adam)", "yellowfin", "adabelief", "schedulefree_adamw"]
)
def test_an_exported_frozen_group_trains_as_ours_does(tmp_path: Path, name: str) -> None:
    group = {"name": "first", "match": "0.*", "lr_multiplier": 0.5, "frozen_until": 0.5}
    summary = winner(name, {"groups": [group]})
    ours, theirs = network(), network()
    optimizer = trained(summary, ours)
    assert isinstance(optimizer, CompositeOptimizer)
    assert summary.best is not None
    schedule = build_schedule("cosine", summary.best.config.schedule_values, optimizer, STEPS)
    namespace = run_exported(to_python(summary), tmp_path)
    [exported] = optimizers_of(namespace, theirs)
    follows = namespace["build_schedule"](exported)
    weight = ours.get_parameter("0.weight")
    before = weight.detach().clone()
    for step in range(STEPS):
        batch = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        namespace["freeze"](exported, step)
        for model, stepped in ((ours, optimizer), (theirs, exported)):
            stepped.zero_grad()
            model(batch).square().mean().backward()
            stepped.step()
        schedule.step()
        follows.step()
        if step == STEPS // 2 - 1:
            assert torch.equal(weight, before)
    assert not torch.equal(weight, before)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7)


@settings(max_examples=200)
@given(hundredths=st.integers(1, 100), steps=st.integers(1, 1000))
@example(hundredths=55, steps=100)  # 0.55 * 100 is above 55
def test_an_exported_group_thaws_at_the_very_step(hundredths: int, steps: int) -> None:
    ours, theirs, until = network(), network(), hundredths / 100
    groups = (GroupValues("first", "0.*", frozen_until=until),)
    values = OPTIMIZERS["sgd"].decode({})
    optimizer = build_optimizer("sgd", values, ours, groups)
    now = 0
    schedule = build_schedule("constant", {}, optimizer, steps, clock=lambda: now)
    group = {"name": "first", "match": "0.*", "frozen_until": until}
    known: dict[str, Any] = {"__name__": "winner"}
    exec(to_python(winner("sgd", {"groups": [group]})), known)  # noqa: S102 (as a user runs it)
    known["STEPS"] = steps
    exported = known["build_optimizer"](theirs)
    middle = hundredths * steps // 100
    for now in sorted({0, middle - 1, middle, middle + 1, steps - 1} & set(range(steps))):
        schedule.step()
        known["freeze"](exported, now)
        for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
            assert mine.requires_grad == other.requires_grad


def test_what_is_frozen_for_good_stays_so_in_an_exported_group(tmp_path: Path) -> None:
    group = {"name": "first", "match": "0.*", "frozen_until": 0.5}
    namespace = run_exported(to_python(winner("adam", {"groups": [group]})), tmp_path)
    model = network()
    bias = model.get_parameter("0.bias").requires_grad_(False)
    [exported] = optimizers_of(namespace, model)
    for step in range(STEPS):
        namespace["freeze"](exported, step)
        assert not bias.requires_grad
    assert model.get_parameter("0.weight").requires_grad


@pytest.mark.parametrize("name", EVERY_OPTIMIZER)
def test_exported_optimizers_take_frozen_parameters_along(name: str, tmp_path: Path) -> None:
    space = {"optimizers": [name], "schedules": ["cosine"]}
    summary = summary_of(trial(1, name, 0.5, schedule="cosine"), spec=make_spec(space=space))
    model = Words() if OPTIMIZERS[name].takes == "sparse" else network()
    first, *_ = model.parameters()
    first.requires_grad_(False)
    ours = trained(summary, model)
    exported = optimizers_of(run_exported(to_python(summary), tmp_path), model)
    groups = [group for part in exported for group in part.param_groups]
    held = [[id(p) for p in group["params"]] for group in groups]
    assert held == [[id(p) for p in group["params"]] for group in ours.param_groups]
    assert any(id(first) in group for group in held)


def test_exported_sparse_adam_takes_what_the_trained_one_took(tmp_path: Path) -> None:
    space = {"optimizers": ["sparse_adam"], "schedules": ["cosine"]}
    record = trial(1, "sparse_adam", 0.5, schedule="cosine")
    summary = summary_of(record, spec=make_spec(space=space))
    model = nn.Sequential(
        nn.Embedding(5, 4, sparse=True),
        nn.Embedding(5, 4, sparse=True),
        nn.EmbeddingBag(5, 4, sparse=True),
        nn.Linear(4, 4),
        nn.Linear(4, 4),
    )
    model[1].weight = model[0].weight
    model[4].weight = model[3].weight
    model[2].weight.requires_grad_(False)
    model[3].bias.requires_grad_(False)
    ours = trained(summary, model)
    assert isinstance(ours, CompositeOptimizer)
    exported = optimizers_of(run_exported(to_python(summary), tmp_path), model)
    held = [
        [id(p) for group in part.param_groups for p in group["params"]]
        for part in (*ours.parts, *exported)
    ]
    assert held[:2] == held[2:]


@pytest.mark.parametrize("name", ["adam", "muon", "lookahead(adam)", "yellowfin"])
def test_exported_networks_train_with_what_they_have_of_their_own(
    name: str, tmp_path: Path
) -> None:
    rate = OPTIMIZERS[name].rate
    groups = [{"name": "first", "match": "maker.0.*", "lr_multiplier": 0.5}]
    spec = make_spec(
        train={"groups": groups, "no_decay_on_biases_and_norms": True},
        space={"optimizers": [name], "schedules": ["cosine"]},
        network={"maker": {name: {rate: {"low": 0.1, "high": 0.9}}}},
    )
    record = trial(1, name, 0.5, schedule="cosine", params={f"network.maker.{name}.{rate}": 0.25})
    record.attributes["networks"] = ["maker", "judge"]  # type: ignore[index]
    summary = summary_of(record, spec=spec)
    assert summary.best is not None
    config = summary.best.config
    namespace = run_exported(to_python(summary), tmp_path)
    build = namespace.get("build_optimizers") or (lambda *of: [namespace["build_optimizer"](*of)])
    for network_name in ("maker", "judge"):
        model = network()
        ours = build_optimizer(
            name,
            config.values_of(network_name),
            model,
            config.groups,
            spare_vectors=True,
            network=network_name,
        )
        exported = [group for part in build(model, network_name) for group in part.param_groups]
        known = [key for key in TOLD if key in ours.param_groups[0]]
        told = [
            [(names_of(model, g), *(g.get(k) for k in known)) for g in groups]
            for groups in (ours.param_groups, exported)
        ]
        assert sorted(map(str, told[0])) == sorted(map(str, told[1]))
        assert any(g["name"] == "first" for g in exported) == (network_name == "maker")


class Tied(nn.Module):
    """An embedding, two layers, and a head that is the embedding."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 4)
        self.up, self.down = nn.Linear(4, 6), nn.Linear(6, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.words.weight


@pytest.mark.parametrize("matrices", ["hidden", "all"])
@pytest.mark.parametrize("model", [Tied(), network(), nn.Linear(3, 2)])
def test_exported_muon_takes_what_the_trained_one_took(
    matrices: str, model: nn.Module, tmp_path: Path
) -> None:
    own = {"muon": {"matrices": matrices}}
    spec = make_spec(space={"optimizers": ["muon"], "schedules": ["cosine"]}, optimizer=own)
    summary = summary_of(trial(1, "muon", 0.5, schedule="cosine"), spec=spec)
    ours = trained(summary, model)
    assert isinstance(ours, CompositeOptimizer)
    exported = optimizers_of(run_exported(to_python(summary), tmp_path), model)
    held = [
        [id(p) for group in part.param_groups for p in group["params"]]
        for part in (*ours.parts, *exported)
    ]
    assert held[:2] == held[2:]


@pytest.mark.parametrize("wrap", [partial(torch.compile, backend="eager"), nn.DataParallel])
def test_exported_groups_are_those_of_the_model_that_is_wrapped(wrap: Any, tmp_path: Path) -> None:
    namespace = run_exported(to_python(winner("adam", TRAIN)), tmp_path)
    model = network()
    plain, wrapped = (namespace["build_optimizer"](m) for m in (model, wrap(model)))
    for ours, theirs in zip(plain.param_groups, wrapped.param_groups, strict=True):
        assert ours["name"] == theirs["name"]
        assert names_of(model, ours) == names_of(model, theirs)


def test_the_exported_study_fixes_what_networks_have_of_their_own() -> None:
    spec = make_spec(
        space={"optimizers": ["adam"], "schedules": ["cosine"]},
        network={"maker": {"adam": {"one_minus_beta1": {"low": 0.1, "high": 0.9}}}},
    )
    params: dict[str, Value] = {"network.maker.adam.one_minus_beta1": 0.25}
    summary = summary_of(trial(1, "adam", 0.5, schedule="cosine", params=params), spec=spec)
    again = parse_spec(tomllib.loads(to_toml(summary)), origin="winner").resolve()
    config = decode(again, default_proposals(again)[0])
    assert summary.best is not None
    assert config.networks == summary.best.config.networks == {"maker": {"beta1": 0.75}}
    calls = to_winner(summary)["networks"]["maker"]["calls"]
    assert calls[0]["arguments"]["betas"] == (0.75, 0.999)
    assert to_json(summary)["best"]["params"]["maker.beta1"] == 0.75


def test_the_exported_study_fixes_each_group(tmp_path: Path) -> None:
    text = to_toml(winner("adamw", TRAIN))
    assert "lr_multiplier = 0.25" in text
    assert "weight_decay = 0.3" in text


def test_reports_show_what_groups_trained_with() -> None:
    summary = winner("adam", TRAIN)
    assert summary.best is not None
    described = [{"name": "first", "parameters": 12, "lr": 0.1}]
    summary.best.record.attributes["groups"] = described  # type: ignore[index]
    assert to_json(summary)["best"]["groups"] == described
