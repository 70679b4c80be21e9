from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState

from tests.conftest import MakeSpec
from tests.store.leases.bench import (
    WIDTH,
    Bench,
    Cohorts,
    complete,
    evaluated,
    nobody_died,
    numbers,
)
from tests.store.optuna.test_storage import count_statements
from tests.store.single_trials import SingleTrials
from tuner.domain.trials import Outcome
from tuner.errors import LeaseLostError, SpecError
from tuner.store import (
    Database,
    Lease,
    Studies,
    TrialEnding,
    TrialReport,
    read_curves,
    read_records,
)
from tuner.store.records import read_record


def test_reports_and_the_end_of_a_trial_are_read_back(bench: Bench) -> None:
    ledger = bench.ledger("a")
    lease = bench.start(ledger)
    ledger.report_one(lease, step=5, progress=5, value=0.5)
    ledger.report_one(lease, step=10, progress=10, value=0.25)
    ledger.finish_one(lease, TrialState.COMPLETE, 0.25, {"steps": 10})
    record = read_record(bench.database, bench.study, lease.number)
    assert record is not None
    assert record.outcome is Outcome.COMPLETE
    assert record.value == 0.25
    assert record.evaluations == {5: 0.5, 10: 0.25}
    assert record.attributes["steps"] == 10


def test_trial_is_finished_once(bench: Bench) -> None:
    ledger = bench.ledger("a")
    lease = bench.start(ledger)
    ledger.finish_one(lease, TrialState.COMPLETE, 1.0, {})
    with pytest.raises(LeaseLostError):
        ledger.finish_one(lease, TrialState.FAIL, None, {"error": "late"})
    record = read_record(bench.database, bench.study, lease.number)
    assert record is not None
    assert record.outcome is Outcome.COMPLETE
    assert "error" not in record.attributes


def test_checkpoint_that_counts_is_that_of_the_last_holder_who_saved(bench: Bench) -> None:
    first, second = bench.ledger("a"), bench.ledger("b")
    lease = bench.start(first)
    assert lease.checkpoint is None
    saved = first.saved_one(lease, 5)
    assert saved.checkpoint == saved.token == lease.token
    first.release([saved])
    taken = second.take_one(nobody_died)
    assert taken is not None
    assert taken.checkpoint == lease.token
    assert second.saved_one(taken, 10).checkpoint == taken.token != lease.token


def test_report_costs_few_statements(bench: Bench) -> None:
    ledger = bench.ledger("a")
    lease = bench.start(ledger)
    statements: list[str] = []

    def count(*arguments: Any) -> None:
        statements.append(arguments[2])

    sa.event.listen(bench.database.engine, "before_cursor_execute", count)
    ledger.report_one(lease, 5, 5, 0.5, [(5, "loss", 0.5)])
    assert [s.split()[0] for s in statements if "BEGIN" not in s] == ["UPDATE", "INSERT", "INSERT"]
    statements.clear()
    ledger.signals()
    assert len([s for s in statements if "BEGIN" not in s]) == 1
    sa.event.remove(bench.database.engine, "before_cursor_execute", count)


def test_failed_write_keeps_the_lease(bench: Bench) -> None:
    ledger = bench.ledger("a")
    lease = bench.start(ledger)
    with pytest.raises(TypeError):
        ledger.finish_one(lease, TrialState.COMPLETE, 1.0, {"not json": object()})
    record = read_record(bench.database, bench.study, lease.number)
    assert record is not None
    assert record.outcome is Outcome.RUNNING
    ledger.finish_one(lease, TrialState.COMPLETE, 1.0, {})


def test_evaluation_reported_again_replaces_the_former(bench: Bench) -> None:
    ledger = bench.ledger("a")
    lease = bench.start(ledger)
    ledger.report_one(lease, 5, 5, 0.5, [(4, "loss", 2.0), (5, "loss", 1.0)])
    ledger.report_one(lease, 5, 5, 0.25, [(5, "loss", 0.75)])
    record = read_record(bench.database, bench.study, lease.number)
    assert record is not None
    assert record.evaluations == {5: 0.25}
    assert read_curves(bench.database, bench.study, lease.number) == {"loss": {4: 2.0, 5: 0.75}}


def test_parameters_added_in_training_stay_as_they_were_first(bench: Bench) -> None:
    ledger = bench.ledger("a")
    lease = bench.start(ledger)
    rate = FloatDistribution(0.0, 1.0)
    ledger.add_parameters(lease, {"width": 3}, {"width": WIDTH})
    ledger.add_parameters(lease, {"width": 5, "drop": 0.5}, {"width": WIDTH, "drop": rate})
    ledger.add_parameters(lease, {}, {})
    added = {"width": 3, "drop": 0.5}
    record = read_record(bench.database, bench.study, lease.number)
    assert record is not None
    assert added.items() <= record.proposal.params.items()
    [trial] = optuna.load_study(study_name="small", storage=bench.database.storage).trials
    assert added.items() <= trial.params.items()
    assert trial.distributions["width"] == WIDTH


def test_openings_start_first_and_proposals_fill_the_group(
    portfolio: object, cohorts: Cohorts
) -> None:
    leases = cohorts.start_some(cohorts.ledger("a"), 4)
    assert numbers(leases) == [0, 1, 2, 3]
    assert len({lease.token for lease in leases}) == 4
    records = read_records(cohorts.database, cohorts.study)
    assert [record.proposal.preset for record in records] == ["portfolio"] * 3 + [None]
    assert [cohorts.kinds(number) for number in range(4)] == [["started"]] * 4


