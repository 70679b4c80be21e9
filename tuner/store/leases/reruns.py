"""Reruns: new trials of a configuration that has been trained, within the budget."""

from __future__ import annotations

import json
import shlex
from dataclasses import replace
from typing import Any

import sqlalchemy as sa
from optuna.distributions import json_to_distribution
from optuna.trial import FrozenTrial, TrialState, create_trial

from tuner.domain.confirmation import CONFIRM, CONFIRMS, REPEAT
from tuner.domain.search import COMPARE
from tuner.domain.states import StudyState
from tuner.domain.trials import DEFAULT, PORTFOLIO, RANDOM, RERUN_OF, WARM_START
from tuner.errors import NotFoundError, SpecError
from tuner.store import events
from tuner.store.connection.database import Database
from tuner.store.damage import Damaged, damage_error
from tuner.store.identity import SPEC, StudyHandle, StudyRow, lock, set_attribute
from tuner.store.leases.budget import is_out_of_time
from tuner.store.leases.charges import WHOLE, charge, fits, read_room
from tuner.store.leases.rows import grant
from tuner.store.optuna import tables as ot

_KEPT = ("config", "preset", CONFIRMS, REPEAT)
"""Attributes that are part of a configuration; all others describe how the trial went."""


def rerun(database: Database, study: StudyHandle, number: int, *, extend: bool = False) -> int:
    """Starts a trial of the same configuration as another, for the next worker to take.

    Args:
        database: The study's database.
        study: The study.
        number: The number of the trial to run again.
        extend: Whether a budget of trials, or of full trials, that has no room for this one grows
            by what it lacks.

    Returns:
        The new trial's number.

    Raises:
        NotFoundError: If there is no such trial, or the study has been deleted.
        SpecError: If that trial is not over, the budget is used up, or the study was stopped.
    """
    with database.write() as connection:
        study_row = lock(connection, study)
        row = connection.execute(
            sa.select(*ot.trial_columns).where(
                ot.trials.c.study_id == study_row.study_id, ot.trials.c.number == number
            )
        ).one_or_none()
        if row is None:
            raise NotFoundError(f"The study {study.name!r} has no trial {number}.")
        if isinstance(row.state, Damaged):
            raise damage_error(f"The state of trial {number}", row.state)
        if not row.state.is_finished():
            raise SpecError(f"Trial {number} is not over yet: wait until it is.")
        if extend:
            study_row = _extend(connection, study_row)
        _check_budget(connection, study, study_row, number)
        template = _read_template(connection, row.trial_id, number)
        [(_, started)] = ot.insert_trials(connection, study_row.study_id, [template])
        grant(connection, study.uuid, [started], None, 0.0)
        charge(connection, study_row, [started])
        events.record(
            connection, study.uuid, "rerun", number=started, detail=f"trial {number} again"
        )
    return started


def count_openings(connection: sa.Connection, study_row: StudyRow) -> int:
    """Returns the number of openings that have started, reruns not counted."""
    again = ot.trial_attributes.alias()
    # Defaults open a comparison; other studies end with theirs.
    compares = study_row.attributes[SPEC]["search"].get("mode") == COMPARE
    presets = (DEFAULT, RANDOM) if compares else (PORTFOLIO, WARM_START, CONFIRM)
    return connection.execute(
        _with_attribute(study_row.study_id, "preset", *presets)
        .outerjoin(again, (again.c.trial_id == ot.trials.c.trial_id) & (again.c.key == RERUN_OF))
        .where(again.c.key.is_(None))
    ).scalar_one()


def has_started(connection: sa.Connection, study_id: int, trial: FrozenTrial) -> bool:
    """Tells whether a trial of the same configuration has started."""
    counted = _with_attribute(study_id, "config", trial.user_attrs["config"])
    return bool(connection.execute(counted).scalar_one())


def _with_attribute(study_id: int, key: str, *values: object) -> sa.Select[int]:
    """Returns the statement that counts the trials of a study with an attribute of some values."""
    return (
        sa.select(sa.func.count())
        .select_from(ot.trial_attributes)
        .join(ot.trials, ot.trials.c.trial_id == ot.trial_attributes.c.trial_id)
        .where(
            ot.trials.c.study_id == study_id,
            ot.trial_attributes.c.key == key,
            ot.trial_attributes.c.value_json.in_([json.dumps(value) for value in values]),
        )
    )


def _extend(connection: sa.Connection, study_row: StudyRow) -> StudyRow:
    """Raises a study's budget to hold one trial more, where it has no room, and returns the study.

    Of full trials, it raises it by what the trial lacks.
    """
    spec = study_row.attributes[SPEC]
    budget: dict[str, float] = {}
    trials = ot.count_trials(connection, study_row.study_id) + 1
    if trials > study_row.trials:
        budget["trials"] = trials
    room = read_room(connection, study_row)
    if study_row.full_trials is not None and not fits(WHOLE, room):
        budget["full_trials"] = study_row.full_trials + WHOLE - room
    if not budget:
        return study_row
    larger = spec | {"budget": spec["budget"] | budget}
    set_attribute(connection, study_row.study_id, SPEC, larger)
    return replace(study_row, attributes={**study_row.attributes, SPEC: larger})


def _check_budget(
    connection: sa.Connection, study: StudyHandle, study_row: StudyRow, number: int
) -> None:
    name = shlex.quote(study.name)
    if study_row.state is StudyState.STOPPED:
        raise SpecError(
            f"The study {study.name!r} was stopped: resume it first: tuner study resume {name}"
        )
    if ot.count_trials(connection, study_row.study_id) >= study_row.trials:
        raise SpecError(
            f"All {study_row.trials} trials of the study {study.name!r} have started: give it one "
            f"more for this: tuner trial rerun {name} {number} --extend"
        )
    room = read_room(connection, study_row)
    if not fits(WHOLE, room):
        raise SpecError(
            f"The study {study.name!r} has {max(0.0, room):.3g} of {study_row.full_trials:g} full "
            f"trials left, and this needs one: give it what it lacks: "
            f"tuner trial rerun {name} {number} --extend"
        )
    limit_s = study_row.wall_time_s
    if limit_s is not None and is_out_of_time(connection, study_row):
        raise SpecError(
            f"The wall time of the study {study.name!r}, {limit_s:g} s, is used up: "
            f"give it more, with its study file: tuner study create FILE --name {name} "
            f"--set budget.wall_time={2 * limit_s:g}"
        )


def _read_template(connection: sa.Connection, trial_id: int, number: int) -> FrozenTrial:
    params: dict[str, Any] = {}
    distributions = {}
    of_trial = ot.trial_params.c.trial_id == trial_id
    for row in connection.execute(sa.select(ot.trial_params).where(of_trial)):
        distribution = json_to_distribution(row.distribution_json)
        distributions[row.param_name] = distribution
        params[row.param_name] = distribution.to_external_repr(row.param_value)
    attributes: dict[str, Any] = {RERUN_OF: number}
    of_trial = ot.trial_attributes.c.trial_id == trial_id
    for row in connection.execute(sa.select(ot.trial_attributes).where(of_trial)):
        if row.key in _KEPT:
            attributes[row.key] = json.loads(row.value_json)
    return create_trial(
        state=TrialState.RUNNING,
        params=params,
        distributions=distributions,
        user_attrs=attributes,
    )
