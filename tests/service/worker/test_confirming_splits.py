"""Workers that run finalists again on test data and on splits drawn anew, on real databases."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import MakeSpec, forgotten
from tests.service.worker.contexts import Counted
from tests.service.worker.test_confirming import confirmed, study_of
from tests.service.worker.test_promotion import work
from tuner.analysis.confirmed import Confirmed
from tuner.domain.confirmation import CONFIRMS, REPEAT
from tuner.domain.trials import Outcome, TrialRecord
from tuner.report.json import to_json
from tuner.report.verdict_words import tell_confirmed
from tuner.service.summaries import read_summary
from tuner.store import Database, Studies, StudyHandle, read_records
from tuner.store.companions import find_companion
from tuner.training.seeds import derive_seed, split_seed

_WORKLOADS = """
import torch
from torch import nn
from torch.nn.functional import mse_loss
from pathlib import Path
from tuner import Data


def draw(seed):
    x = torch.randn(160, 4, generator=torch.Generator().manual_seed(0)).double()
    y = x.square().sum(1, keepdim=True)
    order = torch.randperm(160, generator=torch.Generator().manual_seed(seed))
    with Path("splits").open("a") as file:
        print(seed, file=file)
    return [(x[rows], y[rows]) for rows in order.split([96, 40, 24])]


class Splits:
    def model(self):
        return nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))

    def data(self, seed):
        return Data(*draw(seed))

    def loss(self, model, batch):
        return mse_loss(model(batch[0]), batch[1])

    def metrics(self, model, batch):
        if len(batch[0]) == 24:
            assert Path("confirming").exists(), "a search meets test data"
        return {"val_loss": self.loss(model, batch), "error": self.loss(model, batch) ** 0.5}


class OneSplit(Splits):
    def data(self):
        return Data(*draw(0))


def loop(run):
    train, val, test = draw(run.split_seed)
    model = Splits().model().double()
    optimizer = run.optimizer(model)
    for step in run.steps():
        optimizer.zero_grad()
        mse_loss(model(train[0]), train[1]).backward()
        optimizer.step()
        if run.due():
            run.report(val_loss=mse_loss(model(val[0]), val[1]))
            run.report_test(accuracy=mse_loss(model(test[0]), test[1]), early=1)
    if run.is_confirming:
        assert Path("confirming").exists()
        run.report_test(accuracy=mse_loss(model(test[0]), test[1]), unknown=float("nan"))


def early(run):
    '''Reports a test once, half way.'''
    model = Splits().model().double()
    optimizer = run.optimizer(model)
    train, val, test = draw(0)
    for step in run.steps():
        optimizer.zero_grad()
        mse_loss(model(train[0]), train[1]).backward()
        optimizer.step()
        if step == 5:
            run.report_test(accuracy=mse_loss(model(test[0]), test[1]))
        if run.due():
            run.report(val_loss=mse_loss(model(val[0]), val[1]))
