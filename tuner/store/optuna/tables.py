"""Reads and writes of many trials at once, straight in Optuna's tables.

This is the one module that knows Optuna's schema, as of :data:`OPTUNA` and :data:`SCHEMA_REVISION`.
:class:`tuner.store.optuna.storage.Storage` opens no database with another Optuna, or with tables of
another version.
"""

from __future__ import annotations

import functools
import json
import math
from collections import defaultdict
from collections.abc import Collection, Mapping, Sequence
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, distribution_to_json, json_to_distribution
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.dialects import postgresql, sqlite

from tuner.store.damage import StoredState, StoredTime

OPTUNA = "5.0"
"""The minor version of Optuna that this file is written for."""

SCHEMA_REVISION = "v3.2.0.a"
"""The revision of Optuna's tables that this file is written for."""

studies: sa.Table = models.StudyModel.__table__
study_attributes: sa.Table = models.StudyUserAttributeModel.__table__
study_directions: sa.Table = models.StudyDirectionModel.__table__
trials: sa.Table = models.TrialModel.__table__
trial_params: sa.Table = models.TrialParamModel.__table__
trial_values: sa.Table = models.TrialValueModel.__table__
trial_reports: sa.Table = models.TrialIntermediateValueModel.__table__
trial_attributes: sa.Table = models.TrialUserAttributeModel.__table__

stored_state = sa.type_coerce(trials.c.state, StoredState()).label("state")
"""A column: a trial's state, or :class:`~tuner.store.damage.Damaged`."""

trial_columns = (
    trials.c.trial_id,
    trials.c.number,
    stored_state,
    *(
        sa.type_coerce(column, StoredTime()).label(column.name)
        for column in (trials.c.datetime_start, trials.c.datetime_complete)
    ),
)
"""The columns to read of trials; a damaged value is :class:`~tuner.store.damage.Damaged`."""

of_trials = (
    trial_params,
    trial_values,
    trial_reports,
    trial_attributes,
    models.TrialSystemAttributeModel.__table__,
    models.TrialHeartbeatModel.__table__,
)
"""What Optuna keeps of trials, in tables of their own."""

of_studies = (
    study_attributes,
    study_directions,
    models.StudySystemAttributeModel.__table__,
)
"""What Optuna keeps of studies, in tables of their own."""

_UNFINISHED = [state for state in TrialState if not state.is_finished()]


def insert_study(
    connection: sa.Connection, name: str, direction: Any, attributes: Mapping[str, Any]
) -> int:
    """Creates a study with its attributes; returns its id."""
    result = connection.execute(sa.insert(studies).values(study_name=name))
    study_id = int(result.inserted_primary_key[0])  # type: ignore[index]
    connection.execute(
        sa.insert(study_directions).values(study_id=study_id, objective=0, direction=direction)
    )
    connection.execute(
        sa.insert(study_attributes),
        [
            {"study_id": study_id, "key": k, "value_json": json.dumps(v)}
            for k, v in attributes.items()
        ],
    )
    return study_id


def delete_study(connection: sa.Connection, study_id: int) -> None:
    """Deletes a study and everything Optuna keeps of it."""
    of_study = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id)
    for table in of_trials:
        connection.execute(sa.delete(table).where(table.c.trial_id.in_(of_study)))
    connection.execute(sa.delete(trials).where(trials.c.study_id == study_id))
    for table in of_studies:
        connection.execute(sa.delete(table).where(table.c.study_id == study_id))
    connection.execute(sa.delete(studies).where(studies.c.study_id == study_id))


def lock_study(connection: sa.Connection, study_id: int) -> bool:
    """Locks a study: other writers to it wait until the transaction ends.

    SQLite has no row locks and needs none: our write transactions there begin with its one
    write lock in hand.

    Returns:
        Whether there is such a study.
    """
    found = connection.execute(
        sa.select(studies.c.study_id).where(studies.c.study_id == study_id).with_for_update()
    )
    return found.first() is not None


def lock_trials(connection: sa.Connection, trial_ids: Collection[int]) -> dict[int, TrialState]:
    """Locks trials: other writers to them wait until the transaction ends.

    Returns:
        The state of each by its id; those that do not exist are missing.
    """
    # In one order, so that two who lock the same trials do not wait for each other.
    rows = connection.execute(
        sa.select(trials.c.trial_id, trials.c.state)
        .where(trials.c.trial_id.in_(trial_ids))
        .order_by(trials.c.trial_id)
        .with_for_update()
    )
    return {row.trial_id: row.state for row in rows}


def count_trials(connection: sa.Connection, study_id: int) -> int:
    """Returns how many trials of a study have started."""
    return connection.execute(
        sa.select(sa.func.count()).select_from(trials).where(trials.c.study_id == study_id)
    ).scalar_one()


