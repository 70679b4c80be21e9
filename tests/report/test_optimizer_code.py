"""Exported parameter groups do what the trained ones did."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.report.summaries import STEPS, make_spec, summary_of, trial
from tests.report.test_code import optimizers_of, run_exported
from tuner.analysis.summary import StudySummary
from tuner.domain.dimensions import Value
from tuner.domain.optimizers import OPTIMIZERS
from tuner.domain.trials import decode
from tuner.optim import JointOptimizer, build_optimizer, build_schedule
from tuner.report.code import to_python, to_toml
from tuner.report.json import to_json

GROUPED = [name for name, row in OPTIMIZERS.items() if row.groups and row.takes != "sparse"]
TRAIN: dict[str, Any] = {
    "no_decay_on_biases_and_norms": True,
    "groups": [
        {"name": "first", "match": "0.*", "lr_multiplier": {"low": 0.1, "high": 1.0}},
        {"name": "last", "match": "2.weight", "weight_decay": 0.3, "momentum": 0.5},
    ],
}
TOLD = ("name", "lr", "weight_decay", "momentum", "betas")


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


def test_an_exported_frozen_group_trains_as_ours_does(tmp_path: Path) -> None:
    group = {"name": "first", "match": "0.*", "lr_multiplier": 0.5, "frozen_until": 0.5}
    summary = winner("adam", {"groups": [group]})
    ours, theirs = network(), network()
    optimizer = trained(summary, ours)
    assert isinstance(optimizer, JointOptimizer)
    assert summary.best is not None
    schedule = build_schedule("cosine", summary.best.config.schedule_values, optimizer, STEPS)
    namespace = run_exported(to_python(summary), tmp_path)
    [exported] = optimizers_of(namespace, theirs)
    follows = namespace["build_schedule"](exported)
    before = ours[0].weight.detach().clone()
    for step in range(STEPS):
        batch = torch.randn(8, 3, generator=torch.Generator().manual_seed(step))
        namespace["freeze"](theirs, step)
        for model, stepped in ((ours, optimizer), (theirs, exported)):
            stepped.zero_grad()
            model(batch).square().mean().backward()
            stepped.step()
        schedule.step()
        follows.step()
        if step == STEPS // 2 - 1:
            assert torch.equal(ours[0].weight, before)
    assert not torch.equal(ours[0].weight, before)
    for mine, other in zip(ours.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(mine, other, rtol=1e-5, atol=1e-7)


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
