"""Crews of workers that halve a study in any order, and die at any time, without training."""

from __future__ import annotations

import math
from collections import Counter
from pathlib import Path
from random import Random
from typing import Any

import pytest
from optuna.trial import TrialState

from tests.conftest import MakeSpec
from tests.service.worker.contexts import Bureau
from tuner.domain.trials import Outcome, TrialConfig
from tuner.search import Verdict
from tuner.search.promotion import pausing_rungs
from tuner.service.worker.context import WorkerContext
from tuner.store import Database, Lease, TrialEnding, TrialReport, read_records
from tuner.store.events import read_events
from tuner.store.leases.budget import is_done
from tuner.store.leases.charges import read_used
from tuner.store.records import read_record

pytestmark = pytest.mark.usefixtures("short_trials")

TRIALS, RUNGS, FULL = 30, pausing_rungs(9), 9


def cannot_fuse(config: TrialConfig) -> bool:
    return False


class Crew:
    """Some workers on one study, each of which trains one trial at a time, a point at a move."""

    def __init__(self, bureau: Bureau, random: Random) -> None:
        self._bureau, self._random = bureau, random
        self._level = random.sample(range(1000), TRIALS)
        self._names = 0
        self._dead: set[str] = set()
        self._training: dict[str, Lease] = {}
        self._contexts: dict[str, WorkerContext] = {}
        self.outranked: list[int] = []
        for _ in range(4):
            self._hire()

    def _hire(self) -> None:
        self._names += 1
        name = f"w{self._names}"
        self._contexts[name] = self._bureau._open_context(name)

    def run(self) -> None:
        """Has the workers move in any order until the study is done."""
        for _ in range(5000):
            if is_done(self._bureau.database, self._bureau.study):
                return
            name = self._random.choice(sorted(self._contexts))
            if self._random.random() < 0.03:
                del self._contexts[name]
                self._training.pop(name, None)
                self._dead.add(name)
                self._hire()
            else:
                self._move(name, self._contexts[name])
        raise AssertionError("the study does not end")

    def _move(self, name: str, context: WorkerContext) -> None:
        lease = self._training.pop(name, None) or self._find(context)
        if lease is None:
            return
        points = self._points(lease) + 1
        value = float(self._level[lease.number])
        step = 2 * points
        lost = context.ledger.report(step, [TrialReport(lease, step, value)])
        assert not lost
        ending = TrialEnding(
            lease, TrialState.COMPLETE, value, {"steps": step, "total_steps": 2 * FULL}
        )
        if points == FULL:
            assert not context.ledger.finish([ending])
            return
        context.catch_up()
        record = context.running[lease.number]
        evaluations = {2 * point: value for point in range(1, points + 1)}
        [verdict] = context.pruner.judge([(record, evaluations)], 2 * FULL)
        if verdict is Verdict.PAUSE:
            assert not context.ledger.pause([ending], step, step)
            return
        assert verdict is Verdict.GO_ON
        if points in RUNGS and not record.is_default:
            self._check_rank(lease.number, points)
        self._training[name] = lease

    def _find(self, context: WorkerContext) -> Lease | None:
        context.catch_up()
        found = context.ledger.take_over(self._dead.__contains__, at_most=1)
        if not found:
            found = context.promote(1, cannot_fuse)
            for lease in found:
                self._check_rank(lease.number, self._points(lease))
        found = (
            found
            or context.start(1, cannot_fuse)
            or context.complete(1, cannot_fuse)
            or context.close()
        )
        if not found:
            context.end_paused()
        return found[0] if found else None

    def _points(self, lease: Lease) -> int:
        record = read_record(self._bureau.database, self._bureau.study, lease.number)
        assert record is not None
        return len(record.evaluations)

    def _check_rank(self, number: int, rung: int) -> None:
        records = read_records(self._bureau.database, self._bureau.study)
        came = [
            record.number
            for record in records
            if len(record.evaluations) >= rung and not record.is_default
        ]
        better = sum(self._level[other] < self._level[number] for other in came)
        assert better < max(1, len(came) // 3)


@pytest.mark.parametrize("seed", range(4))
def test_however_work_is_spread_and_whoever_dies_the_best_third_goes_on_and_each_trial_ends_once(
    database: Database, make_spec: MakeSpec, tmp_path: Path, seed: int
) -> None:
    tables: dict[str, Any] = {
        "budget": {"trials": TRIALS, "steps": 2 * FULL, "evaluations": FULL},
        "space": {"optimizers": ["sgd"], "schedules": ["constant"], "breadth": 1},
        "search": {"pruner": "halving", "sampler": "random", "portfolio": False},
        "schedule": {"constant": {"warmup": 0.0}},
    }
    bureau = Bureau(database, make_spec, tmp_path, **tables)
    crew = Crew(bureau, Random(seed))  # noqa: S311

    crew.run()

    records = read_records(database, bureau.study)
    assert [record.number for record in records] == list(range(TRIALS))
    for record in records:
        points = len(record.evaluations)
        assert points == FULL if record.outcome is Outcome.COMPLETE else points in RUNGS
        assert record.outcome in (Outcome.COMPLETE, Outcome.PRUNED)
        assert record.value == crew._level[record.number]
    for rung in RUNGS:
        rivals = [record for record in records if not record.is_default]
        came = [record for record in rivals if len(record.evaluations) >= rung]
        best = sorted(came, key=lambda record: record.value or 0.0)[: math.ceil(len(came) / 3)]
        assert all(len(record.evaluations) > rung for record in best)
    kinds = Counter(event.kind for event in read_events(database, bureau.study.uuid))
    assert kinds["started"] == TRIALS
    assert kinds["promoted"] >= 1
    assert kinds["ended"] == sum(record.outcome is Outcome.PRUNED for record in records)


@pytest.mark.parametrize("spare", [0, 1])
@pytest.mark.parametrize("seed", range(3))
def test_however_work_is_spread_training_stays_within_its_bound_and_the_last_trials_fit_in(
    database: Database, make_spec: MakeSpec, tmp_path: Path, seed: int, spare: int
) -> None:
    bound = 10.7
    tables: dict[str, Any] = {
        "budget": {
            "trials": TRIALS,
            "full_trials": bound,
            "steps": 2 * FULL,
            "evaluations": FULL,
        },
        "space": {"optimizers": ["sgd", "adam"], "schedules": ["constant"], "breadth": 1},
        "search": {"pruner": "halving", "sampler": "random", "portfolio": False, "spare": spare},
        "schedule": {"constant": {"warmup": 0.0}},
    }
    bureau = Bureau(database, make_spec, tmp_path, **tables)

    Crew(bureau, Random(seed)).run()  # noqa: S311

    records = read_records(database, bureau.study)
    used = read_used(database, bureau.study)
    assert used == pytest.approx(sum(len(record.evaluations) for record in records) / FULL)
    assert used is not None
    assert used <= bound + 1e-9
    assert used > bound - 1 or len(records) == TRIALS
    assert all(record.outcome in (Outcome.COMPLETE, Outcome.PRUNED) for record in records)
    assert sum(record.is_default for record in records) == 1
    if spare:
        complete = {r.optimizer for r in records if r.outcome is Outcome.COMPLETE}
        assert complete == {record.optimizer for record in records}
