"""A row that is damaged is told of, and the rest is shown."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable
from pathlib import Path

import optuna
import pytest
import sqlalchemy as sa
from click.testing import CliRunner, Result
from optuna.trial import TrialState

from tests.conftest import MakeSpec
from tests.store.single_trials import SingleTrials
from tuner.cli.main import cli
from tuner.domain.fuse_plan import FusePlan
from tuner.domain.states import Activity, StudyState
from tuner.errors import DamageWarning, SpecError, StorageError
from tuner.search import Proposer
from tuner.service.summaries import read_summary
from tuner.store import Database, Studies, StudyHandle, read_records
from tuner.store.control import read_state, set_state
from tuner.store.curves import insert_points
from tuner.store.damage import parse_value
from tuner.store.identity import SPEC, STATE, UUID
from tuner.store.leases.reruns import rerun
from tuner.store.leases.workers import WorkerIdentity
from tuner.store.optuna import tables as ot
from tuner.store.plans import find_plan, keep_plan, read_plans
from tuner.store.records import RecordReader, read_record
from tuner.store.soundness import is_sound
from tuner.store.tables import plans

DAMAGED = ["", "{", "null", "7", '"paused?"', "[]", "{}", "\x1b]0;x", "[" * 100_000]


ON_SQLITE = pytest.mark.parametrize("database_url", ["sqlite"], indirect=True)
"""PostgreSQL's columns take what is of their kind alone."""

SQLITE_FIRST = pytest.mark.parametrize(
    "database_url",
    ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)],
    indirect=True,
)
"""One text is judged by one function wherever it was read; PostgreSQL takes its turn as well."""


@pytest.fixture
def trained(portfolio: object, database: Database, study: StudyHandle) -> StudyHandle:
    """Returns a study with three complete trials."""
    ledger = SingleTrials(database, study, WorkerIdentity("w", "host", 1, "cpu", "0"))
    ledger.register(0.0, lambda ordinal: ordinal)
    proposer = Proposer(study.spec, seed=0)
    for lease in ledger.start(proposer.openings(), [proposer.propose() for _ in range(3)]):
        ledger.report_one(lease, 5, 5, 0.5)
        ledger.finish_one(
            lease, TrialState.COMPLETE, 0.5 + lease.number, {"steps": 20, "metrics": {}}
        )
    return study


def damage(database: Database, key: str, text: str) -> None:
    with database.write() as connection:
        connection.execute(
            sa.update(ot.study_attributes)
            .where(ot.study_attributes.c.key == key)
            .values(value_json=text)
        )


def typed(database: Database, *arguments: str) -> Result:
    return CliRunner().invoke(cli, ["study", *arguments, "--storage", database.url])


@pytest.mark.parametrize("text", DAMAGED)
@pytest.mark.parametrize("key", [SPEC, STATE, UUID])
def test_list_tells_of_the_damaged_study_and_shows_the_others(
    database: Database, trained: StudyHandle, make_spec: MakeSpec, key: str, text: str
) -> None:
    set_state(database, trained, StudyState.PAUSED)
    damage(database, key, text)
    study = make_spec().study.model_dump() | {"name": "sound"}
    Studies(database).create(make_spec(study=study))
    told, sound = Studies(database).list()
    assert (sound.name, sound.damage, sound.trials) == ("sound", None, 6)
    assert (told.name, told.started) == ("small", 3)
    if told.damage is None:  # any text passes for an identity here
        assert (key, text) == (UUID, '"paused?"')
    else:
        assert told.activity is Activity.DAMAGED
        assert "damaged" in told.damage
        assert len(told.damage) < 300


def test_list_is_drawn_with_what_is_damaged_told_below(
    database: Database, trained: StudyHandle
) -> None:
    damage(database, SPEC, "{")
    shown = typed(database, "list")
    assert shown.exit_code == 0
    assert "damaged" in shown.stdout
    assert shown.stderr.startswith("Warning: small: Its attribute tuner:spec is damaged: '{'.")
    assert json.loads(typed(database, "list", "--json").stdout)[0]["activity"] == "damaged"


@pytest.mark.parametrize("text", DAMAGED)
def test_spec_that_is_damaged_is_told_where_it_is_needed(
    database: Database, trained: StudyHandle, text: str
) -> None:
    damage(database, SPEC, text)
    with pytest.raises((SpecError, StorageError), match="small"):
        Studies(database).find("small")


