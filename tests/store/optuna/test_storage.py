from __future__ import annotations

import contextlib
import gc
import math
import pickle
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import optuna
import pytest
import sqlalchemy as sa
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage
from optuna.study import StudyDirection
from optuna.testing.pytest_storages import StorageTestCase
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuner.errors import SpecError, StorageError
from tuner.store import open_database
from tuner.store.optuna import tables as ot
from tuner.store.optuna.storage import Storage

SPACE = {
    "lr": FloatDistribution(1e-5, 1.0, log=True),
    "layers": IntDistribution(1, 8),
    "optimizer": CategoricalDistribution(["sgd", "adam"]),
}
EVERY_FLOAT = (0.5, math.inf, -math.inf)


def template(lr: float = 0.1, **attributes: Any) -> FrozenTrial:
    params = {"lr": lr, "layers": 2, "optimizer": "adam"}
    return create_trial(
        state=TrialState.RUNNING, params=params, distributions=SPACE, user_attrs=attributes
    )


@contextlib.contextmanager
def count_statements(engine: sa.Engine) -> Iterator[list[str]]:
    seen: list[str] = []

    def note(*arguments: Any) -> None:
        seen.append(arguments[2])

    sa.event.listen(engine, "before_cursor_execute", note)
    yield seen
    sa.event.remove(engine, "before_cursor_execute", note)


class TestEveryStorageOfOptuna(StorageTestCase):
    @pytest.fixture
    def storage(self, made_url: str) -> Iterator[Storage]:
        made = Storage(made_url)
        yield made
        made.remove_session()
        made.engine.dispose()

    def test_pickle_storage(self, storage: BaseStorage) -> None:
        with warnings.catch_warnings():
            # The one restored is left to the garbage collector with its connections.
            warnings.simplefilter("ignore", ResourceWarning)
            super().test_pickle_storage(storage)
            gc.collect()


@pytest.fixture
def storage(database_url: str) -> Iterator[Storage]:
    made = Storage(database_url)
    yield made
    made.engine.dispose()


@pytest.fixture
def study_id(storage: Storage) -> int:
    return storage.create_new_study([StudyDirection.MINIMIZE], "small")


def test_group_is_read_by_optuna_as_it_was_written(storage: Storage, study_id: int) -> None:
    started = storage.ask(study_id, [template(0.1, note="é"), template(0.2), template(0.3)])
    ids = [trial_id for trial_id, _ in started]
    assert [number for _, number in started] == [0, 1, 2]
    curve = dict(enumerate((*EVERY_FLOAT, math.nan)))
    storage.report([(trial_id, step, 9.0) for trial_id in ids for step in curve])
    storage.report([(trial_id, step, value) for trial_id in ids for step, value in curve.items()])
    storage.set_user_attrs([(ids[1], "a", [1, None]), (ids[2], "a", {"b": "c"})])
    storage.set_user_attrs([(ids[1], "a", "again")])
    storage.tell(
        [
            (ids[0], TrialState.COMPLETE, 0.5),
            (ids[1], TrialState.PRUNED, None),
            (ids[2], TrialState.COMPLETE, -math.inf),
        ]
    )
    trials = optuna.load_study(study_name="small", storage=storage).trials
    assert [t.number for t in trials] == [0, 1, 2]
    assert [t._trial_id for t in trials] == ids
    assert [t.params["lr"] for t in trials] == [0.1, 0.2, 0.3]
    assert all(t.distributions == SPACE and list(t.params) == list(SPACE) for t in trials)
    assert [t.user_attrs for t in trials] == [{"note": "é"}, {"a": "again"}, {"a": {"b": "c"}}]
    assert [t.value for t in trials] == [0.5, None, -math.inf]
    assert [t.state.name for t in trials] == ["COMPLETE", "PRUNED", "COMPLETE"]
    for trial in trials:
        assert trial.intermediate_values == pytest.approx(curve, nan_ok=True)
        assert trial.datetime_start is not None
        assert trial.datetime_complete is not None
        assert trial.datetime_start <= trial.datetime_complete
    assert storage.get_best_trial(study_id).number == 2


