from __future__ import annotations

import itertools
import runpy
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import Any

import jinja2
import pytest
import torch
from torch import nn
from torch.optim.lr_scheduler import ReduceLROnPlateau

from tests.optim.networks import EVERY_OPTIMIZER
from tests.report.summaries import (
    STEPS,
    make_spec,
    make_timed_spec,
    mixed_summary,
    summary_of,
    trial,
)
from tuner.analysis.summary import StudySummary
from tuner.domain.catalog.dimensions import Choice, Dimension, Value
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.domain.space import walk
from tuner.domain.study_file import parse_spec
from tuner.domain.trials import Outcome, Proposal, decode
from tuner.errors import NotFoundError
from tuner.optim import CompositeOptimizer, Lookahead, build_optimizer, build_schedule
from tuner.optim.groups import rate_key
from tuner.report.code import _environment, to_python, to_toml, to_winner

TORCHS = [name for name, row in OPTIMIZERS.items() if row.target.startswith("torch.")]
OTHERS = [name for name in EVERY_OPTIMIZER if name not in TORCHS]
# How a schedule is printed depends on the optimizer only by what it drives and by closures.
COMBINATIONS = [
    *itertools.product((*TORCHS, "yellowfin"), SCHEDULES, (0.0, 0.1)),
    *itertools.product((n for n in OTHERS if n != "yellowfin"), ("cosine", "one_cycle"), (0.1,)),
]
POINT: dict[str, Value] = {
    "lr": 0.0123456789,
    "lr_factor": 0.0123456789,
    "d_coef": 0.7,
    "window": 10,
    "lookahead_k": 3,
    "lookahead_alpha": 0.4,
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
    "pct_start": 0.25,
    "cycles": 2,
    "T_mult": 2,
    "half_cycle": 0.25,
    "base_ratio": 0.2,
    "factor": 0.3,
    "patience": 0.2,
}
# How torch computes, not what: tuner takes the fused kernel where there is one.
KERNELS = {"params", "name", "fused", "foreach"}
METRICS = [3.0, 2.0, 2.5, 2.5, 2.5, 1.9, float("nan"), 1.95, 1.95, 5.0]


def winner(
    optimizer: str,
    schedule: str,
    warmup: float,
    attributes: dict[str, Any] | None = None,
    **tables: Any,
) -> StudySummary:
    params: dict[str, Value] = {} if schedule == "one_cycle" else {f"{schedule}.warmup": warmup}
    for branch, row in ((optimizer, OPTIMIZERS[optimizer]), (schedule, SCHEDULES[schedule])):
        for knob in row.hyperparameters:
            if knob.search_name in POINT:
                params[f"{branch}.{knob.search_name}"] = POINT[knob.search_name]
            if knob.switch:
                params[f"{branch}.{knob.switch_name}"] = True
    record = trial(3, optimizer, 0.25, schedule=schedule, params=params)
    record = replace(record, attributes={**record.attributes, **(attributes or {})})
    return summary_of(record, spec=make_spec(**tables))


def network(optimizer: str = "adam", *, bias: bool = True) -> nn.Module:
    torch.manual_seed(0)
    sparse = OPTIMIZERS[optimizer].takes == "sparse"
    return nn.Sequential(nn.Embedding(5, 4, sparse=sparse), nn.Linear(4, 2, bias=bias))


class Loss:
    """A model's loss on a batch, to be called as a closure, and how often it was."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.batch = torch.empty(0)
        self.calls = 0

    def __call__(self) -> Any:
        self.calls += 1
        self.model.zero_grad()
        loss = (self.model(self.batch) - 1).square().mean()
        loss.backward()
        return loss


def run_exported(source: str, folder: Path, run_name: str = "winner") -> dict[str, Any]:
    path = folder / "winner.py"
    path.write_text(source, encoding="utf-8")
    return runpy.run_path(str(path), run_name=run_name)


def optimizers_of(namespace: dict[str, Any], model: nn.Module) -> list[torch.optim.Optimizer]:
    if "build_optimizers" in namespace:
        return list(namespace["build_optimizers"](model))
    return [namespace["build_optimizer"](model)]


class Exported:
    """An exported module's optimizers and schedules, used as its docstrings say."""

    def __init__(self, source: str, folder: Path, model: nn.Module) -> None:
        self.namespace = run_exported(source, folder)
        self.optimizers = optimizers_of(self.namespace, model)
        warm = self.namespace.get("build_warmup")
        warmups = [warm(optimizer) for optimizer in self.optimizers] if warm else []
        build = self.namespace["build_schedule"]
        schedules = [build(optimizer) for optimizer in self.optimizers]
        follows = isinstance(schedules[0], ReduceLROnPlateau)
        self.stepped = warmups if follows else schedules
        self.observers = [
            schedule.step if follows else getattr(schedule, "observe", lambda value: None)
            for schedule in schedules
        ]
        self.steps = 0

    @property
    def param_groups(self) -> list[dict[str, Any]]:
        return [group for optimizer in self.optimizers for group in optimizer.param_groups]

    def step(self, closure: Any = None) -> None:
        for optimizer in self.optimizers:
            optimizer.step(closure)
        self.steps += 1
        if self.steps % self.namespace.get("EPOCH_STEPS", 1) == 0:
            for schedule in self.stepped:
                schedule.step()

    def observe(self, value: float) -> None:
        for observe in self.observers:
            observe(value)


