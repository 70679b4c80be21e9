"""Reading costs what is new, however long a study's past."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from tests.conftest import MakeSpec
from tuner.search import Proposer
from tuner.service.summaries import read_summary
from tuner.store import Database, Lease, Ledger, RecordReader, Studies, StudyHandle, read_records
from tuner.store.leases.trial_reports import TrialEnding, TrialReport
from tuner.store.leases.workers import WorkerIdentity
from tuner.store.records import read_some

EVALUATIONS = 4


@pytest.fixture
def study(database: Database, make_spec: MakeSpec) -> StudyHandle:
    budget = {"trials": 1000, "steps": 20, "evaluations": EVALUATIONS}
    return Studies(database).create(make_spec(budget=budget, search={"sampler": "random"}))


class Worker:
    """Starts and ends trials in groups."""

    def __init__(self, database: Database, study: StudyHandle) -> None:
        self._ledger = Ledger(database, study, WorkerIdentity("a", "host", 1, "cpu", "0"))
        self._ledger.register(0.0, lambda ordinal: ordinal)
        self._proposer = Proposer(study.spec, seed=3)

    def start(self, count: int) -> list[Lease]:
        proposals = [self._proposer.propose() for _ in range(count)]
        return self._ledger.start(self._proposer.openings(), proposals, count)

    def end(self, leases: list[Lease]) -> None:
        for step in range(5, 21, 5):
            told = [TrialReport(lease, step, float(lease.number + step)) for lease in leases]
            assert not self._ledger.report(step, told)
        endings = [TrialEnding(lease, TrialState.COMPLETE, 1.0, {"steps": 20}) for lease in leases]
        assert not self._ledger.finish(endings)

    def run(self, count: int) -> None:
        self.end(self.start(count))


@pytest.fixture
def worker(database: Database, study: StudyHandle) -> Worker:
    return Worker(database, study)


@pytest.fixture
def fetched(monkeypatch: pytest.MonkeyPatch) -> Callable[[], int]:
    """Returns how many rows have been fetched at once since it was last asked."""
    counts: list[int] = []
    fetch = sa.Result.all

    def count(result: Any) -> Any:
        rows = fetch(result)
        counts.append(len(rows))
        return rows

    monkeypatch.setattr(sa.CursorResult, "all", count)

    def read() -> int:
        total = sum(counts)
        counts.clear()
        return total

    return read


def test_what_is_read_grows_with_what_is_new_and_not_with_the_past(
    database: Database, study: StudyHandle, worker: Worker, fetched: Callable[[], int]
) -> None:
    reader = RecordReader(database, study)
    worker.start(1)  # and leaves it lying
    worker.run(2)
    reader.sync()
    costs = []
    for new in (4, 60, 4, 8):
        worker.run(new)
        fetched()
        assert len(reader.sync()) == new
        costs.append(fetched())
    assert costs[2] == pytest.approx(costs[0], rel=0.25)
    assert costs[3] < 3 * costs[2] < costs[1]
    assert reader.sync() == []
    assert fetched() == 1  # the one that still runs


def test_trials_that_are_over_are_read_together_or_one_by_one_alike(
    database: Database, study: StudyHandle, worker: Worker
) -> None:
    reader = RecordReader(database, study)
    found = []
    for _ in range(3):
        leases = worker.start(9)
        found += reader.sync()
        worker.end(leases[::2])
        found += reader.sync()
        worker.end(leases[1::2])
        found += reader.sync()
    over = sorted((r for r in found if r.value is not None), key=lambda record: record.number)
    assert over == read_records(database, study)
    assert [len(record.evaluations) for record in over] == [EVALUATIONS] * 27


def test_trials_of_studies_that_lie_among_each_other_are_told_apart(
    database: Database, study: StudyHandle, make_spec: MakeSpec, worker: Worker
) -> None:
    spec = make_spec(
        study={"name": "other", "workload": "a:B"}, budget={"trials": 100, "steps": 20}
    )
    other = Studies(database).create(spec)
    neighbour = Worker(database, other)
    for count in (1, 3, 1, 2):
        worker.run(count)
        neighbour.run(count)
    mine, theirs = read_records(database, study), read_records(database, other)
    assert [len(mine), len(theirs)] == [7, 7]
    assert {len(record.evaluations) for record in (*mine, *theirs)} == {EVALUATIONS}


def test_some_trials_are_read_by_their_numbers(
    database: Database, study: StudyHandle, worker: Worker
) -> None:
    worker.run(9)
    every = read_records(database, study)
    assert read_some(database, study, [7, 2, 99]) == [every[2], every[7]]
    assert read_some(database, study, []) == []


def test_a_report_reads_no_evaluations(
    database: Database, study: StudyHandle, worker: Worker
) -> None:
    worker.run(5)
    asked: list[str] = []
    with database.read() as connection:
        engine = connection.engine

    def note(*arguments: Any) -> None:
        asked.append(arguments[2])

    sa.event.listen(engine, "before_cursor_execute", note)
    summary = read_summary(database, study)
    sa.event.remove(engine, "before_cursor_execute", note)
    assert summary.counts["complete"] == 5
    assert any("trial_params" in statement for statement in asked)
    assert not any("trial_intermediate_values" in statement for statement in asked)
