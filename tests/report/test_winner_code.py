"""Exported averages and momentum warmups do what the trained ones did."""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from tests.report.summaries import STEPS, make_spec, summary_of, trial
from tests.report.test_code import Exported
from tests.training.trials import train
from tuner.analysis.summary import StudySummary
from tuner.domain.catalog.dimensions import Value
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.study_file import parse_spec
from tuner.domain.trials import Proposal, decode, default_proposals
from tuner.report.code import to_python, to_toml, to_winner
from tuner.training.run import Run

AVERAGES: dict[str, dict[str, Value]] = {
    "ema": {"ema.start": 0.1, "ema.interval": 3, "ema.one_minus_decay": 0.25},
    "swa": {"swa.start": 0.6, "swa.interval": 2},
}


def winner(
    optimizer: str, average: str = "none", warmup: float = 0.0, schedule: str = "cosine"
) -> StudySummary:
    params: dict[str, Value] = {"average": average, **AVERAGES.get(average, {})}
    params |= {f"{optimizer}.lr": 0.01}
    if optimizer == "lbfgs":
        params |= {"lbfgs.max_iter": 4, "lbfgs.history_size": 5}
    if warmup:
        params["momentum_warmup"] = warmup
    train = {
        "average": {"choices": ["none", "ema", "swa"]},
        "momentum_warmup": {"choices": [0, 0.25]},
    }
    record = trial(3, optimizer, 0.25, schedule=schedule, params=params)
    return summary_of(record, spec=make_spec(train=train))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 4), nn.Tanh(), nn.Linear(4, 1)).double()


def batches() -> list[Tensor]:
    generator = torch.Generator().manual_seed(1)
    return [torch.randn(16, 3, dtype=torch.float64, generator=generator) for _ in range(STEPS)]


def loss_of(model: nn.Module, batch: Tensor) -> Tensor:
    loss: Tensor = (model(batch) - batch.sum(1, keepdim=True)).square().mean()
    return loss


def weights_of(model: nn.Module) -> Tensor:
    return nn.utils.parameters_to_vector(model.parameters()).detach().clone()


def step(optimizers: list[torch.optim.Optimizer], model: nn.Module, batch: Tensor) -> None:
    def closure() -> Any:
        model.zero_grad()
        loss = loss_of(model, batch)
        loss.backward()
        return loss

    if not isinstance(optimizers[0], torch.optim.LBFGS):
        closure()
    for optimizer in optimizers:
        optimizer.step(closure if isinstance(optimizer, torch.optim.LBFGS) else None)


def train_ours(summary: StudySummary) -> tuple[Tensor, Tensor, int]:
    """Returns the last weights, what they are evaluated as, and the turns they took."""
    assert summary.best is not None
    seen: list[Any] = []

    def loop(run: Run) -> None:
        model = network()
        optimizer = run.optimizer(model)
        schedule = run.schedule(optimizer)
        for turn, _ in enumerate(run.steps()):
            step([optimizer], model, batches()[turn])
            schedule.step()
            with run.evaluation():
                seen[:] = [None, weights_of(model), turn + 1]
        seen[0] = weights_of(model)

    train(loop, summary.spec, summary.best.config)
    last, averaged, turns = seen
    return last, averaged, turns


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
@pytest.mark.parametrize("average", ["ema", "swa"])
@pytest.mark.parametrize("optimizer", ["momentum", "adam", "muon", "lbfgs"])
def test_the_exported_average_is_the_one_that_was_evaluated(
    tmp_path: Path, optimizer: str, average: str, schedule: str
) -> None:
    summary = winner(optimizer, average, schedule=schedule)
    last, averaged, turns = train_ours(summary)
    model = network()
    exported = Exported(to_python(summary), tmp_path, model)
    mean = exported.namespace["build_average"](model)
    [leading, *_] = exported.optimizers
    for turn in range(turns):
        # The run keeps its last step from costing more than is left of the budget.
        for group in leading.param_groups if turn == turns - 1 else []:
            if "max_eval" in group:
                left = STEPS - leading.state[group["params"][0]]["func_evals"]
                group["max_iter"] = min(group["max_iter"], left)
                group["max_eval"] = min(group["max_eval"], left)
        step(exported.optimizers, model, batches()[turn])
        taken = turn + 1
        if OPTIMIZERS[optimizer].closure:
            taken = exported.namespace["count_losses"](leading)
        exported.namespace["update_average"](mean, model, taken)
        for driven in exported.stepped:
            driven.step()
    torch.testing.assert_close(weights_of(model), last, rtol=1e-10, atol=1e-12)
    # Torch's AveragedModel divides by its count in single precision.
    torch.testing.assert_close(weights_of(mean.module), averaged, rtol=1e-6, atol=1e-7)
    assert (averaged - last).abs().max() > 1e-6


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
@pytest.mark.parametrize("optimizer", ["momentum", "adam", "muon"])
def test_the_exported_momentum_rises_as_it_did(
    tmp_path: Path, optimizer: str, schedule: str
) -> None:
    summary = winner(optimizer, warmup=0.25, schedule=schedule)
    last, _, turns = train_ours(summary)
    model = network()
    exported = Exported(to_python(summary), tmp_path, model)
    for turn in range(turns):
        progress = turn / exported.namespace["MOMENTUM_WARMUP"]
        exported.namespace["warm_momentum"](exported.param_groups, progress)
        step(exported.optimizers, model, batches()[turn])
        for driven in exported.stepped:
            driven.step()
    torch.testing.assert_close(weights_of(model), last, rtol=1e-10, atol=1e-12)
    plain, *_ = train_ours(winner(optimizer, schedule=schedule))
    assert (plain - last).abs().max() > 1e-6


@pytest.mark.parametrize("schedule", ["cosine", "plateau"])
@pytest.mark.parametrize("optimizer", ["momentum", "muon", "lbfgs"])
def test_the_exported_code_runs_on_its_own(tmp_path: Path, optimizer: str, schedule: str) -> None:
    source = to_python(winner(optimizer, "swa", 0.25, schedule))
    imported = [line for line in source.splitlines() if line.startswith(("import", "from"))]
    assert "tuner" not in "".join(imported)
    assert max(len(line) for line in source.splitlines() if "torch.optim." not in line) <= 100
    path = tmp_path / "winner.py"
    path.write_text(source, encoding="utf-8")
    done = subprocess.run(
        [sys.executable, "-I", str(path)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "lr: first" in done.stdout


def test_nothing_is_said_of_what_was_not_done() -> None:
    source = to_python(winner("adam"))
    for word in ("average", "AveragedModel", "warm_momentum", "MOMENTUM_WARMUP"):
        assert word not in source


@pytest.mark.parametrize("average", ["none", "ema", "swa"])
def test_the_exported_study_fixes_the_average_and_the_warmup(average: str) -> None:
    summary = winner("adam", average, 0.25)
    assert summary.best is not None
    spec = parse_spec(tomllib.loads(to_toml(summary)), origin="winner.toml").resolve()
    [default] = default_proposals(spec)
    for proposal in (default, Proposal({"optimizer": "adam", "schedule": "cosine"})):
        assert decode(spec, proposal) == summary.best.config
    assert spec.root_axes().keys() == {"optimizer", "schedule"}


def test_the_winner_as_values_tells_of_both() -> None:
    values = to_winner(winner("adam", "swa", 0.25))
    assert (values["average"], values["momentum_warmup"]) == ("swa", 0.25)
    assert values["average_values"] == {"start": 0.6, "interval": 2}
    assert json.loads(json.dumps(values))["average"] == "swa"