def standing(groups: list[dict[str, Any]]) -> list[tuple[float, Any, Any]]:
    return [(group[rate_key(group)], group.get("momentum"), group.get("betas")) for group in groups]


def assert_same_standing(own: list[dict[str, Any]], exported: list[dict[str, Any]]) -> None:
    mine, theirs = standing(own), standing(exported)
    # Torch's reduction multiplies a rate that it has already multiplied: the last bits differ.
    assert [lr for lr, *_ in theirs] == pytest.approx([lr for lr, *_ in mine], rel=1e-12)
    assert [rest for _, *rest in theirs] == [rest for _, *rest in mine]


def parts_of(optimizer: torch.optim.Optimizer) -> list[torch.optim.Optimizer]:
    return list(optimizer.parts) if isinstance(optimizer, CompositeOptimizer) else [optimizer]


@pytest.mark.parametrize(("optimizer", "schedule", "warmup"), COMBINATIONS)
def test_the_exported_code_rebuilds_what_was_trained(
    tmp_path: Path, optimizer: str, schedule: str, warmup: float
) -> None:
    summary = winner(optimizer, schedule, warmup)
    assert summary.best is not None
    config, model = summary.best.config, network(optimizer)
    own = build_optimizer(optimizer, config.optimizer_values, model, total_steps=STEPS)
    namespace = run_exported(to_python(summary), tmp_path)

    for mine, theirs in zip(parts_of(own), optimizers_of(namespace, model), strict=True):
        assert type(mine) is type(theirs)
        if isinstance(mine, Lookahead) and isinstance(theirs, Lookahead):
            assert (mine.k, mine.alpha) == (theirs.k, theirs.alpha)
            assert type(mine.inner) is type(theirs.inner)
        for a, b in zip(mine.param_groups, theirs.param_groups, strict=True):
            assert list(map(id, a["params"])) == list(map(id, b["params"]))
            assert {k: v for k, v in a.items() if k not in KERNELS} == {
                k: v for k, v in b.items() if k not in KERNELS
            }
    assert namespace["STEPS"] == STEPS


