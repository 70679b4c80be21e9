"""Reading trials: in full once, then only what has changed."""

from __future__ import annotations

import dataclasses
import functools
from collections import defaultdict
from collections.abc import Collection, Sequence
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
    json_to_distribution,
)
from optuna.trial import TrialState

from tuner.domain.dimensions import Choice, Dimension, Float, Int
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, Proposal, TrialRecord, known_axes
from tuner.errors import NotFoundError
from tuner.store import optuna_tables as ot
from tuner.store.damage import UNREADABLE, Damaged, parse_value, warn_of_damage
from tuner.store.database import Database
from tuner.store.identity import StudyHandle, carries, look_up

_OUTCOMES = {
    TrialState.RUNNING: Outcome.RUNNING,
    TrialState.WAITING: Outcome.RUNNING,
    TrialState.COMPLETE: Outcome.COMPLETE,
    TrialState.PRUNED: Outcome.PRUNED,
    TrialState.FAIL: Outcome.FAILED,
}


_NEEDED = ("preset", "config")
"""Attributes without which nobody can tell what a trial trained with."""

_Times = tuple[datetime | None, datetime | None]


class RecordReader:
    """Follows the trials of a study at the cost of what changed.

    Args:
        database: Where the study is.
        study: The study.
        follow_running: Whether running trials are returned at each new evaluation.
    """

    def __init__(
        self, database: Database, study: StudyHandle, follow_running: bool = False
    ) -> None:
        self._database = database
        self._study = study
        self._follow_running = follow_running
        self._study_id = study.study_id
        self._told: dict[int, _Times] = {}
        self._running: dict[int, TrialRecord] = {}
        self._all_finished_below = -1

    def sync(self) -> list[TrialRecord]:
        """Returns the trials that started or finished since the last call, by number.

        A running trial is returned once, with its parameters, and again when it has finished;
        where running trials are followed, also when it has been evaluated since, for one more
        query. Of a deleted study there is nothing.
        """
        with self._database.read() as connection:
            rows = self._read_rows(connection)
            fresh = [row for row in rows if self._told.get(row.number) != _times(row)]
            records = _build(connection, fresh, self._study.spec) if fresh else []
            evaluated = self._read_evaluated(connection, rows) if self._follow_running else {}
        self._remember(rows, records)
        self._running |= evaluated
        return sorted([*records, *evaluated.values()], key=lambda record: record.number)

    def look_again(self) -> list[TrialRecord]:
        """Returns the running trials as they are now: a loop may have asked for hyperparameters."""
        with self._database.read() as connection:
            rows = [row for row in self._read_rows(connection) if row.number in self._running]
            records = _build(connection, rows, self._study.spec) if rows else []
        return [record for record in records if record.outcome is Outcome.RUNNING]

    def _read_rows(self, connection: sa.Connection) -> Sequence[sa.Row[Any]]:
        """Returns what may have changed; once the study has moved, that is everything."""
        rows = connection.execute(self._changeable()).all()
        if rows:
            return rows
        try:
            study_id = look_up(connection, self._study).study_id
        except NotFoundError:
            return rows
        if study_id != self._study_id:
            self._study_id, self._all_finished_below = study_id, -1
            rows = connection.execute(self._changeable()).all()
        return rows

    def _changeable(self) -> sa.Select[Any]:
        return (
            sa.select(ot.trials)
            .join(ot.study_attributes, ot.study_attributes.c.study_id == ot.trials.c.study_id)
            .where(
                ot.trials.c.study_id == self._study_id,
                ot.trials.c.trial_id > self._all_finished_below,
                *carries(self._study.uuid),
            )
            .order_by(ot.trials.c.trial_id)
        )

    def _read_evaluated(self, connection: sa.Connection, rows: Any) -> dict[int, TrialRecord]:
        """Returns running trials that were known already and have other evaluations by now."""
        numbers = {
            row.trial_id: row.number
            for row in rows
            if row.number in self._running and self._told[row.number] == _times(row)
        }
        reports = _read_reports(connection, list(numbers))
        return {
            number: dataclasses.replace(self._running[number], evaluations=reports[trial_id])
            for trial_id, number in numbers.items()
            if reports[trial_id] != self._running[number].evaluations
        }

    def _remember(self, rows: Any, records: list[TrialRecord]) -> None:
        by_number = {record.number: record for record in records}
        prefix = True
        for row in rows:
            self._told[row.number] = _times(row)
            if row.state.is_finished():
                self._running.pop(row.number, None)
                if prefix:
                    self._all_finished_below = row.trial_id
            else:
                prefix = False
                if row.number in by_number:
                    self._running[row.number] = by_number[row.number]


def _times(row: sa.Row[Any]) -> _Times:
    """Returns what tells one state of a trial from another, whatever its id."""
    return row.datetime_start, row.datetime_complete


def read_records(database: Database, study: StudyHandle) -> list[TrialRecord]:
    """Returns every trial of a study, by number."""
    return RecordReader(database, study).sync()


def read_record(database: Database, study: StudyHandle, number: int) -> TrialRecord | None:
    """Returns one trial, or None if the study has none of this number, or it cannot be read."""
    with database.read() as connection:
        rows = connection.execute(
            sa.select(ot.trials).where(
                ot.trials.c.study_id == look_up(connection, study).study_id,
                ot.trials.c.number == number,
            )
        ).all()
        return next(iter(_build(connection, rows, study.spec)), None)


