"""The client of a command where no worker listens."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.conftest import MakeSpec
from tuner.domain.trials import decode, default_proposals
from tuner.errors import NotFoundError, SpecError
from tuner.training.processes.current import current
from tuner.training.processes.trial_file import FILE, TrialFacts, read_config, read_trial


def write_trial(make_spec: MakeSpec, folder: Path) -> TrialFacts:
    study = {"name": "small", "command": ["python", "train.py"]}
    spec = make_spec(study=study, optimizer={"sgd": {"lr": 0.5}})
    facts = TrialFacts(
        spec=spec,
        config=decode(spec, default_proposals(spec)[0]),
        study="small",
        number=3,
        folder=folder,
        device="cpu",
        seed=7,
        split_seed=8,
        length=20,
        step=0,
        own={"width": 16},
    )
    facts.write()
    return facts


@pytest.fixture(autouse=True)
def _fresh() -> None:
    current.cache_clear()


def test_without_a_trial_it_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(FILE, raising=False)
    with pytest.raises(NotFoundError, match="trains no trial"):
        current()


def test_a_file_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "trial.json").write_text("[]")
    monkeypatch.setenv(FILE, str(tmp_path / "trial.json"))
    with pytest.raises(SpecError, match="no file of a trial"):
        current()


def test_a_script_runs_by_hand_on_a_trials_file(
    make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    facts = write_trial(make_spec, tmp_path)
    monkeypatch.setenv(FILE, str(facts.file))
    trial = current()
    assert (trial.number, trial.seed, trial.steps, trial.settings["lr"]) == (3, 7, 20, 0.5)
    assert trial.suggest_int("width", 1, 99) == 16
    model = torch.nn.Linear(1, 1)
    optimizer = trial.optimizer(model)
    for step in trial.batches():
        model(torch.ones(1, 1)).sum().backward()
        optimizer.step()
        if trial.due():
            trial.report(val_loss=float(step))
    assert step == 19
    assert not trial.should_stop


def test_the_file_is_private_and_holds_the_whole_trial(make_spec: MakeSpec, tmp_path: Path) -> None:
    facts = write_trial(make_spec, tmp_path)
    assert facts.file.stat().st_mode & 0o777 == 0o600
    tree = read_trial(facts.file)
    assert read_config(tree) == facts.config
    assert tree["calls"][0]["target"] == "torch.optim.SGD"


def test_secrets_do_not_reach_a_command(
    make_spec: MakeSpec, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    secrets = ("TUNER_STORAGE", "PGPASSWORD", "TUNER_DASHBOARD_PASSWORD")
    for name in (*secrets, "TUNER_NOTIFY", "TUNER_LOG_TO"):
        monkeypatch.setenv(name, "hunter2")
    monkeypatch.setenv("TUNER_PARAM_OF_ANOTHER", "1")
    environment = write_trial(make_spec, tmp_path).environment()
    assert "hunter2" not in environment.values()
    assert "TUNER_PARAM_OF_ANOTHER" not in environment
    assert environment["TUNER_PARAM_WIDTH"] == "16"


def test_the_client_loads_no_torch() -> None:
    code = "import sys, tuner.training.processes.current; sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], env={**os.environ}, check=False)
    assert done.returncode == 0