def read_distribution(
    connection: sa.Connection, study_id: int, name: str
) -> BaseDistribution | None:
    """Returns the distribution of a study's parameter, None if no trial has that parameter."""
    found = connection.execute(
        sa.select(trial_params.c.distribution_json)
        .join(trials, trials.c.trial_id == trial_params.c.trial_id)
        .where(trials.c.study_id == study_id, trial_params.c.param_name == name)
        .limit(1)
    ).scalar_one_or_none()
    return None if found is None else json_to_distribution(found)


def count_reports(connection: sa.Connection, trial_ids: Collection[int]) -> dict[int, int]:
    """Returns the number of reports of each trial that has any, by its id."""
    if not trial_ids:
        return {}
    rows = connection.execute(
        sa.select(trial_reports.c.trial_id, sa.func.count().label("count"))
        .where(trial_reports.c.trial_id.in_(trial_ids))
        .group_by(trial_reports.c.trial_id)
    )
    return {row.trial_id: int(row.count) for row in rows}  # type: ignore[call-overload]


def read_last_reports(
    connection: sa.Connection, trial_ids: Collection[int]
) -> dict[int, float | None]:
    """Returns the value of each trial's last report, by its id; None where that is no number."""
    if not trial_ids:
        return {}
    last = (
        sa.select(trial_reports.c.trial_id, sa.func.max(trial_reports.c.step).label("step"))
        .where(trial_reports.c.trial_id.in_(trial_ids))
        .group_by(trial_reports.c.trial_id)
        .subquery()
    )
    of_it = sa.and_(
        trial_reports.c.trial_id == last.c.trial_id, trial_reports.c.step == last.c.step
    )
    rows = connection.execute(
        sa.select(trial_reports.c.trial_id, trial_reports.c.intermediate_value).join(last, of_it)
    )
    return {row.trial_id: row.intermediate_value for row in rows}


def insert_trials(
    connection: sa.Connection, study_id: int, templates: Sequence[FrozenTrial]
) -> list[tuple[int, int]]:
    """Inserts running trials with their parameters and attributes; the study must be locked.

    Args:
        connection: In a transaction.
        study_id: The study.
        templates: Parameters, distributions and user attributes of each.

    Returns:
        (trial id, number) of each.
    """
    if not templates:
        return []
    first = count_trials(connection, study_id)
    now = _utc_now()
    rows = [
        {"study_id": study_id, "number": n, "state": TrialState.RUNNING, "datetime_start": now}
        for n in range(first, first + len(templates))
    ]
    # Optuna takes ids to grow with numbers. SQLite inserts rows in the order given and PostgreSQL
    # has to be told; told so for SQLite, SQLAlchemy would insert them one by one.
    statement = sa.insert(trials).returning(
        trials.c.trial_id,
        trials.c.number,
        sort_by_parameter_order=connection.dialect.name == "postgresql",
    )
    inserted = sorted(connection.execute(statement, rows), key=lambda row: row.number)
    started = [(int(row.trial_id), int(row.number)) for row in inserted]
    params: list[dict[str, Any]] = []
    attributes: list[tuple[int, str, Any]] = []
    for (trial_id, _), template in zip(started, templates, strict=True):
        params += [
            _param_row(trial_id, name, value, template.distributions[name])
            for name, value in template.params.items()
        ]
        attributes += [(trial_id, key, value) for key, value in template.user_attrs.items()]
    if params:
        connection.execute(sa.insert(trial_params), params)
    set_attributes(connection, attributes)
    return started


def insert_ended(connection: sa.Connection, study_id: int, ended: Sequence[FrozenTrial]) -> None:
    """Inserts trials that have ended, with all that is known of them; nobody else sees the study.

    Args:
        connection: In a transaction.
        study_id: The study, which has no trial yet.
        ended: The trials; they are numbered in their order.
    """
    inserted = insert_trials(connection, study_id, ended)
    ids = [trial_id for trial_id, _ in inserted]
    rows = [
        {
            "key": trial_id,
            "ended": trial.state,
            "began_at": trial.datetime_start,
            "ended_at": trial.datetime_complete,
        }
        for trial_id, trial in zip(ids, ended, strict=True)
    ]
    if rows:
        statement = (
            sa.update(trials)
            .where(trials.c.trial_id == sa.bindparam("key"))
            .values(
                state=sa.bindparam("ended"),
                datetime_start=sa.bindparam("began_at"),
                datetime_complete=sa.bindparam("ended_at"),
            )
        )
        connection.execute(statement, rows)
    pairs = list(zip(ids, ended, strict=True))
    values = [row for trial_id, trial in pairs for row in _value_rows(trial_id, trial.value)]
    upsert(connection, trial_values, values, ("trial_id", "objective"))
    insert_reports(
        connection,
        [
            (trial_id, step, value)
            for trial_id, trial in pairs
            for step, value in trial.intermediate_values.items()
        ],
    )