"""


@pytest.fixture
def workloads(project: Path) -> Iterator[Path]:
    (project / "splitting.py").write_text(_WORKLOADS)
    with forgotten("splitting"):
        yield project


def searched(make_spec: MakeSpec, database: Database, name: str, **tables: Any) -> StudyHandle:
    """Returns a study whose search met no test data, which may be met from now on."""
    study = study_of(
        make_spec, database, study={"name": "small", "workload": f"splitting:{name}"}, **tables
    )
    records = read_records(database, study)
    assert {record.outcome for record in records} == {Outcome.COMPLETE}
    assert not any("test" in record.attributes for record in records)
    Path("confirming").touch()
    return study


def confirm(
    database: Database, study: StudyHandle, fuse: str = "off"
) -> tuple[list[TrialRecord], Confirmed]:
    companion = confirmed(database, study)
    work(database, companion, fuse)
    records = read_records(database, companion)
    assert {record.outcome for record in records} == {Outcome.COMPLETE}
    found = read_summary(database, study).confirmed
    assert found is not None
    return records, found


def measured(records: list[TrialRecord]) -> dict[tuple[int, int], dict[str, Any]]:
    return {(r.attributes[CONFIRMS], r.attributes[REPEAT]): r.attributes["test"] for r in records}


@pytest.mark.parametrize("name", ["Splits", "loop"])
def test_each_fresh_seed_has_a_split_of_its_own_which_all_finalists_share(
    make_spec: MakeSpec, database: Database, workloads: Path, name: str
) -> None:
    study = searched(make_spec, database, name)
    drawn = {*(workloads / "splits").read_text().split()}
    assert drawn == {str(split_seed(3))}  # the search's own
    assert {r.attributes["split_seed"] for r in read_records(database, study)} == {split_seed(3)}
    records, found = confirm(database, study)
    splits = {r.attributes[REPEAT]: set[int]() for r in records}
    for record in records:
        splits[record.attributes[REPEAT]].add(record.attributes["split_seed"])
    fresh = {k: derive_seed(3, "confirm", k) % 2**32 for k in range(5)}
    assert splits == {k: {split_seed(seed)} for k, seed in fresh.items()}
    assert len(set.union(*splits.values())) == 5
    assert found.redrawn
    assert "Intervals cover other seeds and splits of the data" in " ".join(tell_confirmed(found))


def test_a_worker_draws_the_split_of_a_seed_once_for_all_finalists(
    make_spec: MakeSpec, database: Database, workloads: Path
) -> None:
    study = searched(make_spec, database, "Splits")
    (workloads / "splits").unlink()
    confirm(database, study)
    drawn = (workloads / "splits").read_text().split()
    assert len(drawn) == len(set(drawn)) == 6  # with the one that the worker begins with


def test_as_one_or_alone_finalists_are_tested_alike(
    make_spec: MakeSpec, database: Database, workloads: Path
) -> None:
    train = {"batch_size": 32, "precision": "float64", "average": {"choices": ["none", "ema"]}}
    study = searched(make_spec, database, "Splits", train=train)
    fused, found = confirm(database, study, "4")
    assert {record.attributes["lanes"] for record in fused} == {3}
    assert found.redrawn
    companion = find_companion(database, study)
    assert companion is not None
    Studies(database).delete(companion)
    alone, _ = confirm(database, study)
    one, other = measured(fused), measured(alone)
    assert one.keys() == other.keys()
    for run, values in one.items():
        assert values == pytest.approx(other[run], rel=1e-9)
        assert values["error"] == pytest.approx(math.sqrt(values["val_loss"]))


def test_with_one_split_the_verdict_says_so_and_the_report_has_the_test_values(
    make_spec: MakeSpec, database: Database, workloads: Path
) -> None:
    study = searched(make_spec, database, "OneSplit")
    records, found = confirm(database, study)
    assert not any("split_seed" in record.attributes for record in records)
    assert not found.redrawn
    assert "on the same split of the data" in " ".join(tell_confirmed(found))
    tests = measured(records)
    told = json.loads(json.dumps(to_json(read_summary(database, study)), allow_nan=False))
    for finalist in told["confirmation"]["finalists"]:
        assert list(finalist["test"]) == ["val_loss", "error"]
        values = [tests[finalist["trial"], k]["val_loss"] for k in range(5)]
        test = finalist["test"]["val_loss"]
        assert test["values"] == pytest.approx(values)
        assert test["mean"] == pytest.approx(sum(values) / 5)
        assert test["sd"] > 0


def test_what_an_own_loop_reported_last_counts_and_what_is_not_finite_is_unknown(
    make_spec: MakeSpec, database: Database, workloads: Path
) -> None:
    study = searched(make_spec, database, "loop")
    records, _ = confirm(database, study)
    for values in measured(records).values():
        assert values.keys() == {"accuracy", "unknown"}
        assert values["unknown"] is None
        assert values["accuracy"] > 0


def test_a_reported_test_outlives_the_worker_that_heard_it(
    make_spec: MakeSpec, database: Database, workloads: Path
) -> None:
    study = searched(make_spec, database, "early")
    companion = confirmed(database, study)
    for stop_after in range(1, 40, 3):
        work(database, companion, interruption=Counted(stop_after))
    work(database, companion)
    records = read_records(database, companion)
    assert len(records) == 15
    assert {record.outcome for record in records} == {Outcome.COMPLETE}
    assert all(values["accuracy"] > 0 for values in measured(records).values())


@pytest.mark.parametrize("fuse", ["off", "4"])
def test_a_run_that_reaches_its_target_is_tested_there(
    make_spec: MakeSpec, database: Database, workloads: Path, fuse: str
) -> None:
    aim = {"objective": "time_to_target", "target": 100.0}
    workload = {"name": "small", "workload": "splitting:Splits"}
    study = study_of(make_spec, database, study=workload | aim)
    (workloads / "confirming").touch()
    records, _ = confirm(database, study, fuse)
    assert {record.attributes["steps"] for record in records} == {4}
    assert all(values.keys() == {"val_loss", "error"} for values in measured(records).values())
