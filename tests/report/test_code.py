from __future__ import annotations

import itertools
import runpy
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from tests.report.summaries import STEPS, make_spec, mixed_summary, summary_of, trial
from tuner.analysis.summary import StudySummary
from tuner.domain.dimensions import Choice, Dimension, Value
from tuner.domain.optimizers import OPTIMIZERS
from tuner.domain.schedules import SCHEDULES
from tuner.domain.study_file import parse_spec
from tuner.domain.trials import Outcome, Proposal, decode, walk
from tuner.errors import NotFoundError
from tuner.optim import JointOptimizer, build_optimizer, build_schedule
from tuner.report.code import to_python, to_toml, to_winner

COMBINATIONS = list(itertools.product(OPTIMIZERS, SCHEDULES, (0.0, 0.1)))
POINT: dict[str, Value] = {
    "lr": 0.0123456789,
    "one_minus_beta1": 0.2,
    "one_minus_beta2": 0.003,
    "one_minus_momentum": 0.15,
    "one_minus_alpha": 0.05,
    "eps": 1e-7,
    "weight_decay": 1e-5,
    "adamw_lr": 0.002,
    "final_ratio": 0.03,
    "gamma": 0.3,
    "period": 0.2,
}
# How torch computes, not what: tuner takes the fused kernel where there is one.
KERNELS = {"params", "fused", "foreach"}


def winner(optimizer: str, schedule: str, warmup: float, **tables: Any) -> StudySummary:
    params: dict[str, Value] = {f"{schedule}.warmup": warmup}
    for branch, row in ((optimizer, OPTIMIZERS[optimizer]), (schedule, SCHEDULES[schedule])):
        for knob in row.hyperparameters:
            if knob.search_name in POINT:
                params[f"{branch}.{knob.search_name}"] = POINT[knob.search_name]
            if knob.switch:
                params[f"{branch}.{knob.switch_name}"] = True
    record = trial(3, optimizer, 0.25, schedule=schedule, params=params)
    return summary_of(record, spec=make_spec(**tables))


def network(*, bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(4, 3, bias=bias), nn.Linear(3, 2, bias=bias))


def run_exported(source: str, folder: Path, run_name: str = "winner") -> dict[str, Any]:
    path = folder / "winner.py"
    path.write_text(source, encoding="utf-8")
    return runpy.run_path(str(path), run_name=run_name)


def optimizers_of(namespace: dict[str, Any], model: nn.Module) -> list[torch.optim.Optimizer]:
    if "build_optimizers" in namespace:
        return list(namespace["build_optimizers"](model))
    return [namespace["build_optimizer"](model)]


def schedules_of(namespace: dict[str, Any], optimizers: list[torch.optim.Optimizer]) -> list[Any]:
    if "build_schedules" in namespace:
        return list(namespace["build_schedules"](optimizers))
    return [namespace["build_schedule"](optimizer) for optimizer in optimizers]


def parts_of(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    return list(optimizer.parts) if isinstance(optimizer, JointOptimizer) else [optimizer]


@pytest.mark.parametrize(("optimizer", "schedule", "warmup"), COMBINATIONS)
def test_the_exported_code_rebuilds_what_was_trained(
    tmp_path: Path, optimizer: str, schedule: str, warmup: float
):
    summary = winner(optimizer, schedule, warmup)
    assert summary.best is not None
    config, model = summary.best.config, network()
    own = build_optimizer(optimizer, config.optimizer_values, model)
    own_schedule = build_schedule(schedule, config.schedule_values, own, STEPS)
    namespace = run_exported(to_python(summary), tmp_path)
    exported = optimizers_of(namespace, model)
    exported_schedules = schedules_of(namespace, exported)

    for mine, theirs in zip(parts_of(own), exported, strict=True):
        assert type(mine) is type(theirs)
        for a, b in zip(mine.param_groups, theirs.param_groups, strict=True):
            assert list(map(id, a["params"])) == list(map(id, b["params"]))
            assert {k: v for k, v in a.items() if k not in KERNELS} == {
                k: v for k, v in b.items() if k not in KERNELS
            }
    assert namespace["STEPS"] == STEPS
    for _ in range(STEPS):
        own_rates = [group["lr"] for group in own.param_groups]
        rates = [group["lr"] for theirs in exported for group in theirs.param_groups]
        assert rates == own_rates
        own.step()
        own_schedule.step()
        for theirs, their_schedule in zip(exported, exported_schedules, strict=True):
            theirs.step()
            their_schedule.step()


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_the_exported_code_trains_as_the_winner_did(tmp_path: Path, optimizer: str):
    summary = winner(optimizer, "cosine", 0.1)
    assert summary.best is not None
    config = summary.best.config
    mine, theirs = network().double(), network().double()
    own = build_optimizer(optimizer, config.optimizer_values, mine)
    own_schedule = build_schedule("cosine", config.schedule_values, own, STEPS)
    namespace = run_exported(to_python(summary), tmp_path)
    exported = optimizers_of(namespace, theirs)
    schedules = schedules_of(namespace, exported)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        x = torch.randn(8, 4, dtype=torch.float64, generator=generator)
        for model, optimizers, following in (
            (mine, [own], [own_schedule]),
            (theirs, exported, schedules),
        ):
            model.zero_grad()
            (model(x) - 1).square().mean().backward()
            for one in optimizers:
                one.step()
            for one in following:
                one.step()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_the_exported_code_runs_on_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], optimizer: str
):
    run_exported(to_python(winner(optimizer, "cosine", 0.1)), tmp_path, "__main__")
    printed = capsys.readouterr().out
    assert OPTIMIZERS[optimizer].target.rpartition(".")[2] in printed
    assert "lr: first 0.00308642, top 0.0123457" in printed