def follow_both(summary: StudySummary, folder: Path, epoch_steps: int | None = None) -> None:
    """Compares the exported schedule with the trained one at every step."""
    assert summary.best is not None
    config = summary.best.config
    model = network(config.optimizer)
    own = build_optimizer(config.optimizer, config.optimizer_values, model, total_steps=STEPS)
    taken = 0

    def closure() -> float:
        nonlocal taken
        taken += 1
        return 0.0

    counts = OPTIMIZERS[config.optimizer].closure
    schedule = build_schedule(
        config.schedule,
        config.schedule_values,
        own,
        STEPS,
        clock=lambda: taken,
        epoch_steps=epoch_steps,
        evaluations=summary.spec.budget.evaluations,
        direction=summary.spec.study.direction,
    )
    exported = Exported(to_python(summary), folder, model)
    if OPTIMIZERS[config.optimizer].takes != "sparse":
        for parameter in model.parameters():
            parameter.grad = torch.zeros_like(parameter)
    for step in range(STEPS):
        assert_same_standing(own.param_groups, exported.param_groups)
        own.step(closure)
        taken = taken if counts else step + 1
        schedule.step()
        exported.step(lambda: 0.0)
        if (step + 1) % 4 == 0:
            metric = METRICS[step // 4]
            schedule.observe(metric)
            exported.observe(metric)
    assert_same_standing(own.param_groups, exported.param_groups)


@pytest.mark.parametrize(("optimizer", "schedule", "warmup"), COMBINATIONS)
def test_the_exported_schedule_is_followed_as_in_training(
    tmp_path: Path, optimizer: str, schedule: str, warmup: float
) -> None:
    follow_both(winner(optimizer, schedule, warmup), tmp_path)


@pytest.mark.parametrize("optimizer", ["momentum", "adamw", "muon", "lbfgs", "yellowfin"])
@pytest.mark.parametrize("schedule", list(SCHEDULES))
@pytest.mark.parametrize("warmup", [0.0, 0.5])
def test_the_exported_schedule_is_stepped_by_epoch_where_training_did(
    tmp_path: Path, optimizer: str, schedule: str, warmup: float
) -> None:
    summary = winner(
        optimizer, schedule, warmup, {"epoch_steps": 7}, train={"schedule_by": "epoch"}
    )
    told = "epoch_steps=7" if optimizer == "yellowfin" else "EPOCH_STEPS = 7"
    assert (told in to_python(summary)) or schedule == "plateau"
    follow_both(summary, tmp_path, epoch_steps=7)


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_exported_plateau_cuts_the_rate_when_the_metric_says_so(
    tmp_path: Path, direction: str
) -> None:
    summary = winner(
        "momentum",
        "plateau",
        0.1,
        study={"name": "s", "workload": "a:b", "metric": "val_loss", "direction": direction},
    )
    follow_both(summary, tmp_path)
    exported = Exported(to_python(summary), tmp_path, network())
    for _ in range(STEPS):
        exported.step()
    top = exported.param_groups[0]["lr"]
    for _ in range(4):
        exported.observe(1.0)
    assert exported.param_groups[0]["lr"] < top


@pytest.mark.parametrize("schedule", ["cosine", "one_cycle"])
@pytest.mark.parametrize("optimizer", EVERY_OPTIMIZER)
def test_the_exported_code_trains_as_the_winner_did(
    tmp_path: Path, optimizer: str, schedule: str
) -> None:
    summary = winner(optimizer, schedule, 0.1)
    assert summary.best is not None
    config = summary.best.config
    mine, theirs = network(optimizer).double(), network(optimizer).double()
    own = build_optimizer(optimizer, config.optimizer_values, mine, total_steps=STEPS)
    counted = Loss(mine)
    counts = OPTIMIZERS[optimizer].closure
    own_schedule = build_schedule(
        schedule,
        config.schedule_values,
        own,
        STEPS,
        clock=(lambda: counted.calls) if counts else None,
    )
    exported = Exported(to_python(summary), tmp_path, theirs)
    following = Loss(theirs)
    generator = torch.Generator().manual_seed(0)
    for _ in range(STEPS):
        counted.batch = following.batch = torch.randint(0, 5, (8,), generator=generator)
        if counts:
            own.step(counted)
            exported.step(following)
        else:
            counted()
            own.step()
            following()
            exported.step()
        own_schedule.step()
    for a, b in zip(mine.parameters(), theirs.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("optimizer", EVERY_OPTIMIZER)
def test_the_exported_code_runs_on_its_own(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], optimizer: str
) -> None:
    run_exported(to_python(winner(optimizer, "cosine", 0.1)), tmp_path, "__main__")
    printed = capsys.readouterr().out
    assert OPTIMIZERS[optimizer].target.rpartition(".")[2] in printed
    assert f"{OPTIMIZERS[optimizer].rate}: first 0.00308642, top 0.0123457" in printed


@pytest.mark.parametrize("optimizer", ["momentum", "muon", "lbfgs", "yellowfin"])
@pytest.mark.parametrize("schedule", list(SCHEDULES))
@pytest.mark.parametrize("schedule_by", ["step", "epoch"])
def test_every_exported_schedule_runs_on_its_own(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    optimizer: str,
    schedule: str,
    schedule_by: str,
) -> None:
    train = {"schedule_by": schedule_by}
    source = to_python(winner(optimizer, schedule, 0.5, {"epoch_steps": 7}, train=train))
    run_exported(source, tmp_path, "__main__")
    assert f"{OPTIMIZERS[optimizer].rate}: first 0.0" in capsys.readouterr().out
    assert max(len(line) for line in source.splitlines() if "torch.optim." not in line) <= 100


def test_the_exported_code_takes_frozen_parameters_along(tmp_path: Path) -> None:
    model = network()
    model.get_parameter("0.weight").requires_grad_(False)
    namespace = run_exported(to_python(winner("adam", "constant", 0.0)), tmp_path)
    held = namespace["build_optimizer"](model).param_groups[0]["params"]
    assert [id(p) for p in held] == [id(p) for p in model.parameters()]


def test_the_exported_code_builds_muon_for_a_model_of_matrices_alone(tmp_path: Path) -> None:
    model = nn.Linear(3, 2, bias=False)
    namespace = run_exported(to_python(winner("muon", "constant", 0.0)), tmp_path)
    exported = optimizers_of(namespace, model)
    assert [type(optimizer) for optimizer in exported] == [torch.optim.Muon]


@pytest.mark.parametrize("name", ['a"b', "it's", 'a"""b', 'ends in "', "ä 中", "{x} %s", "#"])
def test_the_exported_code_is_valid_whatever_the_study_is_called(tmp_path: Path, name: str) -> None:
    source = to_python(winner("sgd", "step", 0.0, name=name))
    assert repr(name) in source
    assert "build_optimizer" in run_exported(source, tmp_path)


@pytest.mark.parametrize(
    "name", ['"""; intruder = 1; """', "'; intruder = 1 #", "a\u2028intruder = 1"]
)
def test_a_name_cannot_smuggle_code_into_the_export(tmp_path: Path, name: str) -> None:
    namespace = run_exported(to_python(winner("sgd", "step", 0.0, name=name)), tmp_path)
    assert "intruder" not in namespace


@pytest.mark.parametrize("optimizer", ["adam", "muon"])
@pytest.mark.parametrize("name", ['"""; intruder = 1; """', "'; intruder = 1 #", "a\\"])
def test_a_network_s_name_cannot_smuggle_code_into_the_export(
    tmp_path: Path, optimizer: str, name: str
) -> None:
    source = to_python(winner(optimizer, "step", 0.0, {"networks": [name, "b"]}))
    assert "intruder" not in run_exported(source, tmp_path)


@pytest.mark.parametrize("value", ["a'\"\n", "{{ 1 }}", 0.1, ("<&>", None), [1]])
def test_a_template_writes_a_value_as_its_repr(value: Any) -> None:
    template = _environment().from_string("{% set x %}{{ value }}{% endset %}{{ x }}")
    assert template.render(value=value) == repr(value)


def test_a_template_does_not_write_what_is_not_defined() -> None:
    with pytest.raises(jinja2.UndefinedError, match="missing"):
        _environment().from_string("{{ missing }}").render()


def test_an_exported_plateau_of_tuner_s_runs_where_calls_moved_it_by_many_steps(
    tmp_path: Path,
) -> None:
    calls = [{"calls": 5, "steps": 4, "optimizer_steps": 4}]
    source = to_python(winner("yellowfin", "plateau", 0.0, {"schedule_calls": calls}))
    assert run_exported(source, tmp_path)["CALL_STEPS"] == 4


def test_the_exported_code_says_where_it_comes_from() -> None:
    source = to_python(winner("adam", "cosine", 0.1, train={"batch_size": 64, "grad_clip": 0.5}))
    head = source.partition("import")[0]
    for said in ("'some_study'", "adam", "cosine", "Trial 3", "val_loss = 0.25", "batch size 64"):
        assert said in head
    assert "gradients clipped to norm 0.5" in head


@pytest.mark.parametrize(("optimizer", "schedule", "warmup"), COMBINATIONS)
def test_the_exported_study_fixes_every_choice_to_the_winner_s(
    optimizer: str, schedule: str, warmup: float
) -> None:
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


def test_the_exported_study_starts_from_no_other() -> None:
    start = {"study": "quick", "trials": 9, "value": 0.7}
    spec = make_spec(warm_start=start, search={"warm_start": "quick"})
    exported = tomllib.loads(to_toml(summary_of(trial(0, "sgd", 0.5), spec=spec)))
    assert "warm_start" not in exported
    assert exported["search"]["warm_start"] == "off"
    assert parse_spec(exported, origin="winner.toml").warm_start is None


def test_the_exported_study_keeps_how_trials_are_trained() -> None:
    train = {"batch_size": {"choices": [64, 32]}, "grad_clip": 0.5, "precision": "float64"}
    summary = summary_of(
        trial(0, "sgd", 0.5, params={"batch_size": 32}), spec=make_spec(train=train)
    )
    spec = parse_spec(tomllib.loads(to_toml(summary)), origin="winner.toml")
    kept = {"batch_size": 32, "grad_clip": 0.5, "precision": "float64"}
    assert spec.to_json()["train"].items() >= kept.items()


@pytest.mark.parametrize("name", ["x" * 200, 'a"b', "ä 中"])
def test_the_exported_study_is_valid_whatever_the_study_is_called(name: str) -> None:
    text = to_toml(winner("sgd", "step", 0.0, name=name))
    assert parse_spec(tomllib.loads(text), origin="winner.toml").study.name != name


def test_the_exported_default_is_the_optimizer_s_own() -> None:
    summary = summary_of(trial(0, "adam", 0.5, preset="default"))
    spec = parse_spec(tomllib.loads(to_toml(summary)), origin="winner.toml").resolve()
    config = decode(spec, Proposal({"optimizer": "adam", "schedule": "constant"}))
    assert config.optimizer_values == OPTIMIZERS["adam"].decode({})


def test_the_winner_as_values_can_be_built_from() -> None:
    values = to_winner(winner("muon", "step", 0.1))
    assert (values["study"], values["trial"], values["value"]) == ("some_study", 3, 0.25)
    assert [call["parameters"] for call in values["calls"]] == ["hidden", "outer"]
    assert values["calls"][1] == {
        "target": "torch.optim.AdamW",
        "arguments": {"lr": 0.002},
        "parameters": "outer",
    }
    assert values["schedule_values"] == {"warmup": 0.1, "gamma": 0.3, "period": 0.2}
    assert (values["steps"], values["batch_size"], values["precision"]) == (STEPS, 128, "float32")


def test_an_exported_time_to_a_target_says_that_it_is_one() -> None:
    summary = summary_of(trial(0, "adam", 12.0), spec=make_timed_spec())
    assert to_toml(summary).startswith("# The winner of some_study: trial 0, 12 steps.\n")
    values = to_winner(summary)
    told = (values["value"], values["objective"], values["target"], values["unit"])
    assert told == (12.0, "time_to_target", 0.5, "steps")


@pytest.mark.parametrize("export", [to_python, to_toml, to_winner])
def test_without_a_complete_trial_there_is_no_winner_to_export(export: Any) -> None:
    summary = summary_of(trial(0, outcome=Outcome.FAILED), trial(1, "adam", 0.1, Outcome.PRUNED))
    with pytest.raises(NotFoundError, match="'some_study' has no complete trial yet"):
        export(summary)


def test_the_best_of_several_trials_is_exported() -> None:
    assert to_winner(mixed_summary())["trial"] == 2


@pytest.mark.parametrize(
    ("optimizer", "needs"),
    [
        ("adam", ""),
        ("lookahead(sgd)", "tuner"),
        ("yellowfin", "tuner"),
        ("lion", "pytorch-optimizer"),
        ("lookahead(pytorch_optimizer:Tiger)", "pytorch-optimizer and tuner"),
    ],
)
def test_the_exported_code_says_what_it_needs_and_imports_no_more(
    optimizer: str, needs: str
) -> None:
    source = to_python(winner(optimizer, "cosine", 0.1, space=space_of(optimizer)))
    assert (f"# Install torch, {needs} to run it." in source) == bool(needs)
    assert ("import pytorch_optimizer\n" in source) == ("pytorch-optimizer" in needs)
    assert ("import tuner.optim\n" in source) == ("tuner" in needs)


def test_the_exported_code_says_when_weights_to_evaluate_are_others() -> None:
    said = "call optimizer.eval() before each"
    assert said in to_python(winner("schedulefree_adamw", "constant", 0.0))
    assert said not in to_python(winner("adamw", "constant", 0.0))


def space_of(optimizer: str) -> dict[str, Any]:
    return {"optimizers": [optimizer], "schedules": list(SCHEDULES), "breadth": 3}


def test_the_winner_as_values_has_what_is_around_it() -> None:
    described = to_winner(winner("ranger", "cosine", 0.1))
    [call] = described["calls"]
    assert call["target"] == "torch.optim.RAdam"
    assert call["wrapper"] == {
        "target": "tuner.optim.Lookahead",
        "arguments": {"k": 3, "alpha": 0.4},
    }
    [told] = to_winner(winner("ranger21", "constant", 0.0))["calls"]
    assert told["arguments"]["num_iterations"] == STEPS
