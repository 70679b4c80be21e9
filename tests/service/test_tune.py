"""`tuner.tune`: functions and classes that only this process has, named ones, several workers."""

from __future__ import annotations

import os
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

import tuner
from tests.conftest import FORKS
from tuner.domain.imports import ALLOW
from tuner.errors import SpecError, WorkloadError
from tuner.store import Studies, open_database, read_records
from tuner.store.connection.urls import sqlite_path

SMALL: dict[str, Any] = {
    "optimizers": ["sgd", "adam"],
    "trials": 4,
    "steps": 20,
    "device": "cpu",
    "quiet": True,
}


def make_loop(offset: float = 1.0) -> Any:
    """Returns a training loop that no other process could import."""

    def train(run: tuner.Run) -> None:
        model = nn.Linear(3, 1)
        optimizer = run.optimizer(model)
        schedule = run.schedule(optimizer)
        for _ in run.steps():
            loss = (model(torch.ones(4, 3)) - offset).square().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            if run.due():
                run.report(val_loss=loss.item())

    return train


class Line:
    """A workload whose objects differ."""

    def __init__(self, width: int = 2) -> None:
        self.width = width

    def model(self) -> nn.Module:
        return nn.Linear(self.width, 1)

    def data(self) -> tuner.Data:
        x = torch.linspace(-1, 1, 64 * self.width).reshape(64, self.width)
        y = x.sum(dim=1, keepdim=True)
        return tuner.Data(train=(x, y), val=(x, y))

    def loss(self, model: nn.Module, batch: tuner.Batch) -> torch.Tensor:
        return functional.mse_loss(model(batch[0]), batch[1])

    def metrics(self, model: nn.Module, batch: tuner.Batch) -> dict[str, torch.Tensor]:
        return {"val_loss": self.loss(model, batch)}


def test_a_closure_trains_in_this_process(project: Path) -> None:
    trained_in = set()
    inner = make_loop()

    def train(run: tuner.Run) -> None:
        trained_in.add(os.getpid())
        inner(run)

    study = tuner.tune(train, **SMALL)
    assert trained_in == {os.getpid()}
    assert study.state == "done"
    assert study.best.value == min(t["value"] for t in rows(study) if t["outcome"] == "complete")


def test_an_object_of_a_class_trains_as_it_is(project: Path) -> None:
    study = tuner.tune(Line(5), train={"batch_size": 16}, **SMALL)
    assert study.name == "line"
    assert study.spec.passed is not None
    assert study.spec.passed.kind == "object of the class"


def test_a_workload_of_the_project_is_named_and_trained_by_processes(project: Path) -> None:
    import importlib
    import sys

    sys.path.insert(0, str(project))
    parabola = importlib.import_module("models.parabola").Parabola
    study = tuner.tune(parabola, **SMALL)
    assert study.spec.passed is None
    assert study.spec.study.workload == "models.parabola:Parabola"
    assert study.state == "done"
    assert os.environ.get(ALLOW, "") == ""  # it was allowed for this study alone


@FORKS
def test_several_workers_get_the_function_through_their_pipes(project: Path) -> None:
    study = tuner.tune(make_loop(), workers=2, **SMALL)
    assert study.state == "done"
    assert len(rows(study)) == 4


def test_no_code_is_stored(project: Path) -> None:
    secret = "unlikely-constant-4711"  # noqa: S105 (to be looked for)

    def train(run: tuner.Run) -> None:
        assert secret
        make_loop()(run)

    study = tuner.tune(train, workers=2, **SMALL)
    path = sqlite_path(study.storage)
    assert path is not None
    study.close()
    for file in path.parent.glob(f"{path.name}*"):
        assert secret.encode() not in file.read_bytes()
        assert b"cloudpickle" not in file.read_bytes()


def test_the_same_call_goes_on_and_another_function_does_not(project: Path) -> None:
    loop = make_loop()
    tuner.tune(loop, **SMALL)
    longer = tuner.tune(loop, **SMALL | {"trials": 6})
    assert len(rows(longer)) == 6

    def other(run: tuner.Run) -> None:
        loop(run)

    with pytest.raises(SpecError, match=r"study.workload: .*:train in the database, .*:other now"):
        tuner.tune(other, name="train", **SMALL)


def test_random_numbers_of_the_program_stay_as_they_were(project: Path) -> None:
    before = random.getstate(), torch.get_rng_state()
    drawn = np.random.RandomState(3)
    np.random.seed(3)
    tuner.tune(make_loop(), **SMALL)
    assert random.getstate() == before[0]
    assert torch.equal(torch.get_rng_state(), before[1])
    assert np.random.random() == drawn.random_sample()


def test_every_table_of_a_study_file_can_be_given(project: Path) -> None:
    study = tuner.tune(
        make_loop(),
        study={"metric": "val_loss"},
        budget={"evaluations": 4},
        search={"sampler": "random", "seed": 7},
        space={"schedules": ("constant",)},
        optimizer={"sgd": {"lr": {"low": np.float64(0.01), "high": 0.1, "log": True}}},
        confirm={"top": 0},
        **SMALL,
    )
    spec = study.spec
    assert (spec.budget.evaluations, spec.search.sampler, spec.search.seed) == (4, "random", 7)
    assert spec.space.schedules == ("constant",)
    assert spec.optimizer["sgd"]["lr"].model_dump()["high"] == 0.1
    assert spec.confirm.top == 0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"budget": {"trials": 3}}, r"trials is given twice, as trials=4 and in budget=\{...\}"),
        ({"epochs": 2}, "steps and epochs both say how long"),
        ({"search": {"smapler": "tpe"}}, "search.smapler is not a known key: did you mean"),
        ({"workers": 0}, "workers = 0: give a number of processes from 1 to 64"),
        ({"fuse": "many"}, "many"),
        ({"optimizers": ["adm"]}, "there is no optimizer 'adm': did you mean"),
    ],
)
def test_what_breaks_a_rule_is_told_before_anything_is_made(
    project: Path, given: dict[str, Any], message: str
) -> None:
    with pytest.raises(SpecError, match=message):
        tuner.tune(make_loop(), **SMALL | given)
    assert not (project / "tuner.db").exists()


def test_what_is_no_workload_is_told(project: Path) -> None:
    with pytest.raises(SpecError, match="workload = 3: give a training loop"):
        tuner.tune(3, **SMALL)


def test_a_loop_that_raises_leaves_no_study(project: Path) -> None:
    def train(run: tuner.Run) -> None:
        raise ValueError("broken on purpose")

    with pytest.raises(WorkloadError, match="broken on purpose"):
        tuner.tune(train, **SMALL)
    assert tuner.Study.list() == []


def rows(study: tuner.Study) -> list[dict[str, Any]]:
    """Returns the number, outcome and value of each trial."""
    database = open_database(study.storage)
    found = read_records(database, Studies(database).find(study.name))
    database.close()
    return [
        {"trial": record.number, "outcome": record.outcome.value, "value": record.value}
        for record in found
    ]
