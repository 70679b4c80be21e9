"""What is found of real databases, of every kind that something is wrong with."""

from __future__ import annotations

import os
import sqlite3
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa

from tests.conftest import MakeSpec
from tests.store.leases.bench import ledger_of
from tuner.search import Proposer
from tuner.service.doctor.database import examine_database, examine_locks
from tuner.service.doctor.finding import Level
from tuner.service.liveness import WorkerLock
from tuner.store import Database, Studies, open_database
from tuner.store.tables import leases


def test_a_database_that_is_well_is_told_with_its_size(
    database: Database, make_spec: MakeSpec
) -> None:
    Studies(database).create(make_spec())
    found = examine_database(database.url)
    assert {one.level for one in found} == {Level.OK}
    assert any("1 studies with 0 trials" in one.text for one in found)
    assert any("from this machine's" in one.text for one in found)


def test_trials_left_behind_are_told_with_the_command(
    database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(make_spec())
    ledger = ledger_of(database, study, "a")
    ledger.start([], [Proposer(study.spec, seed=0).propose()])
    assert not any(one.topic == "leases" for one in examine_database(database.url))
    with database.write() as connection:
        connection.execute(sa.update(leases).values(expires_at=1.0))
    [found] = [one for one in examine_database(database.url) if one.topic == "leases"]
    assert found.level is Level.WARNING
    assert "trial 0 was left behind in small" in found.text
    assert "tuner study repair small" in found.remedy


def test_no_database_is_no_problem_and_none_is_made(tmp_path: Path) -> None:
    [found] = examine_database(f"sqlite:///{tmp_path / 'tuner.db'}")
    assert (found.level, "none yet" in found.text) == (Level.OK, True)
    assert list(tmp_path.iterdir()) == []


def test_optuna_s_own_studies_are_told_and_left_alone(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'optuna.db'}"
    optuna.create_study(storage=url, study_name="theirs").optimize(lambda t: 1.0, n_trials=1)
    before = sqlite3.connect(tmp_path / "optuna.db").execute("PRAGMA journal_mode").fetchall()
    found = examine_database(url)
    assert {one.level for one in found} == {Level.OK}
    assert any("1 more studies are Optuna's own" in one.text for one in found)
    after = sqlite3.connect(tmp_path / "optuna.db").execute("PRAGMA journal_mode").fetchall()
    assert before == after == [("delete",)]


def test_older_and_newer_tables_are_problems(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path / 'tuner.db'}"
    open_database(url, create=True).close()
    for revision, remedy in (("0003", "tuner db upgrade"), ("9999", "pip install --upgrade")):
        with sqlite3.connect(tmp_path / "tuner.db") as connection:
            connection.execute("UPDATE tuner_alembic_version SET version_num = ?", (revision,))
        found = examine_database(url)[0]
        assert found.level is Level.PROBLEM
        assert found.remedy.startswith(remedy)


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("nonsense", "no database URL"),
        ("postgresql+psycopg://ann:Pa55w0rd-of-ann@127.0.0.1:1/x", "nothing listens there"),
        ("sqlite:////no/such/folder/a.db", "does not exist"),
    ],
)
def test_a_database_that_cannot_be_reached_is_a_problem_without_its_password(
    url: str, said: str
) -> None:
    [found] = examine_database(url)
    assert found.level is Level.PROBLEM
    assert said in found.text
    assert found.remedy
    assert "Pa55w0rd" not in f"{found.text}{found.remedy}"


def test_a_file_that_is_no_database_or_damaged_is_a_problem(tmp_path: Path) -> None:
    other = tmp_path / "other.db"
    other.write_bytes(b"no database at all, but a text of some length" * 100)
    [found] = examine_database(f"sqlite:///{other}")
    assert found.level is Level.PROBLEM
    url = f"sqlite:///{tmp_path / 'tuner.db'}"
    open_database(url, create=True).close()
    content = bytearray((tmp_path / "tuner.db").read_bytes())
    content[len(content) // 2 :] = os.urandom(len(content) - len(content) // 2)
    (tmp_path / "tuner.db").write_bytes(content)
    assert any(one.level is Level.PROBLEM for one in examine_database(url))


def test_lock_files_of_dead_workers_are_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tmp_path.chmod(0o700)
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(tmp_path))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    [none] = examine_locks()
    assert none.text == "no lock file of a worker that has died"
    with WorkerLock("0" * 32) as lock:
        [alive] = examine_locks()
        assert alive == none
        lock.keep_file()
    [dead] = examine_locks()
    assert "a lock file of workers that have died" in dead.text