def test_report_is_told_of_a_damaged_state_which_workers_do_not_guess(
    database: Database, trained: StudyHandle
) -> None:
    set_state(database, trained, StudyState.PAUSED)
    damage(database, STATE, '"?"')
    with pytest.warns(DamageWarning, match="counts as stopped: Its state is damaged: '.'"):
        assert read_summary(database, trained).finished == 3
    with pytest.raises(StorageError, match="Its state is damaged"):
        SingleTrials(database, trained, WorkerIdentity("w", "host", 1, "cpu", "0")).signals()
    set_state(database, trained, StudyState.RUNNING)
    assert read_state(database, trained) is StudyState.RUNNING


@pytest.mark.parametrize("text", [*DAMAGED, '{"lanes": "x"}', '{"lanes": 1, "reason": 7}'])
def test_plan_that_is_damaged_is_left_out_and_made_anew(
    database: Database, trained: StudyHandle, text: str
) -> None:
    plan = FusePlan(2, trials=6)
    keep_plan(database, trained, "auto on there", plan)
    with database.write() as connection:
        connection.execute(
            sa.insert(plans).values(study_uuid=trained.uuid, place="auto on cpu", plan=text)
        )
    with pytest.warns(DamageWarning, match="The plan of 'small' for auto on cpu is left out"):
        assert read_plans(database, trained) == {"auto on there": plan}
    with pytest.warns(DamageWarning):
        assert find_plan(database, trained, "auto") == plan
    with pytest.warns(DamageWarning):
        assert keep_plan(database, trained, "auto on cpu", plan) == plan
    assert len(read_plans(database, trained)) == 2


Row = Callable[[int], sa.Update]


@pytest.mark.parametrize(
    "update",
    [
        lambda i: sa.update(ot.trial_params).values(param_value=99),
        lambda i: sa.update(ot.trial_params).values(param_value=-1),
        lambda i: sa.update(ot.trial_params).values(param_value=0.5),
        lambda i: sa.update(ot.trial_params).values(distribution_json="{"),
        lambda i: sa.update(ot.trial_params).values(distribution_json='{"name": "Float"}'),
        lambda i: (
            sa.update(ot.trial_attributes)
            .values(value_json="{")
            .where(ot.trial_attributes.c.key == "preset")
        ),
    ],
    ids=["choice", "negative", "fraction", "no JSON", "unknown", "preset"],
)
def test_trial_of_which_nobody_can_tell_what_it_trained_with_is_left_out(
    database: Database, trained: StudyHandle, update: Row
) -> None:
    statement = update(1)
    table = statement.table
    of_optimizer = [] if table is ot.trial_attributes else [table.c.param_name == "optimizer"]
    with database.write() as connection:
        trial_id = connection.execute(
            sa.select(ot.trials.c.trial_id).where(ot.trials.c.number == 1)
        ).scalar_one()
        changed = connection.execute(statement.where(table.c.trial_id == trial_id, *of_optimizer))
        assert changed.rowcount == 1
    with pytest.warns(DamageWarning, match="Trial 1 of 'small' is left out: its "):
        assert [record.number for record in read_records(database, trained)] == [0, 2]
    with pytest.warns(DamageWarning):
        assert read_record(database, trained, 1) is None
    with pytest.warns(DamageWarning):
        assert read_summary(database, trained).finished == 2


def test_attribute_that_is_damaged_is_left_out_of_its_trial(
    database: Database, trained: StudyHandle
) -> None:
    with database.write() as connection:
        connection.execute(
            sa.update(ot.trial_attributes)
            .where(
                ot.trial_attributes.c.key == "metrics",
                ot.trial_attributes.c.trial_id
                == sa.select(sa.func.min(ot.trials.c.trial_id)).scalar_subquery(),
            )
            .values(value_json="{")
        )
    with pytest.warns(DamageWarning, match="The attribute metrics of trial 0 of 'small'"):
        records = read_records(database, trained)
    assert [record.attributes["steps"] for record in records] == [20, 20, 20]
    assert ["metrics" in record.attributes for record in records] == [False, True, True]


@pytest.mark.parametrize("style", ["terminal", "json", "markdown", "html"])
def test_report_is_written_without_what_is_damaged(
    database: Database, trained: StudyHandle, tmp_path: Path, style: str
) -> None:
    with database.write() as connection:
        connection.execute(
            sa.update(ot.trial_params)
            .where(ot.trial_params.c.param_name == "optimizer", ot.trial_params.c.param_value == 1)
            .values(param_value=99)
        )
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    with pytest.warns(DamageWarning, match="is left out"):
        written = typed(database, "report", "small", "--format", style)
    assert written.exit_code == 0, written.output
    assert "sgd" in written.stdout


