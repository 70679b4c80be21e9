"""Rows of Optuna's tables, read in batches and made into records of trials."""

from __future__ import annotations

import functools
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
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

from tuner.domain.catalog.dimensions import Choice, Dimension, Float, Int, Value
from tuner.domain.garbage import uncollected
from tuner.domain.names import is_keepable
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, Proposal, TrialRecord
from tuner.store.damage import UNREADABLE, Damaged, parse_value, warn_of_damage
from tuner.store.optuna import tables as ot
from tuner.store.soundness import find_fault, is_count, is_number, is_sound

_OUTCOMES = {
    TrialState.RUNNING: Outcome.RUNNING,
    TrialState.WAITING: Outcome.RUNNING,
    TrialState.COMPLETE: Outcome.COMPLETE,
    TrialState.PRUNED: Outcome.PRUNED,
    TrialState.FAIL: Outcome.FAILED,
}

_NEEDED = ("preset", "config", "steps", "total_steps")
"""Attributes that a trial's configuration is known by; where one is damaged, the trial is."""

_BATCH = 5_000
"""Trials read at once: their rows lie in memory, and SQLite takes at most 32,766 values in one
statement."""


def build_records(
    connection: sa.Connection,
    rows: Sequence[sa.Row[Any]],
    spec: StudySpec,
    *,
    evaluations: bool = True,
) -> list[TrialRecord]:
    """Returns the records of trials, without those that are damaged.

    Args:
        connection: The transaction that read the rows; it reads the other tables.
        rows: The rows of the trials, with all columns.
        spec: The study's resolved spec.
        evaluations: Whether to read their evaluations too.
    """
    known = spec.axes() if rows else {}
    with uncollected():
        return [
            record
            for start in range(0, len(rows), _BATCH)
            for record in _build(connection, rows[start : start + _BATCH], spec, known, evaluations)
        ]


def read_reports(
    connection: sa.Connection, trial_ids: Collection[int]
) -> dict[int, dict[int, float]]:
    """Returns the values that trials have reported, by step, by their ids.

    A value that is not a finite number is left out.
    """
    reports: dict[int, dict[int, float]] = defaultdict(dict)
    columns = ot.trial_reports.c
    chosen = sa.select(columns.trial_id, columns.step, columns.intermediate_value)
    for trial_id, step, value in _of(connection, chosen, trial_ids, columns.step):
        if is_count(step) and is_number(value):
            reports[trial_id][step] = value
        elif value is not None:
            warn_of_damage("A point of a trial's curve is left out", f"{value!r} at {step!r}.")
    return reports


def _build(
    connection: sa.Connection,
    rows: Sequence[sa.Row[Any]],
    spec: StudySpec,
    known: Mapping[str, Dimension],
    evaluations: bool,
) -> Iterable[TrialRecord]:
    ids = [row.trial_id for row in rows]
    damage = {
        row.trial_id: f"its {name.replace('_', ' of ')} is damaged: {value.text[:60]!r}."
        for row in rows
        for name in ("state", "datetime_start", "datetime_complete")
        if isinstance(value := getattr(row, name), Damaged)
    }
    params, own_axes = _read_params(connection, ids, known, damage)
    attributes = _read_attributes(connection, rows, spec, damage)
    columns = ot.trial_values.c
    chosen = sa.select(columns.trial_id, columns.value)
    values = dict(_of(connection, chosen, ids, columns.objective))
    reports = read_reports(connection, ids) if evaluations else defaultdict(dict)
    for row in rows:
        trial_id = row.trial_id
        fault = find_fault(
            *(row.number, row.state, params[trial_id], known),
            values.get(trial_id),
        )
        if fault is not None:
            damage.setdefault(trial_id, f"its {fault} is none that it could have.")
        if trial_id in damage:
            left_out = f"Trial {row.number} of {spec.study.name!r} is left out"
            warn_of_damage(left_out, damage[trial_id])
            continue
        own = attributes[trial_id]
        yield TrialRecord(
            number=row.number,
            outcome=to_outcome(row.state, own),
            proposal=Proposal(params[trial_id], preset=own.pop("preset", None)),
            value=values.get(trial_id),
            evaluations=reports[trial_id],
            attributes=own,
            started_at=row.datetime_start,
            finished_at=row.datetime_complete,
            own_axes=own_axes.get(trial_id, {}),
        )