def test_proposals_start_in_their_order(cohorts: Cohorts) -> None:
    proposals = cohorts.proposals(5)
    leases = cohorts.ledger("a").start([], proposals)
    found = [cohorts.read(lease.number).proposal.params for lease in leases]
    assert found == [proposal.params for proposal in proposals]


def test_reports_and_ends_of_a_group_are_read_back(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    leases = cohorts.start_some(ledger, 3)
    for progress in (5, 10):
        assert ledger.report(progress, evaluated(leases, progress)) == {}
    states = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.FAIL)
    values = (0.5, 1.5, None)
    endings = [
        TrialEnding(lease, state, value, {"steps": 10, "lane": lease.number})
        for lease, state, value in zip(leases, states, values, strict=True)
    ]
    assert ledger.finish(endings) == {}
    records = read_records(cohorts.database, cohorts.study)
    assert [record.outcome.name for record in records] == ["COMPLETE", "PRUNED", "FAILED"]
    assert [record.value for record in records] == list(values)
    for number, record in enumerate(records):
        assert dict(record.evaluations) == {5: 0.5 + number, 10: 0.5 + number}
        assert record.attributes["lane"] == number
        curves = read_curves(cohorts.database, cohorts.study, number)
        assert curves == {"loss": {5: 0.5, 10: 0.5}}


def test_trial_without_an_evaluation_tells_only_what_it_logged(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    first, second = cohorts.start_some(ledger, 2)
    reports = [TrialReport(first, logged=[(3, "loss", 2.0)]), TrialReport(second, 3, 0.5)]
    assert ledger.report(3, reports) == {}
    assert [dict(cohorts.read(number).evaluations) for number in (0, 1)] == [{}, {3: 0.5}]
    assert read_curves(cohorts.database, cohorts.study, 0) == {"loss": {3: 2.0}}


def test_evaluation_without_a_value_is_refused() -> None:
    with pytest.raises(SpecError, match="Trial 7 has no value at 5: report the metric"):
        TrialReport(Lease(7, "token", 1), progress=5)


def test_reports_told_twice_are_harmless(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    leases = cohorts.start_some(ledger, 3)
    for value in (0.75, 0.5):
        assert ledger.report(5, evaluated(leases, 5, value)) == {}
    for number in range(3):
        assert dict(cohorts.read(number).evaluations) == {5: 0.5 + number}
        assert read_curves(cohorts.database, cohorts.study, number) == {"loss": {5: 0.5}}


def test_write_that_fails_for_one_is_none_for_all(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    leases = cohorts.start_some(ledger, 2)
    good, bad = complete(leases)
    with pytest.raises(TypeError):
        ledger.finish([good, replace(bad, attributes={"not json": object()})])
    assert [cohorts.read(number).outcome for number in (0, 1)] == [Outcome.RUNNING] * 2
    assert ledger.finish([good, bad]) == {}


def test_empty_groups_are_nothing(cohorts: Cohorts) -> None:
    ledger = cohorts.ledger("a")
    assert cohorts.start_some(ledger, 0) == []
    assert ledger.report(5, []) == {}
    assert ledger.renew([], 5) == {}
    assert ledger.saved([], 5) == {}
    assert ledger.finish([]) == {}
    ledger.release([])
    assert ledger.take_over(nobody_died, at_most=8) == []
    assert read_records(cohorts.database, cohorts.study) == []


def count_operations(
    cohorts: Cohorts, ledger: SingleTrials, heir: SingleTrials, size: int
) -> dict[str, int]:
    counts = {}

    @contextlib.contextmanager
    def counted(name: str) -> Iterator[None]:
        with count_statements(cohorts.database.engine) as statements:
            yield
        counts[name] = len([each for each in statements if not each.startswith("BEGIN")])

    proposals = cohorts.proposals(size)
    with counted("start"):
        leases = ledger.start([], proposals)
    with counted("report"):
        ledger.report(5, evaluated(leases, 5))
    with counted("renew"):
        ledger.renew(leases, 6)
    with counted("saved"):
        ledger.saved(leases, 6)
    with counted("release"):
        ledger.release(leases)
    with counted("take over"):
        taken = heir.take_over(nobody_died, at_most=64)
    assert len(taken) == size
    with counted("lost"):
        assert len(ledger.report(7, evaluated(leases, 7))) == size
    with counted("tell"):
        heir.tell(taken, "continued", "at step 5")
    with counted("finish"):
        heir.finish(complete(taken))
    return counts


def test_operation_costs_as_many_statements_for_one_trial_as_for_many(
    database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(make_spec(budget={"trials": 200, "steps": 20}))
    cohorts = Cohorts(database, study)
    ledger, heir = cohorts.ledger("a"), cohorts.ledger("b")
    ledger.touch()
    heir.touch()
    of_one = count_operations(cohorts, ledger, heir, 1)
    assert of_one == count_operations(cohorts, ledger, heir, 40)
    few = {
        "report": 3,
        "renew": 1,
        "saved": 1,
        "release": 3,
        "take over": 7,
        "tell": 2,
        "finish": 5,
    }
    assert (few | {"finish": 6}).items() <= of_one.items()