def test_group_is_recorded_as_optuna_records_its_trials_one_by_one(
    storage: Storage, study_id: int
) -> None:
    other = storage.create_new_study([StudyDirection.MINIMIZE], "one by one")
    theirs = [storage.create_new_trial(other, template(0.1, k="v")) for _ in EVERY_FLOAT]
    for trial_id, value in zip(theirs, EVERY_FLOAT, strict=True):
        for step, reported in enumerate((*EVERY_FLOAT, math.nan)):
            storage.set_trial_intermediate_value(trial_id, step, reported)
        storage.set_trial_state_values(trial_id, TrialState.COMPLETE, [value])
    ours = [i for i, _ in storage.ask(study_id, [template(0.1, k="v") for _ in EVERY_FLOAT])]
    steps = enumerate((*EVERY_FLOAT, math.nan))
    storage.report([(i, step, reported) for step, reported in steps for i in ours])
    storage.tell(
        [(i, TrialState.COMPLETE, value) for i, value in zip(ours, EVERY_FLOAT, strict=True)]
    )
    with storage.engine.connect() as connection:
        for table in (ot.trial_params, ot.trial_values, ot.trial_reports, ot.trial_attributes):
            written = [read_rows(connection, table, ids) for ids in (ours, theirs)]
            assert written[0] == written[1] != []


def read_rows(connection: sa.Connection, table: sa.Table, trial_ids: list[int]) -> list[str]:
    """Returns the rows of trials without what tells the trials apart."""
    columns = [c for c in table.columns if not c.primary_key and c.name != "trial_id"]
    rows = connection.execute(sa.select(*columns).where(table.c.trial_id.in_(trial_ids)))
    return sorted(str(tuple(row)) for row in rows)


def test_groups_asked_at_once_number_their_trials_apart(storage: Storage, study_id: int) -> None:
    with ThreadPoolExecutor(4) as pool:
        groups = list(
            pool.map(lambda _: storage.ask(study_id, [template() for _ in range(5)]), range(8))
        )
    numbers = [[number for _, number in group] for group in groups]
    assert all(group == list(range(group[0], group[0] + 5)) for group in numbers)
    assert sorted(number for group in numbers for number in group) == list(range(40))
    assert [t.number for t in storage.get_all_trials(study_id)] == list(range(40))


def test_group_with_one_bad_trial_records_nothing(storage: Storage, study_id: int) -> None:
    [(first, _), (second, _)] = storage.ask(study_id, [template(), template()])
    storage.tell([(second, TrialState.FAIL, None)])
    for bad, error in ((second, UpdateFinishedTrialError), (second + 1, KeyError)):
        with pytest.raises(error):
            storage.report([(first, 0, 0.5), (bad, 0, 0.5)])
        with pytest.raises(error):
            storage.set_user_attrs([(first, "k", 1), (bad, "k", 1)])
        with pytest.raises(error):
            storage.tell([(first, TrialState.COMPLETE, 1.0), (bad, TrialState.COMPLETE, 1.0)])
    [trial, _] = storage.get_all_trials(study_id)
    assert (trial.state, trial.intermediate_values) == (TrialState.RUNNING, {})
    assert (trial.user_attrs, trial.values) == ({}, None)


def test_ending_that_is_none_is_refused(storage: Storage, study_id: int) -> None:
    [(trial_id, _)] = storage.ask(study_id, [template()])
    for endings in (
        [(trial_id, TrialState.COMPLETE, math.nan)],
        [(trial_id, TrialState.RUNNING, 0.5)],
        [(trial_id, TrialState.PRUNED, 0.5), (trial_id, TrialState.FAIL, None)],
    ):
        with pytest.raises(SpecError):
            storage.tell(endings)
    assert storage.get_trial(trial_id).state is TrialState.RUNNING