def test_the_exported_code_leaves_frozen_parameters_out(tmp_path: Path):
    model = network()
    model[0].weight.requires_grad_(False)
    namespace = run_exported(to_python(winner("adam", "constant", 0.0)), tmp_path)
    held = namespace["build_optimizer"](model).param_groups[0]["params"]
    assert [id(p) for p in held] == [id(p) for p in model.parameters() if p.requires_grad]


def test_the_exported_code_builds_muon_for_a_model_of_matrices_alone(tmp_path: Path):
    model = network(bias=False)
    namespace = run_exported(to_python(winner("muon", "constant", 0.0)), tmp_path)
    exported = optimizers_of(namespace, model)
    assert [type(optimizer) for optimizer in exported] == [torch.optim.Muon]


@pytest.mark.parametrize("name", ['a"b', "it's", 'a"""b', 'ends in "', "ä 中", "{x} %s", "#"])
def test_the_exported_code_is_valid_whatever_the_study_is_called(tmp_path: Path, name: str):
    source = to_python(winner("sgd", "step", 0.0, name=name))
    assert repr(name) in source
    assert "build_optimizer" in run_exported(source, tmp_path)


@pytest.mark.parametrize(
    "name", ['"""; intruder = 1; """', "'; intruder = 1 #", "a\u2028intruder = 1"]
)
def test_a_name_cannot_smuggle_code_into_the_export(tmp_path: Path, name: str):
    namespace = run_exported(to_python(winner("sgd", "step", 0.0, name=name)), tmp_path)
    assert "intruder" not in namespace


def test_the_exported_code_says_where_it_comes_from():
    source = to_python(winner("adam", "cosine", 0.1, train={"batch_size": 64, "grad_clip": 0.5}))
    head = source.partition("import")[0]
    for said in ("'some_study'", "adam", "cosine", "Trial 3", "val_loss = 0.25", "batch size 64"):
        assert said in head
    assert "gradients clipped to norm 0.5" in head


@pytest.mark.parametrize(("optimizer", "schedule", "warmup"), COMBINATIONS)
def test_the_exported_study_fixes_every_choice_to_the_winner_s(
    optimizer: str, schedule: str, warmup: float
):
    summary = winner(optimizer, schedule, warmup)
    assert summary.best is not None
    spec = parse_spec(tomllib.loads(to_toml(summary)), origin="winner.toml").resolve()

    def only(name: str, axis: Dimension) -> Value:
        assert isinstance(axis, Choice)
        assert len(axis.choices) == 1
        return axis.choices[0]

    assert decode(spec, Proposal(walk(spec, only))) == summary.best.config
    assert spec.study.name == "some_study-winner"
    assert spec.study.workload == summary.spec.study.workload
    assert spec.budget.steps == STEPS


def test_the_exported_study_keeps_how_trials_are_trained():
    train = {"batch_size": {"choices": [64, 32]}, "grad_clip": 0.5, "precision": "float64"}
    summary = summary_of(
        trial(0, "sgd", 0.5, params={"batch_size": 32}), spec=make_spec(train=train)
    )
    spec = parse_spec(tomllib.loads(to_toml(summary)), origin="winner.toml")
    assert spec.to_json()["train"] == {"batch_size": 32, "grad_clip": 0.5, "precision": "float64"}


@pytest.mark.parametrize("name", ["x" * 200, 'a"b', "ä 中"])
def test_the_exported_study_is_valid_whatever_the_study_is_called(name: str):
    text = to_toml(winner("sgd", "step", 0.0, name=name))
    assert parse_spec(tomllib.loads(text), origin="winner.toml").study.name != name


def test_the_exported_default_is_the_optimizer_s_own():
    summary = summary_of(trial(0, "adam", 0.5, preset="default"))
    spec = parse_spec(tomllib.loads(to_toml(summary)), origin="winner.toml").resolve()
    config = decode(spec, Proposal({"optimizer": "adam", "schedule": "constant"}))
    assert config.optimizer_values == OPTIMIZERS["adam"].decode({})


def test_the_winner_as_values_can_be_built_from():
    values = to_winner(winner("muon", "step", 0.1))
    assert (values["study"], values["trial"], values["value"]) == ("some_study", 3, 0.25)
    assert [call["parameters"] for call in values["calls"]] == ["matrices", "others"]
    assert values["calls"][1] == {
        "target": "torch.optim.AdamW",
        "arguments": {"lr": 0.002},
        "parameters": "others",
    }
    assert values["schedule_values"] == {"warmup": 0.1, "gamma": 0.3, "period": 0.2}
    assert (values["steps"], values["batch_size"], values["precision"]) == (STEPS, 128, "float32")


@pytest.mark.parametrize("export", [to_python, to_toml, to_winner])
def test_without_a_complete_trial_there_is_no_winner_to_export(export: Any):
    summary = summary_of(trial(0, outcome=Outcome.FAILED), trial(1, "adam", 0.1, Outcome.PRUNED))
    with pytest.raises(NotFoundError, match="'some_study' has no complete trial yet"):
        export(summary)


def test_the_best_of_several_trials_is_exported():
    assert to_winner(mixed_summary())["trial"] == 2
