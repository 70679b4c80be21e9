"""A clock that is set, or goes on while a machine sleeps, costs no trial and counts as no work."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa

from tests.conftest import MakeSpec
from tests.store.single_trials import SingleTrials
from tuner.domain.states import WorkerState
from tuner.errors import StorageError
from tuner.search import Proposer
from tuner.store import Database, Lease, Studies, StudyHandle
from tuner.store.control import repair
from tuner.store.leases.budget import read_elapsed_s
from tuner.store.leases.rows import assume_alive, read_unfinished
from tuner.store.leases.workers import WorkerIdentity, read_workers

Jump = Callable[[float], None]
HOUR_S = 3600.0
JUMPS = pytest.mark.parametrize("jump_s", [HOUR_S, -HOUR_S], ids=["forward", "back"])


@pytest.fixture
def jump(database: Database) -> Jump:
    """Returns what has the database's clock jump by seconds; it goes on from there."""
    ahead_s = 0.0

    def configure(connection: Any, _record: Any) -> None:
        connection.create_function(
            "julianday", 1, lambda _: (time.time() + ahead_s) / 86400 + 2440587.5
        )

    def on_sqlite(seconds: float) -> None:
        nonlocal ahead_s
        ahead_s += seconds

    def on_postgresql(seconds: float) -> None:
        on_sqlite(seconds)
        with database.write() as connection:
            connection.exec_driver_sql(
                "CREATE OR REPLACE FUNCTION clock.clock_timestamp() RETURNS timestamptz "
                f"LANGUAGE sql AS 'SELECT pg_catalog.clock_timestamp() + interval ''{ahead_s} s'''"
            )

    if database.engine.dialect.name == "sqlite":
        sa.event.listen(database.engine, "connect", configure)
        database.engine.dispose()
        return on_sqlite
    with database.write() as connection:
        connection.exec_driver_sql("CREATE SCHEMA clock")
        name = sa.make_url(database.url).database
        connection.exec_driver_sql(
            f"ALTER DATABASE {name} SET search_path = clock, pg_catalog, public"
        )
    on_postgresql(0.0)
    database.engine.dispose()
    return on_postgresql


class Life:
    """A worker whose own clock goes by what it is told."""

    def __init__(
        self, database: Database, study: StudyHandle, name: str, machine: str = ""
    ) -> None:
        self.now = 500.0
        identity = WorkerIdentity(name, name, 1, "cpu", "0", machine=machine)
        self.ledger = SingleTrials(database, study, identity, 60, clock=lambda: self.now)
        self.ledger.register(0.0, lambda ordinal: ordinal)
        self.proposer = Proposer(study.spec, seed=0)

    def live(self, seconds: float) -> None:
        self.now += seconds
        self.ledger.touch()

    def start(self) -> Lease:
        [lease] = self.ledger.start([], [self.proposer.propose()])
        return lease

    def take(self) -> list[Lease]:
        return self.ledger.take_over(assume_alive, at_most=1)


@JUMPS
def test_time_that_nobody_worked_is_not_counted(
    database: Database, make_spec: MakeSpec, jump: Jump, jump_s: float
) -> None:
    study = Studies(database).create(make_spec(budget={"steps": 5, "wall_time": 100.0}))
    worker = Life(database, study, "a")
    worker.live(30)
    jump(jump_s)
    worker.live(30)
    assert not worker.ledger.signals().out_of_time
    assert read_elapsed_s(database, study) == pytest.approx((60, 60), abs=2)
    worker.now += 41
    assert worker.ledger.signals().out_of_time


@JUMPS
def test_workers_one_after_the_other_add_up_whatever_the_clock_does(
    database: Database, study: StudyHandle, jump: Jump, jump_s: float
) -> None:
    for name in ("a", "b", "c"):
        Life(database, study, name).live(20)
        jump(jump_s)
    assert read_elapsed_s(database, study)[1] == pytest.approx(60, abs=2)
    # What lies between two of them is no work, and is not taken for any.
    assert read_elapsed_s(database, study)[0] == pytest.approx(60, abs=2)


@JUMPS
def test_workers_side_by_side_count_once_whatever_the_clock_does(
    database: Database, study: StudyHandle, jump: Jump, jump_s: float
) -> None:
    one, other = Life(database, study, "a"), Life(database, study, "b")
    for turn in range(6):
        if turn == 3:
            jump(jump_s)
        jump(10)  # the database's clock goes on as theirs do
        one.live(10)
        other.live(10)
    wall_s, worker_s = read_elapsed_s(database, study)
    assert wall_s == pytest.approx(60, abs=12)  # a jump may count for as long as nobody was heard
    assert worker_s == pytest.approx(120, abs=2)


def test_work_that_overlaps_in_part_counts_once(
    database: Database, study: StudyHandle, jump: Jump
) -> None:
    one = Life(database, study, "a")
    jump(50)
    other = Life(database, study, "b")
    jump(50)
    one.live(100)
    jump(50)
    other.live(100)
    assert read_elapsed_s(database, study) == pytest.approx((150, 200), abs=2)


@JUMPS
def test_trial_in_training_stays_with_its_worker(
    database: Database, study: StudyHandle, jump: Jump, jump_s: float
) -> None:
    holder, other = Life(database, study, "a"), Life(database, study, "b")
    lease = holder.start()
    assert other.take() == []
    jump(jump_s)
    assert other.take() == []
    assert database.calm_s < 10
    holder.ledger.renew_one(lease, 5)
    assert other.take() == []
    assert read_unfinished(database, study, assume_alive).held == {lease.number}


def test_trial_of_a_worker_that_died_is_not_held_for_as_long_as_the_clock_was_set_back(
    database: Database, study: StudyHandle, jump: Jump
) -> None:
    lease, other = Life(database, study, "a").start(), Life(database, study, "b")
    jump(-HOUR_S)
    assert other.take() == []
    jump(study.spec.train.stall_s + 1)
    assert other.take() == []  # this was a jump, too
    assert [taken.number for taken in other.take()] == [lease.number]


def test_repair_has_such_a_trial_free_once_a_lease_would_be_over(
    database: Database, study: StudyHandle, jump: Jump
) -> None:
    Life(database, study, "a").start()
    jump(-HOUR_S)
    assert repair(database, study, assume_alive) == []
    jump(study.spec.train.stall_s + 1)
    assert [repaired.action for repaired in repair(database, study, assume_alive)] == ["freed"]


@JUMPS
def test_worker_not_heard_of_since_a_jump_is_silent_until_it_is(
    database: Database, study: StudyHandle, jump: Jump, jump_s: float
) -> None:
    worker = Life(database, study, "a")
    jump(jump_s)
    assert [row.state for row in read_workers(database, study)] == [WorkerState.SILENT]
    worker.live(5)
    assert [row.state for row in read_workers(database, study)] == [WorkerState.WAITING]


def test_machine_last_seen_in_the_future_is_in_nobodys_way(
    database: Database, study: StudyHandle, jump: Jump
) -> None:
    if database.engine.dialect.name != "sqlite":
        return
    Life(database, study, "a", "boot 1")
    with pytest.raises(StorageError, match="cannot be shared"):
        Life(database, study, "b", "boot 2")
    jump(-HOUR_S)
    Life(database, study, "b", "boot 2")
