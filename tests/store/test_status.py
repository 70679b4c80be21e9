"""The health of real databases of each kind, read without a change."""

from __future__ import annotations

import sqlalchemy as sa

from tests.conftest import MakeSpec
from tests.store.leases.bench import ledger_of
from tuner.search import Proposer
from tuner.store import Database, Studies
from tuner.store.leases.rows import assume_alive
from tuner.store.status import read_health, read_status
from tuner.store.tables import leases


def test_a_database_that_is_well_has_no_faults(database: Database, make_spec: MakeSpec) -> None:
    Studies(database).create(make_spec())
    health = read_health(database.url, assume_alive)
    assert health.status == read_status(database.url)
    assert abs(health.ahead_s) < 5
    assert health.journal == ("wal" if database.engine.dialect.name == "sqlite" else None)
    assert (health.fault, health.others, health.left) == (None, 0, {})


def test_optuna_s_own_studies_are_counted_apart(database: Database, make_spec: MakeSpec) -> None:
    import optuna

    optuna.create_study(storage=database.storage, study_name="theirs")
    Studies(database).create(make_spec())
    health = read_health(database.url, assume_alive)
    assert (health.status.studies, health.others) == (1, 1)


def test_trials_count_as_left_once_their_worker_is_dead_or_silent(
    database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(make_spec())
    proposer = Proposer(study.spec, seed=0)
    first, second = (ledger_of(database, study, name) for name in ("a", "b"))
    first.start([], [proposer.propose()])
    [paused] = second.start([], [proposer.propose()])
    assert read_health(database.url, assume_alive).left == {}
    with database.read() as connection:
        holders = dict(connection.execute(sa.select(leases.c.number, leases.c.worker_id)).all())
    dead = read_health(database.url, lambda worker: worker == holders[0])
    assert dead.left == {"small": (0,)}
    second.release([paused])  # which is free for any worker, and not left behind
    with database.write() as connection:
        connection.execute(sa.update(leases).values(expires_at=1.0))
    assert read_health(database.url, assume_alive).left == {"small": (0,)}
