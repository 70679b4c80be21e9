from __future__ import annotations

import pytest

from tests.conftest import MakeSpec
from tests.store.single_trials import SingleTrials
from tuner.errors import UnavailableError
from tuner.store import Database, Studies, StudyHandle
from tuner.store.events import read_events
from tuner.store.leases.budget import read_elapsed_s
from tuner.store.leases.workers import WorkerIdentity


def test_worker_that_asks_is_alive_at_that_moment(database: Database, make_spec: MakeSpec) -> None:
    study = Studies(database).create(make_spec(budget={"steps": 5, "wall_time": 100.0}))
    now = 1000.0
    identity = WorkerIdentity("a", "host", 1, "cpu", "0")
    ledger = SingleTrials(database, study, identity, clock=lambda: now)
    ledger.register(0.0, lambda ordinal: ordinal)
    now += 99
    ledger.touch()
    assert not ledger.signals().out_of_time
    now += 2
    assert read_elapsed_s(database, study)[0] < 100
    assert ledger.signals().out_of_time


@pytest.mark.parametrize(("away_s", "told"), [(90.0, True), (0.5, False)])
def test_database_that_was_away_is_an_event_once_it_is_back(
    away_s: float,
    told: bool,
    database: Database,
    study: StudyHandle,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    ledger = SingleTrials(database, study, WorkerIdentity("a", "host", 1, "cpu", "0"))
    ledger.register(0.0, lambda ordinal: ordinal)
    now = 1000.0
    monkeypatch.setattr("tuner.store.connection.database.time.monotonic", lambda: now)
    for _ in range(2):
        with pytest.raises(UnavailableError), database.read():
            raise UnavailableError("the connection was lost")
    now += away_s
    ledger.touch()
    ledger.touch()
    events = read_events(database, study.uuid)
    found = [(e.worker_id, e.detail) for e in events if e.kind == "reconnected"]
    assert found == ([("a", "the database had been away for 90 s")] if told else [])


def test_elapsed_time_counts_overlapping_workers_once(
    database: Database, study: StudyHandle
) -> None:
    for name in ("a", "b"):
        identity = WorkerIdentity(name, "host", 1, "cpu", "0")
        SingleTrials(database, study, identity).register(50.0, lambda ordinal: ordinal)
    wall_s, worker_s = read_elapsed_s(database, study)
    assert wall_s == pytest.approx(50, abs=2)
    assert worker_s == pytest.approx(100, abs=2)
