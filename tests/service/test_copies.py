"""Copies of studies: the same reports in another database, of another kind, or under a new name."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import torch

from tests.conftest import MakeSpec
from tuner.domain.states import StudyState
from tuner.domain.trials import Outcome
from tuner.errors import SpecError, StorageError
from tuner.service.confirmation import open_confirmation
from tuner.service.interruption import Interruption
from tuner.service.own_worker import run_here
from tuner.service.reports import read_report
from tuner.service.steering import copy_study
from tuner.service.worker.worker import Worker
from tuner.store import Database, Studies, StudyHandle, open_database, read_records
from tuner.store.companions import find_companion
from tuner.store.control import set_state
from tuner.store.events import read_events
from tuner.store.leases.rows import read_unfinished
from tuner.store.optuna import tables as ot


@pytest.fixture
def confirmed(project: Path, database: Database, make_spec: MakeSpec) -> StudyHandle:
    """Returns a study that is over, and has been confirmed."""
    study = Studies(database).create(make_spec(confirm={"top": 1, "seeds": 5}))
    train(database, study)
    train(database, open_confirmation(database, study, study.spec.confirm))
    return study


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Database]:
    """Returns another database, which is empty."""
    opened = open_database(f"sqlite:///{tmp_path / 'other.db'}", create=True)
    yield opened
    opened.close()


def train(database: Database, study: StudyHandle) -> None:
    Worker(database, study, torch.device("cpu"), Interruption(), time.monotonic()).run()


def report_of(database: Database, study: StudyHandle) -> dict[str, Any]:
    """Returns a study's report but for where the study is and what it is called."""
    text = read_report(database, study).render("json").replace(database.name, "DATABASE")
    report: dict[str, Any] = json.loads(re.sub(rf"\b{study.name}\b", "STUDY", text))
    return report


def test_a_copy_has_the_same_report(
    confirmed: StudyHandle, database: Database, other: Database
) -> None:
    copy = copy_study(database, confirmed, other)
    assert report_of(other, copy) == report_of(database, confirmed)
    assert read_records(other, copy) == read_records(database, confirmed)
    assert [(e.at, e.kind, e.number, e.detail) for e in read_events(other, copy.uuid)] == [
        (e.at, e.kind, e.number, e.detail) for e in read_events(database, confirmed.uuid)
    ]
    assert copy.uuid != confirmed.uuid


def test_its_confirmation_comes_along_and_is_its_own(
    confirmed: StudyHandle, database: Database, other: Database
) -> None:
    copy = copy_study(database, confirmed, other, "kept")
    companion = find_companion(other, copy)
    assert companion is not None
    assert companion.name == "kept.confirm"
    assert companion.spec.confirmation is not None
    assert companion.spec.confirmation.study == copy.uuid
    theirs = find_companion(database, confirmed)
    assert theirs is not None
    assert read_records(other, companion) == read_records(database, theirs)


def test_it_goes_to_postgresql_and_back(
    confirmed: StudyHandle, database: Database, other: Database, postgres_url: str
) -> None:
    server = open_database(postgres_url, create=True)
    there = copy_study(database, confirmed, server)
    back = copy_study(server, there, other)
    assert report_of(server, there) == report_of(database, confirmed)
    assert report_of(other, back) == report_of(database, confirmed)
    server.close()


def test_a_copy_beside_it_is_another_study(confirmed: StudyHandle, database: Database) -> None:
    copy = copy_study(database, confirmed, database, "second")
    assert report_of(database, copy) == report_of(database, confirmed)
    Studies(database).delete(copy)
    assert len(read_records(database, confirmed)) == 6


def test_a_name_that_is_taken_leaves_nothing_behind(
    confirmed: StudyHandle, database: Database, other: Database, make_spec: MakeSpec
) -> None:
    spec = make_spec(study={"name": "small.confirm", "workload": "models.parabola:Parabola"})
    Studies(other).create(spec)
    with pytest.raises(SpecError, match=r"there is a study of the name 'small' or 'small.confirm'"):
        copy_study(database, confirmed, other)
    assert list(Studies(other).names()) == ["small.confirm"]
    with other.read() as connection:
        assert ot.count_trials(connection, 1) == 0
        assert connection.execute(sa.select(sa.func.count()).select_from(ot.trials)).scalar() == 0


def test_a_damaged_study_is_not_copied_by_half(
    confirmed: StudyHandle, database: Database, other: Database
) -> None:
    if database.engine.dialect.name == "sqlite":
        with database.write() as connection:
            connection.exec_driver_sql("UPDATE trials SET state = 'LOST' WHERE number = 3")
        with pytest.raises(StorageError, match="Nothing has been copied"):
            copy_study(database, confirmed, other)
        assert list(Studies(other).names()) == []


def test_a_study_in_training_is_refused_and_a_trial_that_waits_starts_over(
    project: Path, database: Database, other: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(make_spec(budget={"trials": 1, "steps": 40}))
    interruption = Interruption()
    refused: list[str] = []

    def loop(run: Any) -> None:
        model = torch.nn.Linear(1, 1)
        optimizer = run.optimizer(model)
        for step in run.steps():
            model(torch.ones(1, 1)).square().sum().backward()
            optimizer.step()
            if step == 20 and not refused:
                try:
                    copy_study(database, study, other)
                except SpecError as error:
                    refused.append(str(error))
                interruption.request("the test")
            if run.due():
                run.report(val_loss=1.0)

    display = Silent()
    run_here(database, study, display, passed=loop, device="cpu", interruption=interruption)
    assert len(refused) == 1
    assert "'small' is being trained: pause it first" in refused[0]
    assert [r.outcome for r in read_records(database, study)] == [Outcome.RUNNING]

    copy = copy_study(database, study, other)
    set_state(other, copy, StudyState.RUNNING)
    assert read_unfinished(other, copy, lambda worker: True).held == frozenset()
    run_here(other, copy, display, passed=loop, device="cpu")
    [record] = read_records(other, copy)
    assert record.outcome is Outcome.COMPLETE


class Silent:
    """A display that shows nothing."""

    def __enter__(self) -> Silent:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def say(self, text: str) -> None:
        pass

    def warn(self, text: str) -> None:
        pass

    def show_workers(self, seats: Any, exits: Any) -> None:
        pass

    def show(self, progress: Any, finished: Any) -> None:
        list(finished)


def test_the_command_copies_and_says_where(
    confirmed: StudyHandle, database: Database, typed: Callable[..., Any], tmp_path: Path
) -> None:
    storage = ("--storage", database.url)
    away = f"sqlite:///{tmp_path / 'archive.db'}"
    copied = typed("study", "copy", "small", "--to", away, "--as", "kept", *storage)
    assert copied.returncode == 0, copied.stderr
    assert "Copied 'small' and its 6 trials to 'kept' in" in copied.stdout
    assert "tuner study report kept --storage sqlite:///" in copied.stdout
    assert typed("study", "report", "kept", "--storage", away).returncode == 0
    again = typed("study", "copy", "small", "--to", away, "--as", "kept", *storage)
    assert again.returncode == 2
    assert "Choose another one with --as" in again.stderr
    nowhere = typed("study", "copy", "small", *storage)
    assert nowhere.returncode == 2
    assert "Give --to, a database, or --as, another name, or both." in nowhere.stderr
