"""Companions: made with a study, begun once, and linked to it whatever either is called."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import optuna
import pytest
import sqlalchemy as sa
from optuna.trial import TrialState

from tests.store.renaming import rename
from tests.store.single_trials import SingleTrials
from tuner.domain.confirmation import Confirm, Confirmation, Finalist
from tuner.domain.states import StudyState
from tuner.domain.trials import default_proposal
from tuner.errors import NotFoundError, TunerError
from tuner.search import Proposer
from tuner.store import Database, Studies, StudyHandle, open_database
from tuner.store.companions import begin, change_confirm, find_companion, find_confirmed
from tuner.store.control import set_state
from tuner.store.events import read_events
from tuner.store.identity import SPEC, UUID, read_attributes
from tuner.store.leases.budget import is_done
from tuner.store.leases.workers import WorkerIdentity
from tuner.store.tables import events

WRITERS = 6


@pytest.fixture
def searched(database: Database, study: StudyHandle) -> StudyHandle:
    """Returns a study whose budget is used up."""
    ledger = SingleTrials(database, study, WorkerIdentity("w", "host", 1, "cpu", "0"))
    ledger.register(0.0, lambda ordinal: ordinal)
    proposals = [Proposer(study.spec, seed=0).propose() for _ in range(6)]
    for lease in ledger.start([], proposals):
        ledger.finish_one(lease, TrialState.COMPLETE, 1.0, {})
    return study


@pytest.fixture
def companion(database: Database, searched: StudyHandle) -> StudyHandle:
    return companion_of(database, searched)


@pytest.fixture
def other(database: Database) -> Iterator[Database]:
    """Returns the same database, as another process has it open."""
    opened = open_database(database.url)
    yield opened
    opened.close()


def companion_of(database: Database, study: StudyHandle) -> StudyHandle:
    named = study.spec.study.model_copy(update={"name": f"{study.name}.confirm"})
    waiting = {"study": named, "confirmation": Confirmation(study=study.uuid)}
    budget = study.spec.budget.model_copy(update={"trials": 1})
    return Studies(database).create(study.spec.model_copy(update={**waiting, "budget": budget}))


def plan(study: StudyHandle, runs: int = 15) -> Confirmation:
    finalist = Finalist(trial=-1, params=default_proposal(study.spec, "sgd").params)
    return Confirmation(study=study.uuid, finalists=(finalist,), seeds=5, runs=runs)


def refreshed(database: Database, study: StudyHandle) -> StudyHandle:
    return Studies(database).refresh(study)


def names(database: Database) -> list[str]:
    listed = [overview.name for overview in Studies(database).list()]
    assert Studies(database).names() == listed
    return listed


def test_finalists_are_in_the_spec_of_whoever_reads_the_study_and_its_budget_is_their_runs(
    database: Database, searched: StudyHandle, companion: StudyHandle
) -> None:
    assert companion.waits
    begun = begin(database, searched, companion, plan(searched))
    assert begun is not None
    for found in (begun, Studies(database).find(companion.name), refreshed(database, companion)):
        assert found.spec.confirmation == plan(searched)
        assert found.spec.budget.trials == 15
        assert not found.waits
    longer = Studies(database).extend(begun, lambda budget: {"trials": budget.trials + 1})
    assert longer.spec.budget.trials == 16
    assert refreshed(database, longer).spec.confirmation == plan(searched)
    assert refreshed(database, longer).spec.budget.trials == 16


def test_many_that_see_the_search_over_at_once_write_finalists_once(
    database: Database, searched: StudyHandle, companion: StudyHandle
) -> None:
    ready = Barrier(WRITERS)

    def write(runs: int) -> Confirmation | None:
        own = open_database(database.url)
        try:
            ready.wait(timeout=60)
            begun = begin(own, searched, companion, plan(searched, runs))
        finally:
            own.close()
        return None if begun is None else begun.spec.confirmation

    with ThreadPoolExecutor(WRITERS) as pool:
        found = list(pool.map(write, range(10, 10 + WRITERS)))
    assert found == [refreshed(database, companion).spec.confirmation] * WRITERS
    assert found[0] is not None
    kinds = [event.kind for event in read_events(database, companion.uuid)]
    assert kinds.count("planned") == 1


def test_no_finalists_are_written_while_the_search_goes_on_or_once_it_was_stopped(
    database: Database, searched: StudyHandle, companion: StudyHandle
) -> None:
    Studies(database).extend(searched, lambda budget: {"trials": 7})
    assert begin(database, searched, companion, plan(searched), stopped=True) is None
    set_state(database, searched, StudyState.STOPPED)
    assert begin(database, searched, companion, plan(searched)) is None
    assert refreshed(database, companion).waits
    assert begin(database, searched, companion, plan(searched), stopped=True) is not None


def test_how_it_confirms_can_be_changed_until_it_begins(
    database: Database, searched: StudyHandle, companion: StudyHandle
) -> None:
    changed = change_confirm(database, companion, Confirm(top=1))
    assert changed.spec.confirm.top == 1
    begin(database, searched, companion, plan(searched))
    late = change_confirm(database, companion, Confirm(top=2))
    assert late.spec.confirm.top == 1
    assert late.spec.confirmation == plan(searched)


def test_what_waits_is_listed_only_once_its_study_is_gone(
    database: Database, searched: StudyHandle, companion: StudyHandle
) -> None:
    assert names(database) == ["small"]
    Studies(database).delete(searched)
    assert names(database) == ["small.confirm"]
    assert find_confirmed(database, companion) is None


def test_what_has_begun_is_listed_with_its_runs(
    database: Database, searched: StudyHandle, companion: StudyHandle
) -> None:
    begin(database, searched, companion, plan(searched))
    listed = Studies(database).list()
    assert [(each.name, each.trials) for each in listed] == [("small", 6), ("small.confirm", 15)]


@pytest.mark.skipif(sys.version_info >= (3, 15), reason="Optuna Dashboard does not start there")
@pytest.mark.parametrize("begun_before", [False, True])
def test_a_rename_of_either_in_the_dashboard_breaks_nothing(
    database: Database, searched: StudyHandle, companion: StudyHandle, begun_before: bool
) -> None:
    if begun_before:
        begin(database, searched, companion, plan(searched))
    assert rename(database, searched, "large") == 201
    assert rename(database, companion, "verdict") == 201
    found = find_companion(database, searched)
    assert found is not None
    assert (found.name, found.uuid, found.waits) == ("verdict", companion.uuid, not begun_before)
    assert find_confirmed(database, found) == "large"
    large = Studies(database).find("large")
    begun = begin(database, large, found, plan(searched))
    assert begun is not None
    assert begun.spec.confirmation == plan(searched)
    # What was found before the rename still means the same.
    assert refreshed(database, companion).spec.budget.trials == 15
    assert not is_done(database, companion)
    for each in (begun, large):
        Studies(database).delete(each)
    assert names(database) == []
    with pytest.raises(NotFoundError):
        refreshed(database, companion)


def test_a_copy_keeps_its_finalists_when_the_other_is_deleted(
    database: Database, searched: StudyHandle, companion: StudyHandle
) -> None:
    begin(database, searched, companion, plan(searched))
    optuna.copy_study(
        from_study_name=companion.name,
        from_storage=database.storage,
        to_storage=database.storage,
        to_study_name="copy",
    )
    Studies(database).delete(companion)
    copy = Studies(database).find("copy")
    assert copy.uuid != companion.uuid
    assert copy.spec.confirmation == plan(searched)
    assert copy.spec.budget.trials == 15


@pytest.mark.parametrize("detail", ["", "7", "{}", '{"runs": 15, "seeds": "x", "finalists": [1]}'])
def test_finalists_that_cannot_be_read_are_an_error_and_can_be_deleted(
    database: Database, searched: StudyHandle, companion: StudyHandle, detail: str
) -> None:
    begin(database, searched, companion, plan(searched))
    with database.write() as connection:
        connection.execute(
            sa.update(events).where(events.c.kind == "planned").values(detail=detail)
        )
    with pytest.raises(TunerError):
        find_companion(database, searched)
    assert "small" in names(database)
    Studies(database).delete(companion)
    assert find_companion(database, searched) is None


def test_the_attributes_that_a_worker_may_not_write_stay_as_they_are(
    database: Database, other: Database, searched: StudyHandle, companion: StudyHandle
) -> None:
    begin(other, searched, companion, plan(searched))
    with database.read() as connection:
        attributes = read_attributes(connection, companion.study_id)
        stored = connection.exec_driver_sql(
            "SELECT value_json FROM study_user_attributes"
            f" WHERE key = '{SPEC}' AND study_id = {companion.study_id}"
        ).scalar_one()
    assert attributes[UUID] == companion.uuid
    assert "finalists" in attributes[SPEC]["confirmation"]
    assert '"runs": 1,' in stored or '"runs": 1}' in stored