def _read_params(
    connection: sa.Connection, ids: list[int], known: Collection[str], damage: dict[int, str]
) -> tuple[dict[int, dict[str, Any]], dict[int, dict[str, Dimension]]]:
    """Returns trials' parameters, and the axes of those not known; adds faults to ``damage``."""
    params: dict[int, dict[str, Any]] = defaultdict(dict)
    own_axes: dict[int, dict[str, Dimension]] = defaultdict(dict)
    columns = ot.trial_params.c
    chosen = sa.select(
        columns.trial_id, columns.param_name, columns.param_value, columns.distribution_json
    )
    for trial_id, name, stored, text in _of(connection, chosen, ids, columns.param_id):
        try:
            distribution, restore = _distribution(text)
            if not is_keepable(name):
                raise ValueError("its name is none")
            params[trial_id][name] = restore(stored)
            if name not in known:
                own_axes[trial_id][name] = _to_axis(distribution)
        except UNREADABLE as error:
            why = str(error).splitlines()[0] if str(error) else type(error).__name__
            damage[trial_id] = f"its parameter {name} cannot be read ({why})."
    return params, own_axes


def _read_attributes(
    connection: sa.Connection, rows: Any, spec: StudySpec, damage: dict[int, str]
) -> dict[int, dict[str, Any]]:
    """Returns trials' attributes; adds to ``damage`` the trials whose needed ones are damaged."""
    attributes: dict[int, dict[str, Any]] = defaultdict(dict)
    numbers = {row.trial_id: row.number for row in rows}
    columns = ot.trial_attributes.c
    chosen = sa.select(columns.trial_id, columns.key, columns.value_json)
    for trial_id, key, text in _of(connection, chosen, list(numbers), columns.key):
        value = parse_value(text)
        if not isinstance(value, Damaged) and is_sound(key, value):
            attributes[trial_id][key] = value
        elif key in _NEEDED:
            damage[trial_id] = f"its attribute {key} is damaged."
        else:
            trial = f"trial {numbers[trial_id]} of {spec.study.name!r}"
            warn_of_damage(
                f"The attribute {key} of {trial} is left out",
                f"it is damaged: {str(text)[:60]!r}.",
            )
    return attributes


def _of(
    connection: sa.Connection,
    chosen: sa.Select[Any],
    trial_ids: Collection[int],
    order: sa.ColumnElement[Any],
) -> list[Any]:
    """Returns the rows of some trials, whose ids are in the first column, each trial's in order.

    Ids that lie close together are asked for as a range, which spares naming each of them.
    """
    of_trial = chosen.selected_columns[0]
    ids = sorted(trial_ids)
    rows: list[Any] = []
    for start in range(0, len(ids), _BATCH):
        batch = ids[start : start + _BATCH]
        low, high = batch[0], batch[-1]
        dense = high - low < 2 * len(batch)
        those = of_trial.between(low, high) if dense else of_trial.in_(batch)
        found = connection.execute(chosen.where(those).order_by(of_trial, order)).all()
        if dense and high - low >= len(batch):
            wanted = set(batch)
            found = [row for row in found if row[0] in wanted]
        rows += found
    return rows


@functools.lru_cache(maxsize=4096)
def _distribution(text: str) -> tuple[BaseDistribution, Callable[[float], Value]]:
    """Returns a distribution, and the function that turns a stored number into its value."""
    distribution = json_to_distribution(text)
    if isinstance(distribution, CategoricalDistribution):
        choices = distribution.choices

        def restore(stored: float) -> Any:
            if stored not in range(len(choices)):
                raise ValueError(f"there is no choice {stored:g} among {len(choices)}")
            return choices[int(stored)]

        return distribution, restore
    return distribution, float if isinstance(distribution, FloatDistribution) else int


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


def to_outcome(state: TrialState, attributes: Mapping[str, Any]) -> Outcome:
    """Returns how a trial stands, by its state and its attributes: Optuna knows no divergence."""
    if state is TrialState.PRUNED and "diverged_step" in attributes:
        return Outcome.DIVERGED
    return _OUTCOMES[state]
