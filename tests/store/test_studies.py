from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import optuna
import pytest
import sqlalchemy as sa

from tests.conftest import MakeSpec
from tests.store.single_trials import SingleTrials
from tuner.errors import NotFoundError, SpecError
from tuner.search import Proposer
from tuner.store import Database, Studies, StudyHandle, open_database
from tuner.store.identity import SPEC, set_attribute
from tuner.store.leases.workers import WorkerIdentity


def test_study_is_rebuilt_from_its_database_alone(database: Database, make_spec: MakeSpec) -> None:
    created = Studies(database).create(make_spec())
    found = Studies(database).find("small")
    assert found == created
    assert found.spec.resolve() == make_spec()


def test_name_is_taken_once(database: Database, study: StudyHandle, make_spec: MakeSpec) -> None:
    with pytest.raises(SpecError, match="there is a study 'small' already"):
        Studies(database).create(make_spec())
    assert [overview.name for overview in Studies(database).list()] == ["small"]


def test_of_two_who_create_one_study_at_once_one_is_refused(
    database_url: str, make_spec: MakeSpec
) -> None:
    open_database(database_url, create=True).close()

    def create(_: int) -> bool:
        database = open_database(database_url)
        try:
            Studies(database).create(make_spec())
        except SpecError:
            return False
        finally:
            database.close()
        return True

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(create, range(4))) == [False, False, False, True]


def test_unknown_study_is_answered_with_the_nearest_name(
    database: Database, study: StudyHandle
) -> None:
    with pytest.raises(NotFoundError, match="did you mean 'small'"):
        Studies(database).find("smal")


def test_study_of_someone_elses_is_not_taken_for_ours(database: Database) -> None:
    optuna.create_study(study_name="theirs", storage=database.storage)
    with pytest.raises(NotFoundError, match="not made by tuner"):
        Studies(database).find("theirs")
    assert Studies(database).list() == []


def test_extended_budget_is_stored(database: Database, study: StudyHandle) -> None:
    Studies(database).extend(study, lambda budget: {"trials": 50})
    assert Studies(database).find("small").spec.budget.trials == 50


def test_deleted_study_leaves_no_row_in_any_table(database: Database, study: StudyHandle) -> None:
    proposer = Proposer(study.spec, seed=0)
    ledger = SingleTrials(database, study, WorkerIdentity("w", "host", 1, "cpu", "0"))
    ledger.register(0.0, lambda ordinal: ordinal)
    lease = ledger.start_one(proposer.openings(), proposer.propose())
    assert lease is not None
    ledger.report_one(lease, step=5, progress=5, value=1.0, logged=[(5, "loss", 1.0)])
    Studies(database).delete(study)
    with database.read() as connection:
        tables = sa.inspect(connection).get_table_names()
        counts = {
            name: sa.select(sa.func.count()).select_from(sa.table(name))
            for name in tables
            if "version" not in name
        }
        left = {name: connection.execute(count).scalar() for name, count in counts.items()}
    assert {name: count for name, count in left.items() if count} == {}


def test_study_of_a_version_without_portfolios_goes_on_without_one(
    database: Database, make_spec: MakeSpec
) -> None:
    study = Studies(database).create(make_spec())
    stored = study.spec.to_json()
    for key in ("portfolio", "spare"):
        del stored["search"][key]
    with database.write() as connection:
        set_attribute(connection, study.study_id, SPEC, stored)
    found = Studies(database).find("small")
    assert (found.spec.search.portfolio, found.spec.search.spare) == (False, 2)
