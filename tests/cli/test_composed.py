"""A study of composed optimizers, from its file to a report and exports that rebuild each."""

from __future__ import annotations

import json
import runpy
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

Tuner = Callable[..., subprocess.CompletedProcess[str]]

SIX = ("momentum", "adam", "yellowfin", "lookahead(momentum)", "ranger", "prodigy")
SMALL = ("--set", "budget.trials=40", "--set", "budget.steps=20", "--set", "search.sampler=random")


def value_of(tuner: Tuner, study: str) -> float:
    exported = json.loads(tuner("study", "export", study, "--format", "json").stdout)
    value: float = exported["value"]
    return value


@pytest.mark.slow
def test_composed_optimizers_run_from_a_study_file_to_a_report(tuner: Tuner) -> None:
    ended = tuner("run", "studies/digits-composed.toml", *SMALL)
    assert ended.returncode == 0, ended.stderr
    told = json.loads(tuner("study", "report", "digits-composed", "--format", "json").stdout)
    assert {row["optimizer"] for row in told["optimizers"]} == set(SIX)
    assert told["optimizers"][0]["default_value"] is not None


@pytest.mark.slow
def test_a_winner_s_exports_rebuild_it(tuner: Tuner, project: Path) -> None:
    few = ("--set", "budget.trials=3", "--set", "budget.steps=20")
    only = ("--set", 'space.optimizers=["lookahead(yellowfin)"]', "--set", "study.name=one")
    ended = tuner("run", "studies/digits-composed.toml", *few, *only)
    assert ended.returncode == 0, ended.stderr
    winner = project / "winner.py"
    winner.write_text(tuner("study", "export", "one").stdout, encoding="utf-8")
    build = runpy.run_path(str(winner))["build_optimizer"]
    assert isinstance(build(torch.nn.Linear(2, 2)), torch.optim.Optimizer)
    again = project / "again.toml"
    again.write_text(tuner("study", "export", "one", "--format", "toml").stdout, encoding="utf-8")
    ended = tuner("run", "again.toml")
    assert ended.returncode == 0, ended.stderr
    assert value_of(tuner, "one-winner") == value_of(tuner, "one")


def test_the_catalog_shows_what_a_name_composes(typed: Tuner) -> None:
    ended = typed("optimizers", "lookahead(pytorch_optimizer:yogi)", "--json")
    described = json.loads(ended.stdout)
    assert described["name"] == "lookahead(pytorch_optimizer:Yogi)"
    assert described["torch"] == "pytorch_optimizer.Yogi"
    assert described["wrapper"] == "tuner.optim.Lookahead"
    listed = typed("optimizers").stdout
    assert "lookahead(sgd)" in listed
    refused = typed("optimizers", "lookahead(lbfgs)")
    assert refused.returncode != 0
    assert "write 'lbfgs', or wrap another" in refused.stderr