@ON_SQLITE
@pytest.mark.parametrize("column", ["state", "datetime_start", "datetime_complete"])
@pytest.mark.parametrize("text", ["", "?", "complete", "\x1b]0;x", "9999-99-99"])
def test_trial_whose_state_or_times_are_damaged_is_left_out(
    database: Database, trained: StudyHandle, column: str, text: str
) -> None:
    with database.write() as connection:
        connection.exec_driver_sql(
            f"UPDATE trials SET {column} = ? WHERE number = 1",
            (text,),
        )
    with pytest.warns(DamageWarning, match="Trial 1 of 'small' is left out: its "):
        assert [record.number for record in read_records(database, trained)] == [0, 2]
    with pytest.warns(DamageWarning):
        assert read_summary(database, trained).finished == 2
    [listed] = Studies(database).list()
    assert (listed.started, listed.running, listed.waiting, listed.damage) == (3, 0, 0, None)
    with pytest.warns(DamageWarning):
        shown = typed(database, "report", "small", "--json")
    assert json.loads(shown.stdout)["counts"]["complete"] == 2
    reader = RecordReader(database, trained)
    with pytest.warns(DamageWarning):
        assert len(reader.sync()) == 2
    assert reader.sync() == []
    if column == "state":
        with pytest.raises(StorageError, match="The state of trial 1 is damaged"):
            rerun(database, trained, 1)


_OF_TRIAL_1 = "WHERE trial_id = (SELECT trial_id FROM trials WHERE number = 1)"
_OPTIMIZER = f"{_OF_TRIAL_1} AND param_name = 'optimizer'"


@ON_SQLITE
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE trials SET number = 'abc' WHERE number = 1",
        "UPDATE trials SET number = -3 WHERE number = 1",
        "UPDATE trials SET datetime_start = '2026-11-30T09:00:00+02:00' WHERE number = 1",
        f"UPDATE trial_values SET value = 'abc' {_OF_TRIAL_1}",
        f"UPDATE trial_values SET value = x'ff' {_OF_TRIAL_1}",
        f"UPDATE trial_values SET value = -9e999 {_OF_TRIAL_1}",
        f"DELETE FROM trial_values {_OF_TRIAL_1}",
        f"DELETE FROM trial_params {_OPTIMIZER}",
        f"UPDATE trial_params SET param_name = NULL {_OPTIMIZER}",
        f"UPDATE trial_params SET param_value = 9e999 {_OPTIMIZER}",
        "UPDATE trial_params SET distribution_json = "
        """'{"name": "CategoricalDistribution", "attributes": {"choices": ["evil", "bad"]}}' """
        f"{_OPTIMIZER}",
        "UPDATE trial_params SET distribution_json = replace(hex(zeroblob(50000)), '0', '[') "
        f"{_OPTIMIZER}",
        *(
            f"UPDATE trial_user_attributes SET value_json = '{text}' {_OF_TRIAL_1} "
            "AND key = 'steps'"
            for text in ("NaN", "Infinity", "-1", "[1]", '"x"', "null", "1" + "0" * 400)
        ),
    ],
    ids=lambda statement: statement[:90],
)
def test_trial_that_holds_what_it_cannot_costs_nobody_else(
    database: Database, trained: StudyHandle, tmp_path: Path, statement: str
) -> None:
    with database.write() as connection:
        assert connection.exec_driver_sql(statement).rowcount > 0
    with pytest.warns(DamageWarning, match="is left out: its "):
        records = read_records(database, trained)
    assert [record.number for record in records] == [0, 2]
    for style in ("terminal", "json", "markdown", "html"):
        with pytest.warns(DamageWarning):
            told = typed(database, "report", "small", "--format", style)
        assert told.exit_code == 0, told.output
        assert style != "json" or json.loads(told.stdout)["counts"]["complete"] == 2
    history = Proposer(trained.spec, seed=0)
    history.history.add(records)
    history.propose()