def _build(connection: sa.Connection, rows: Any, spec: StudySpec) -> list[TrialRecord]:
    ids = [row.trial_id for row in rows]
    known = known_axes(spec)
    damage: dict[int, str] = {}
    params, own_axes = _read_params(connection, ids, known, damage)
    attributes = _read_attributes(connection, rows, spec, damage)
    values = {row.trial_id: row.value for row in _of(connection, ot.trial_values, ids)}
    reports = _read_reports(connection, ids)
    for row in rows:
        if row.trial_id in damage:
            warn_of_damage(
                f"Trial {row.number} of {spec.study.name!r} is left out", damage[row.trial_id]
            )
    return [
        TrialRecord(
            number=row.number,
            outcome=_outcome(row.state, attributes[row.trial_id]),
            proposal=Proposal(
                params[row.trial_id], preset=attributes[row.trial_id].pop("preset", None)
            ),
            value=values.get(row.trial_id),
            evaluations=reports[row.trial_id],
            attributes=attributes[row.trial_id],
            started_at=row.datetime_start,
            finished_at=row.datetime_complete,
            own_axes=own_axes[row.trial_id],
        )
        for row in rows
        if row.trial_id not in damage
    ]


def _read_params(
    connection: sa.Connection, ids: list[int], known: Collection[str], damage: dict[int, str]
) -> tuple[dict[int, dict[str, Any]], dict[int, dict[str, Dimension]]]:
    """Returns trials' parameters, and the axes of those not known; says why one is damaged."""
    params: dict[int, dict[str, Any]] = defaultdict(dict)
    own_axes: dict[int, dict[str, Dimension]] = defaultdict(dict)
    for row in _of(connection, ot.trial_params, ids, ot.trial_params.c.param_id):
        try:
            distribution = _distribution(row.distribution_json)
            params[row.trial_id][row.param_name] = _value_of(distribution, row.param_value)
        except UNREADABLE as error:
            damage[row.trial_id] = f"its parameter {row.param_name} cannot be read ({error})."
            continue
        if row.param_name not in known:
            own_axes[row.trial_id][row.param_name] = _to_axis(distribution)
    return params, own_axes


def _read_attributes(
    connection: sa.Connection, rows: Any, spec: StudySpec, damage: dict[int, str]
) -> dict[int, dict[str, Any]]:
    """Returns trials' attributes; says why one is damaged that lacks what it cannot do without."""
    attributes: dict[int, dict[str, Any]] = defaultdict(dict)
    numbers = {row.trial_id: row.number for row in rows}
    for row in _of(connection, ot.trial_attributes, list(numbers)):
        value = parse_value(row.value_json)
        if not isinstance(value, Damaged):
            attributes[row.trial_id][row.key] = value
        elif row.key in _NEEDED:
            damage[row.trial_id] = f"its attribute {row.key} is no JSON."
        else:
            trial = f"trial {numbers[row.trial_id]} of {spec.study.name!r}"
            warn_of_damage(
                f"The attribute {row.key} of {trial} is left out",
                f"it is no JSON: {value.text[:60]!r}.",
            )
    return attributes


def _read_reports(connection: sa.Connection, ids: list[int]) -> dict[int, dict[int, float]]:
    reports: dict[int, dict[int, float]] = defaultdict(dict)
    for row in _of(connection, ot.trial_reports, ids, ot.trial_reports.c.step):
        if row.intermediate_value is not None:
            reports[row.trial_id][row.step] = row.intermediate_value
    return reports


def _of(
    connection: sa.Connection, table: sa.Table, ids: list[int], order: Any = None
) -> list[sa.Row[Any]]:
    # SQLite takes at most 32,766 values in one statement.
    found: list[sa.Row[Any]] = []
    for start in range(0, len(ids), 10_000):
        chunk = ids[start : start + 10_000]
        statement = sa.select(table).where(table.c.trial_id.in_(chunk))
        found += connection.execute(statement if order is None else statement.order_by(order)).all()
    return found


@functools.lru_cache(maxsize=4096)
def _distribution(text: str) -> BaseDistribution:
    return json_to_distribution(text)


def _value_of(distribution: BaseDistribution, stored: float) -> Any:
    if isinstance(distribution, CategoricalDistribution) and stored not in range(
        len(distribution.choices)
    ):
        raise ValueError(f"there is no choice {stored:g} among {len(distribution.choices)}")
    return distribution.to_external_repr(float(stored))


def _to_axis(distribution: BaseDistribution) -> Dimension:
    match distribution:
        case FloatDistribution():
            return Float(low=distribution.low, high=distribution.high, log=distribution.log)
        case IntDistribution():
            return Int(low=distribution.low, high=distribution.high, log=distribution.log)
        case CategoricalDistribution():
            return Choice.model_validate({"choices": distribution.choices})
        case _:
            raise TypeError(f"Optuna has a distribution unknown to tuner: {distribution}")


def _outcome(state: TrialState, attributes: dict[str, Any]) -> Outcome:
    if state is TrialState.PRUNED and "diverged_step" in attributes:
        return Outcome.DIVERGED
    return _OUTCOMES[state]
