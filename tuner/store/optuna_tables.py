"""Optuna's storage, with group operations written straight into its tables.

This is the one place that knows Optuna's schema. It is written for Optuna 5.0, whose last schema
revision is ``v3.2.0.a``; :func:`tuner.store.open_database` refuses any other.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution, distribution_to_json
from optuna.storages import RDBStorage
from optuna.storages._rdb import models
from optuna.trial import FrozenTrial, TrialState
from sqlalchemy.dialects import postgresql, sqlite

SCHEMA_REVISION = "v3.2.0.a"

studies: sa.Table = models.StudyModel.__table__
study_attributes: sa.Table = models.StudyUserAttributeModel.__table__
study_directions: sa.Table = models.StudyDirectionModel.__table__
trials: sa.Table = models.TrialModel.__table__
trial_params: sa.Table = models.TrialParamModel.__table__
trial_values: sa.Table = models.TrialValueModel.__table__
trial_reports: sa.Table = models.TrialIntermediateValueModel.__table__
trial_attributes: sa.Table = models.TrialUserAttributeModel.__table__

_OF_TRIALS = (
    trial_params,
    trial_values,
    trial_reports,
    trial_attributes,
    models.TrialSystemAttributeModel.__table__,
    models.TrialHeartbeatModel.__table__,
)
_OF_STUDIES = (
    study_attributes,
    study_directions,
    models.StudySystemAttributeModel.__table__,
)
_REPORT_TYPE = models.TrialIntermediateValueModel.TrialIntermediateValueType


class Storage(RDBStorage):
    """Optuna's own storage on a database of ours; what cannot be opened leaves no connection.

    Args:
        url: The database's URL, as Optuna formats it: braces are doubled.
        options: What else Optuna's storage takes.
    """

    def __init__(self, url: str, **options: Any) -> None:
        try:
            super().__init__(url, **options)
        except BaseException:
            if hasattr(self, "engine"):
                self.engine.dispose()
            raise


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


def update_study_attribute(connection: sa.Connection, study_id: int, key: str, value: Any) -> None:
    """Replaces an attribute a study already has."""
    connection.execute(
        sa.update(study_attributes)
        .where(study_attributes.c.study_id == study_id, study_attributes.c.key == key)
        .values(value_json=json.dumps(value))
    )


def delete_study(connection: sa.Connection, study_id: int) -> None:
    """Deletes a study and everything Optuna keeps of it."""
    of_study = sa.select(trials.c.trial_id).where(trials.c.study_id == study_id)
    for table in _OF_TRIALS:
        connection.execute(sa.delete(table).where(table.c.trial_id.in_(of_study)))
    connection.execute(sa.delete(trials).where(trials.c.study_id == study_id))
    for table in _OF_STUDIES:
        connection.execute(sa.delete(table).where(table.c.study_id == study_id))
    connection.execute(sa.delete(studies).where(studies.c.study_id == study_id))


def lock_study(connection: sa.Connection, study_id: int) -> None:
    """Holds back other writers to a study until the transaction ends.

    SQLite has no row locks and needs none: our write transactions there begin with its one
    write lock in hand.
    """
    connection.execute(
        sa.select(studies.c.study_id).where(studies.c.study_id == study_id).with_for_update()
    )


def count_trials(connection: sa.Connection, study_id: int) -> int:
    """Returns how many trials of a study have started."""
    return connection.execute(
        sa.select(sa.func.count()).select_from(trials).where(trials.c.study_id == study_id)
    ).scalar_one()


def count_attribute(connection: sa.Connection, study_id: int, key: str) -> int:
    """Returns how many trials of a study carry an attribute."""
    return connection.execute(
        sa.select(sa.func.count())
        .select_from(
            trial_attributes.join(trials, trials.c.trial_id == trial_attributes.c.trial_id)
        )
        .where(trials.c.study_id == study_id, trial_attributes.c.key == key)
    ).scalar_one()


def insert_trials(
    connection: sa.Connection, study_id: int, templates: Sequence[FrozenTrial]
) -> list[tuple[int, int]]:
    """Starts trials; the study must be locked.

    Args:
        connection: In a transaction.
        study_id: The study.
        templates: Parameters, distributions and user attributes of each.

    Returns:
        (trial id, number) of each.
    """
    number = count_trials(connection, study_id)
    started: list[tuple[int, int]] = []
    params: list[dict[str, Any]] = []
    attributes: list[tuple[int, str, Any]] = []
    for template in templates:
        row = {
            "study_id": study_id,
            "number": number,
            "state": TrialState.RUNNING,
            "datetime_start": _utc_now(),
        }
        result = connection.execute(sa.insert(trials).values(row))
        trial_id = int(result.inserted_primary_key[0])  # type: ignore[index]
        started.append((trial_id, number))
        number += 1
        params += _param_rows(trial_id, template.params, template.distributions)
        attributes += [(trial_id, key, value) for key, value in template.user_attrs.items()]
    if params:
        connection.execute(sa.insert(trial_params), params)
    set_attributes(connection, attributes)
    return started


def insert_params(
    connection: sa.Connection,
    trial_id: int,
    params: Mapping[str, Any],
    distributions: Mapping[str, BaseDistribution],
) -> None:
    """Adds parameters to a trial; one it has already is left as it is."""
    rows = _param_rows(trial_id, params, distributions)
    if rows:
        statement = insert_into(connection, trial_params).on_conflict_do_nothing(
            index_elements=["trial_id", "param_name"]
        )
        connection.execute(statement, rows)


def insert_reports(connection: sa.Connection, reports: Sequence[tuple[int, int, float]]) -> None:
    """Records (trial id, step, value) triples; a step reported again is replaced."""
    rows = [
        {
            "trial_id": trial_id,
            "step": step,
            "intermediate_value": value,
            "intermediate_value_type": _REPORT_TYPE.FINITE,
        }
        for trial_id, step, value in reports
        if math.isfinite(value)
    ]
    upsert(connection, trial_reports, rows, ("trial_id", "step"))


def set_attributes(connection: sa.Connection, attributes: Sequence[tuple[int, str, Any]]) -> None:
    """Records (trial id, key, value) triples; values are what JSON can hold."""
    rows = [
        {"trial_id": trial_id, "key": key, "value_json": json.dumps(value)}
        for trial_id, key, value in attributes
    ]
    upsert(connection, trial_attributes, rows, ("trial_id", "key"))


def finish_trials(
    connection: sa.Connection, endings: Sequence[tuple[int, TrialState, float | None]]
) -> None:
    """Ends trials: (trial id, state, value or None)."""
    values = [
        {
            "trial_id": trial_id,
            "objective": 0,
            "value": value,
            "value_type": models.TrialValueModel.TrialValueType.FINITE,
        }
        for trial_id, _, value in endings
        if value is not None and math.isfinite(value)
    ]
    if values:
        connection.execute(sa.insert(trial_values), values)
    for trial_id, state, _ in endings:
        connection.execute(
            sa.update(trials)
            .where(trials.c.trial_id == trial_id, trials.c.state == TrialState.RUNNING)
            .values(state=state, datetime_complete=_utc_now())
        )


def upsert(
    connection: sa.Connection,
    table: sa.Table,
    rows: Sequence[Mapping[str, Any]],
    keys: Sequence[str],
) -> None:
    """Inserts rows; one whose keys are there already replaces the rest of it."""
    if not rows:
        return
    statement = insert_into(connection, table)
    changed = {name: statement.excluded[name] for name in rows[0] if name not in keys}
    connection.execute(
        statement.on_conflict_do_update(index_elements=list(keys), set_=changed), rows
    )


def insert_into(connection: sa.Connection, table: sa.Table) -> Any:
    """Returns an INSERT of the database's own dialect, which can say what to do on a conflict."""
    dialect = postgresql if connection.dialect.name == "postgresql" else sqlite
    return dialect.insert(table)


def _param_rows(
    trial_id: int, params: Mapping[str, Any], distributions: Mapping[str, BaseDistribution]
) -> list[dict[str, Any]]:
    return [
        {
            "trial_id": trial_id,
            "param_name": name,
            "param_value": distributions[name].to_internal_repr(value),
            "distribution_json": distribution_to_json(distributions[name]),
        }
        for name, value in params.items()
    ]


def _utc_now() -> datetime:
    return datetime.now(UTC).replace(tzinfo=None)