def test_trials_that_do_not_go_with_the_study_are_refused(storage: Storage, study_id: int) -> None:
    stray = create_trial(
        state=TrialState.RUNNING,
        params={"lr": 1},
        distributions={"lr": IntDistribution(1, 2)},
    )
    with pytest.raises(ValueError, match="distribution"):
        storage.ask(study_id, [template(), stray])
    assert storage.get_n_trials(study_id) == 0
    storage.ask(study_id, [template()])
    with pytest.raises(ValueError, match="distribution"):
        storage.ask(study_id, [stray])
    with pytest.raises(KeyError):
        storage.ask(study_id + 1, [template()])
    assert storage.get_n_trials(study_id) == 1


def test_empty_groups_are_nothing(storage: Storage, study_id: int) -> None:
    assert storage.ask(study_id, []) == []
    storage.report([])
    storage.set_user_attrs([])
    storage.tell([])
    assert storage.get_all_trials(study_id) == []


def test_group_costs_no_more_statements_than_one_trial(database_url: str) -> None:
    storage = Storage(database_url)
    study_id = storage.create_new_study([StudyDirection.MINIMIZE])
    counts = []
    for size in (1, 40):
        with count_statements(storage.engine) as statements:
            ids = [i for i, _ in storage.ask(study_id, [template(k=1) for _ in range(size)])]
            storage.report([(i, 0, 0.5) for i in ids])
            storage.set_user_attrs([(i, "a", 1) for i in ids])
            storage.tell([(i, TrialState.COMPLETE, 0.5) for i in ids])
        counts.append(len(statements))
    assert counts[0] == counts[1]
    storage.engine.dispose()


def test_what_the_database_refuses_is_told_as_optuna_tells_it(database_url: str) -> None:
    storage = Storage(database_url)
    study_id = storage.create_new_study([StudyDirection.MINIMIZE])
    [(trial_id, _)] = storage.ask(study_id, [template()])
    with pytest.raises(StorageInternalError) as caught:
        storage.report([(trial_id, 0, 0.5), (trial_id, None, 0.5)])  # type: ignore[list-item]
    assert isinstance(caught.value.__cause__, sa.exc.IntegrityError)
    assert storage.get_trial(trial_id).intermediate_values == {}
    storage.engine.dispose()


def test_trial_that_has_ended_stays_as_it_is(database_url: str) -> None:
    storage = Storage(database_url)
    study_id = storage.create_new_study([StudyDirection.MINIMIZE])
    [(trial_id, _)] = storage.ask(study_id, [template()])
    storage.tell([(trial_id, TrialState.COMPLETE, 0.5)])
    with storage.engine.begin() as connection:
        ot.finish_trials(connection, [(trial_id, TrialState.FAIL, 7.0)])
    trial = storage.get_trial(trial_id)
    assert (trial.state, trial.value) == (TrialState.COMPLETE, 0.5)
    storage.engine.dispose()


@pytest.mark.parametrize("installed", ["4.9.0", "5.1.0", "5.10.0"])
def test_another_minor_version_of_optuna_is_refused_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, installed: str
) -> None:
    monkeypatch.setattr(optuna, "__version__", installed)
    said = rf"Optuna {installed} is installed.*Optuna 5\.0 only: pip install 'optuna==5\.0\.\*'"
    with pytest.raises(StorageError, match=said):
        open_database(f"sqlite:///{tmp_path / 'tuner.db'}", create=True)
    assert list(tmp_path.iterdir()) == []


def test_another_minor_version_of_optuna_is_refused_where_a_storage_is_sent_to(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent = pickle.dumps(storage)
    monkeypatch.setattr(optuna, "__version__", "5.1.0")
    with pytest.raises(StorageError, match=r"Optuna 5\.1\.0 is installed"):
        pickle.loads(sent)  # noqa: S301 (its own)


def test_tables_of_another_version_than_the_installed_optuna_knows_are_refused(
    database_url: str,
) -> None:
    database = open_database(database_url, create=True)
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = 'v9.0.0.a'")
    database.close()
    with pytest.raises(StorageError, match=r"of version v9\.0\.0\.a.*works with v3\.2\.0\.a"):
        open_database(database_url)
