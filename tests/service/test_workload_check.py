from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tuner.errors import SpecError
from tuner.service.workload_check import check_workload, find_workloads

_MODULE = '''
import torch
from torch import nn
from models.digits import Digits


def train(run):
    """Reports as a loop does."""
    model = nn.Linear(2, 1)
    optimizer = run.optimizer(model)
    for step in run.steps():
        optimizer.step()
        run.report(step, val_loss=0.5, accuracy=1.0)


def returns(run):
    optimizer = run.optimizer(nn.Linear(2, 1))
    for step in run.steps():
        optimizer.step()
    return 0.25


def foreign(run):
    """Trains with an optimizer of its own."""
    return 0.25


def tells_nothing(run):
    pass


def breaks(run):
    raise ZeroDivisionError("at once")


def helper(x):
    return x


def _private(run, more):
    return 0.0


class Mine(Digits):
    """A workload of its own."""


class Torn(Digits):
    def data(self):
        raise OSError("no disk")
'''


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Returns the name of a module of workloads in the working directory."""
    (tmp_path / "checked_workloads.py").write_text(_MODULE, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.delitem(sys.modules, "checked_workloads", raising=False)
    return "checked_workloads"


@pytest.mark.parametrize(
    ("loop", "parameters", "metrics"),
    [("train", 3, {"val_loss": 0.5, "accuracy": 1.0}), ("returns", 3, {"val_loss": 0.25})],
)
def test_a_training_loop_is_run_for_a_few_steps(
    module: str, loop: str, parameters: int, metrics: dict[str, float]
) -> None:
    check = check_workload(f"{module}:{loop}", "cpu")
    assert check.error is None
    assert (check.parameters, check.metrics) == (parameters, metrics)
    assert check.cells()[:2] == (f"{module}:{loop}", "yes")


def test_a_training_loop_with_an_optimizer_of_its_own_does_not_run(module: str) -> None:
    error = check_workload(f"{module}:foreign", "cpu").error
    assert error is not None
    assert "use the one that run.optimizer(model) returns" in error


def test_a_workload_class_is_trained_and_evaluated(module: str) -> None:
    check = check_workload(f"{module}:Mine", "cpu")
    assert (check.error, check.parameters) == (None, 64 * 64 + 64 + 64 * 10 + 10)
    assert (check.train_examples, check.val_examples) == (1437, 360)
    assert check.metrics.keys() == {"val_loss", "val_accuracy"}
    assert check.step_s > 0


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("tells_nothing", "neither reported nor returned val_loss"),
        ("breaks", "ZeroDivisionError: at once"),
        ("Torn", "OSError: no disk"),
        ("absent", "has no 'absent'"),
    ],
)
def test_what_does_not_run_says_why(module: str, name: str, said: str) -> None:
    check = check_workload(f"{module}:{name}", "cpu")
    assert check.error is not None
    assert said in check.error
    assert check.cells()[1] == "no"


def test_a_device_that_does_not_exist_is_refused(module: str) -> None:
    with pytest.raises(SpecError, match="--device abacus"):
        check_workload(f"{module}:train", "abacus")


def test_classes_and_loops_of_the_models_folder_are_found(project: Path) -> None:
    found, broken = find_workloads()
    assert broken == []
    assert {"models.digits:Digits", "models.own_loop:train"} <= set(found)
    # What a file only imports is not its own, and a part of a model is no workload.
    assert "models.sparse_digits:Digits" not in found
    assert "models.sparse_digits:Bag" not in found
