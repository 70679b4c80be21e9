from __future__ import annotations

import platform
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import sqlalchemy as sa

from tests.conftest import MakeSpec
from tests.store.leases.bench import Bench
from tests.store.single_trials import SingleTrials
from tuner.errors import StorageError
from tuner.store import Database, Ledger, Studies, StudyHandle, open_database
from tuner.store.leases import workers as worker_rows
from tuner.store.leases.workers import WorkerIdentity, this_machine
from tuner.store.tables import workers


def register(
    database: Database, study: StudyHandle, host: str, machine: str, lease_s: float = 60
) -> None:
    identity = WorkerIdentity(f"{host} {machine}", host, 1, "cpu", "0", machine)
    Ledger(database, study, identity, lease_s).register(0.0, lambda ordinal: ordinal)


@pytest.fixture
def sqlite(tmp_path: Path) -> Database:
    return open_database(f"sqlite:///{tmp_path / 'shared.db'}", create=True)


@pytest.fixture
def sqlite_study(sqlite: Database, make_spec: MakeSpec) -> StudyHandle:
    return Studies(sqlite).create(make_spec())


def test_sqlite_database_is_refused_to_a_second_machine(
    sqlite: Database, sqlite_study: StudyHandle
) -> None:
    register(sqlite, sqlite_study, "one", "boot 1")
    with pytest.raises(StorageError, match=r"one works on this SQLite.*two.*Use PostgreSQL"):
        register(sqlite, sqlite_study, "two", "boot 2")
    with sqlite.read() as connection:
        assert connection.execute(sa.select(workers.c.host)).scalars().all() == ["one"]
    sqlite.close()


def test_workers_of_every_study_in_the_file_count(
    sqlite: Database, sqlite_study: StudyHandle, make_spec: MakeSpec
) -> None:
    identity = sqlite_study.spec.study.model_dump() | {"name": "other"}
    other = Studies(sqlite).create(make_spec(study=identity))
    register(sqlite, other, "one", "boot 1")
    with pytest.raises(StorageError, match="cannot be shared between machines"):
        register(sqlite, sqlite_study, "two", "boot 2")
    sqlite.close()


def test_containers_of_one_machine_share_a_sqlite_database(
    sqlite: Database, sqlite_study: StudyHandle
) -> None:
    register(sqlite, sqlite_study, "container-1", "boot 1")
    register(sqlite, sqlite_study, "container-2", "boot 1")
    sqlite.close()


def test_machine_that_was_started_anew_goes_on(sqlite: Database, sqlite_study: StudyHandle) -> None:
    register(sqlite, sqlite_study, "one", "boot 1")
    register(sqlite, sqlite_study, "one", "boot 2")
    sqlite.close()


def test_machine_not_seen_for_longer_than_a_lease_is_gone(
    sqlite: Database, sqlite_study: StudyHandle
) -> None:
    register(sqlite, sqlite_study, "one", "boot 1")
    with sqlite.write() as connection:
        connection.execute(sa.update(workers).values(last_seen=workers.c.last_seen - 61))
    register(sqlite, sqlite_study, "two", "boot 2")
    sqlite.close()


def test_worker_whose_machine_nobody_knows_is_in_nobodys_way(
    sqlite: Database, sqlite_study: StudyHandle
) -> None:
    register(sqlite, sqlite_study, "one", "")
    register(sqlite, sqlite_study, "two", "boot 2")
    sqlite.close()


def test_postgresql_is_shared_between_machines(postgres_url: str, make_spec: MakeSpec) -> None:
    database = open_database(postgres_url, create=True)
    study = Studies(database).create(make_spec())
    register(database, study, "one", "boot 1")
    register(database, study, "two", "boot 2")
    database.close()


def test_machine_is_told_by_its_boot_or_else_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    boot = tmp_path / "boot_id"
    boot.write_text("565f730b\n")
    monkeypatch.setattr(worker_rows, "_BOOT_ID", boot)
    assert this_machine.__wrapped__() == "565f730b"
    boot.unlink()
    assert this_machine.__wrapped__() == platform.node()


def test_workers_get_seeds_by_their_order(bench: Bench) -> None:
    seeds = []
    for name in ("a", "b", "c"):
        identity = WorkerIdentity(name, "host", 1, "cpu", "0")
        ledger = SingleTrials(bench.database, bench.study, identity)
        seeds.append(ledger.register(0.0, lambda ordinal: 100 + ordinal))
    assert seeds == [100, 101, 102]


def test_workers_that_enter_at_once_get_different_seeds(bench: Bench) -> None:
    def enter(index: int) -> int:
        own = open_database(bench.database.url)
        identity = WorkerIdentity(f"w{index}", "host", 1, "cpu", "0")
        seed = SingleTrials(own, bench.study, identity).register(0.0, lambda ordinal: ordinal)
        own.close()
        return seed

    with ThreadPoolExecutor(6) as pool:
        assert sorted(pool.map(enter, range(6))) == list(range(6))


def test_worker_that_enters_again_keeps_its_seed(bench: Bench) -> None:
    ledger = bench.ledger("a")
    bench.ledger("b")
    assert ledger.register(0.0, lambda ordinal: 100 + ordinal) == 0