@SQLITE_FIRST
@pytest.mark.parametrize(
    "key",
    [
        "train_s",
        "metrics",
        "groups",
        "unread",
        "schedule_calls",
        "networks",
        "last_cost",
        "error",
        "test",
        "split_seed",
    ],
)
@pytest.mark.parametrize("text", ["NaN", "7", "-1e400", "[1, [2]]", '{"a": {"b": 1}}', '["x", 1]'])
def test_attribute_of_another_kind_is_left_out_of_its_trial(
    database: Database, trained: StudyHandle, key: str, text: str
) -> None:
    with database.write() as connection:
        ot.set_attributes(connection, [(i, key, None) for i in _trial_ids(connection)])
        connection.execute(
            sa.update(ot.trial_attributes)
            .where(ot.trial_attributes.c.key == key)
            .values(value_json=text)
        )
    if is_sound(key, parse_value(text)):
        assert (key, text) in {("train_s", "7"), ("last_cost", "7"), ("split_seed", "7")}
        return
    with pytest.warns(DamageWarning, match=f"The attribute {key} of trial . of 'small' is left"):
        records = read_records(database, trained)
    assert all(key not in record.attributes for record in records)
    with pytest.warns(DamageWarning):
        assert typed(database, "report", "small").exit_code == 0


def _trial_ids(connection: sa.Connection) -> list[int]:
    return list(connection.execute(sa.select(ot.trials.c.trial_id)).scalars())


@ON_SQLITE
@pytest.mark.parametrize(
    "change", ["intermediate_value = 'abc'", "intermediate_value = 9e999", "step = 'zz'"]
)
def test_point_of_a_curve_that_is_none_is_left_out(
    database: Database, trained: StudyHandle, change: str
) -> None:
    with database.write() as connection:
        connection.exec_driver_sql(f"UPDATE trial_intermediate_values SET {change} {_OF_TRIAL_1}")
    with pytest.warns(DamageWarning, match="A point of a trial's curve is left out"):
        records = read_records(database, trained)
    assert [record.evaluations for record in records] == [{5: 0.5}, {}, {5: 0.5}]
    with pytest.warns(DamageWarning):
        assert typed(database, "report", "small", "--format", "html").exit_code == 0


@ON_SQLITE
@pytest.mark.parametrize("value", ["'abc'", "9e999", "-9e999", "x'ff'"])
@pytest.mark.parametrize(
    ("table", "column"),
    [
        ("tuner_events", "at"),
        ("tuner_curves", "value"),
        ("tuner_curves", "step"),
        ("tuner_workers", "study_s"),
        ("tuner_workers", "worked_s"),
    ],
)
def test_what_is_planted_in_a_table_of_ours_is_left_out(
    database: Database, trained: StudyHandle, table: str, column: str, value: str
) -> None:
    with database.write() as connection:
        insert_points(connection, trained.uuid, [(0, [(1, "loss", 0.5)])])
        connection.exec_driver_sql(f"UPDATE {table} SET {column} = {value}")
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    for style in ("terminal", "json"):
        assert typed(database, "report", "small", "--format", style).exit_code == 0
    drawn: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    if table == "tuner_events":  # the page draws workers over time
        drawn = pytest.warns(DamageWarning, match="is left out: it is none")
    with drawn:
        assert typed(database, "report", "small", "--format", "html").exit_code == 0
    arguments = ["trial", "show", "small", "0", "--storage", database.url]
    told: contextlib.AbstractContextManager[object] = contextlib.nullcontext()
    if table != "tuner_workers":
        told = pytest.warns(DamageWarning, match="is left out: it is none")
    with told:
        shown = CliRunner().invoke(cli, arguments)
    assert shown.exit_code == 0, shown.output


@ON_SQLITE
@pytest.mark.parametrize("column", ["paused", "step", "attempts"])
@pytest.mark.parametrize("value", ["'abc'", "x'ff'", "1.5", "-1", "''"])
def test_lease_with_a_damaged_count_costs_no_other_trial(
    database: Database, study: StudyHandle, column: str, value: str
) -> None:
    ledger = SingleTrials(database, study, WorkerIdentity("w", "host", 1, "cpu", "0"))
    ledger.register(0.0, lambda ordinal: ordinal)
    proposer = Proposer(study.spec, seed=0)
    kept, damaged = ledger.start([], [proposer.propose() for _ in range(2)])
    ledger.release([kept, damaged])
    with database.write() as connection:
        connection.exec_driver_sql(
            f"UPDATE tuner_leases SET {column} = {value} WHERE number = {damaged.number}"
        )
    with pytest.warns(DamageWarning, match="A count of a trial's lease is taken for 0"):
        taken = ledger.take_over(lambda worker: False, at_most=2)
    assert {lease.number for lease in taken} == {kept.number, damaged.number}
    ledger.report_one(next(t for t in taken if t.number == kept.number), 5, 5, 0.5)