def insert_params(
    connection: sa.Connection, params: Sequence[tuple[int, str, Any, BaseDistribution]]
) -> None:
    """Adds (trial id, name, value, distribution) to trials; a parameter that is there stays."""
    if params:
        statement = insert_into(connection, trial_params).on_conflict_do_nothing(
            index_elements=["trial_id", "param_name"]
        )
        connection.execute(statement, [_param_row(*param) for param in params])


def insert_reports(connection: sa.Connection, reports: Sequence[tuple[int, int, float]]) -> None:
    """Records (trial id, step, value) triples; a value of the same step is replaced."""
    to_stored = models.TrialIntermediateValueModel.intermediate_value_to_stored_repr
    rows = []
    for trial_id, step, value in reports:
        stored, kind = to_stored(value)
        rows.append(
            {
                "trial_id": trial_id,
                "step": step,
                "intermediate_value": stored,
                "intermediate_value_type": kind,
            }
        )
    upsert(connection, trial_reports, rows, ("trial_id", "step"))


def set_attributes(connection: sa.Connection, attributes: Sequence[tuple[int, str, Any]]) -> None:
    """Records (trial id, key, value) triples; each value can be written as JSON."""
    rows = [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        for trial_id, key, value in attributes
    ]
    upsert(connection, trial_attributes, rows, ("trial_id", "key"))


def finish_trials(
    connection: sa.Connection, endings: Sequence[tuple[int, TrialState, float | None]]
) -> None:
    """Ends trials: (trial id, state, value or None); one that has ended stays as it is.

    A value that is NaN is left out: Optuna could not read it back.
    """
    by_state: dict[TrialState, dict[int, float | None]] = defaultdict(dict)
    for trial_id, state, value in endings:
        by_state[state][trial_id] = value
    rows: list[dict[str, Any]] = []
    for state, values in by_state.items():
        ended = connection.execute(
            sa.update(trials)
            .where(trials.c.trial_id.in_(list(values)), trials.c.state.in_(_UNFINISHED))
            .values(state=state, datetime_complete=_utc_now())
            .returning(trials.c.trial_id)
        ).scalars()
        rows += [row for trial_id in ended for row in _value_rows(trial_id, values[trial_id])]
    upsert(connection, trial_values, rows, ("trial_id", "objective"))


def upsert(
    connection: sa.Connection,
    table: sa.Table,
    rows: Sequence[Mapping[str, Any]],
    keys: Sequence[str],
    computed: Mapping[str, sa.ColumnElement[Any]] = MappingProxyType({}),
) -> None:
    """Inserts rows, or replaces the other columns of those whose keys are there already.

    Args:
        connection: In a transaction.
        table: The table.
        rows: Values by column, and of the parameters of ``computed``.
        keys: The columns that tell rows apart.
        computed: Expressions that the database evaluates for each row, by column; constants of the
            program.
    """
    if not rows:
        return
    names = (*(name for name in rows[0] if name in table.c), *computed)
    replaced = tuple(name for name in names if name not in keys)
    statement = _upsert(
        connection.dialect.name, table, tuple(keys), replaced, tuple(computed.items())
    )
    connection.execute(statement, rows)


@functools.lru_cache(maxsize=64)
def _upsert(
    dialect: str,
    table: sa.Table,
    keys: Sequence[str],
    replaced: Sequence[str],
    computed: Sequence[tuple[str, sa.ColumnElement[Any]]],
) -> Any:
    statement = _insert(dialect, table).values(dict(computed))
    changed = {name: statement.excluded[name] for name in replaced}
    return statement.on_conflict_do_update(index_elements=keys, set_=changed)


def insert_into(connection: sa.Connection, table: sa.Table) -> Any:
    """Returns an INSERT of the database's own dialect, which has clauses for conflicts."""
    return _insert(connection.dialect.name, table)


def _insert(dialect: str, table: sa.Table) -> Any:
    return (postgresql if dialect == "postgresql" else sqlite).insert(table)


def _param_row(
    trial_id: int, name: str, value: Any, distribution: BaseDistribution
) -> dict[str, Any]:
    return {
        "trial_id": trial_id,
        "param_name": name,
        "param_value": distribution.to_internal_repr(value),
        "distribution_json": distribution_to_json(distribution),
    }


def _value_rows(trial_id: int, value: float | None) -> list[dict[str, Any]]:
    if value is None or math.isnan(value):
        return []
    stored, kind = models.TrialValueModel.value_to_stored_repr(value)
    return [{"trial_id": trial_id, "objective": 0, "value": stored, "value_type": kind}]


def _utc_now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
