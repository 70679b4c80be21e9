"""What a cohort of 64 trials costs beside its training, in a study that has a past."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable
from typing import TypeVar

from benchmarks.databases import new_database
from benchmarks.growth_writer import Writer
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialRecord, progress_at
from tuner.search import Proposer, Pruner
from tuner.store import Ledger, RecordReader, Studies, WorkerIdentity, open_database

COHORT = 64
EVALUATIONS = 10
_STEPS = 500

T = TypeVar("T")


class Past(contextlib.AbstractContextManager["Past"]):
    """A study in a new SQLite file, and a worker that knows its past.

    Args:
        trials: How many have ended in it, complete with their reports.
    """

    def __init__(self, trials: int) -> None:
        tree = {
            "study": {"name": "past", "workload": "models.digits:Digits"},
            "budget": {"steps": _STEPS, "evaluations": EVALUATIONS, "trials": 10**6},
        }
        self._spec = StudySpec.model_validate(tree).resolve()
        self._trials = trials

    def __enter__(self) -> Past:
        self._stack = contextlib.ExitStack()
        url = self._stack.enter_context(new_database("sqlite"))
        database = open_database(url, create=True)
        self._stack.callback(database.close)
        study = Studies(database).create(self._spec)
        self._ledger = Ledger(database, study, WorkerIdentity("a", "host", 1, "cpu", "0"))
        self._ledger.register(0.0, lambda ordinal: ordinal)
        self._reader = RecordReader(database, study)
        self._proposer = Proposer(self._spec, 0)
        self._pruner = Pruner(self._spec, self._proposer.history)
        self._writer = Writer(self._ledger, self._spec)
        self._writer.fill(self._trials)
        self._catch_up()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def measure(self) -> dict[str, float]:
        """Has a cohort asked for, started, reported, judged and ended; returns seconds of each."""
        spent: dict[str, float] = {}
        proposals = _time(spent, "asking", lambda: self._proposer.propose_many(COHORT))
        leases = _time(spent, "starting", lambda: self._ledger.start([], proposals))
        records = {r.number: r for r in _time(spent, "starting", self._catch_up)}
        lanes = [records[lease.number] for lease in leases]
        values = _time(spent, "one report", lambda: self._writer.report(leases, 1))
        at = progress_at(self._spec, 1, _STEPS)
        judged = [(lane, {at: value}) for lane, value in zip(lanes, values, strict=True)]
        _time(spent, "judging it", lambda: self._pruner.judge(judged, _STEPS))
        for index in range(2, EVALUATIONS + 1):
            self._writer.report(leases, index)
        _time(spent, "ending", lambda: self._writer.end(leases))
        _time(spent, "ending", self._catch_up)
        return spent

    def _catch_up(self) -> list[TrialRecord]:
        news = self._reader.sync()
        self._proposer.history.add(news)
        return news


def _time(spent: dict[str, float], operation: str, work: Callable[[], T]) -> T:
    """Adds the seconds that work takes to those of an operation; returns what it returns."""
    began = time.perf_counter()
    found = work()
    spent[operation] = spent.get(operation, 0.0) + time.perf_counter() - began
    return found
