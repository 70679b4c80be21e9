"""Overviews of studies: a line for each, with its best value and whether somebody trains it."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from tuner.domain.lengths import FULL, RECORDED, length_of, ranked_length
from tuner.domain.objective import UNREACHED
from tuner.domain.states import Activity, StudyState
from tuner.errors import StorageError
from tuner.store.damage import UNREADABLE, Damaged
from tuner.store.finalists import is_waiting
from tuner.store.identity import CONFIRMS, SPEC, StudyRow, match_uuid, read_attributes
from tuner.store.leases.budget import is_used_up
from tuner.store.leases.charges import read_charged
from tuner.store.leases.rows import find_unfinished
from tuner.store.optuna import tables as ot
from tuner.store.tables import events, workers

CREATED = "tuner:created_at"
"""The attribute of a study that tells when it was created."""


@dataclass(frozen=True)
class StudyOverview:
    """A line of the list of studies.

    Attributes:
        name: The study's name.
        workload: The import string of its workload.
        trials: The number of trials it may start.
        started: The number of trials that have started.
        running: The number of trials that some worker trains.
        waiting: The number of trials that are not over, and that no worker trains.
        paused: The number of trials that wait to be promoted.
        best_value: The best value of a complete trial, None if there is none; the time of one that
            has reached the target where the study has one.
        created_at: The time of its creation, as ISO 8601.
        state: Whether it was asked to run, pause or stop.
        activity: Whether it is trained at this moment, idle, paused, stopped, done or damaged.
        full_trials: The training it may do, in full trials; None without such a limit.
        used: The training that its trials have taken or may yet take, in full trials; None without
            such a limit.
        unit: The unit of the best value where it is a time to a target: ``steps`` or ``seconds``.
        active_at: The time at which anything last happened in it, as ISO 8601: a trial, a worker's
            sign of life, its creation.
        waits: Whether it waits to confirm another study that is still there.
        damage: The part that cannot be read, as a sentence; None if all can. The other fields then
            hold nothing.
    """

    name: str
    workload: str
    trials: int
    started: int
    running: int
    waiting: int
    paused: int
    best_value: float | None
    created_at: str
    state: StudyState
    activity: Activity
    full_trials: float | None = None
    used: float | None = None
    unit: str | None = None
    active_at: str = ""
    waits: bool = False
    damage: str | None = None


def list_overviews(
    connection: sa.Connection, is_dead: Callable[[str], bool]
) -> list[StudyOverview]:
    """Returns every study made by tuner, by name, but those that wait to confirm another one.

    Args:
        connection: An open transaction.
        is_dead: Returns for a worker's id whether its process is known to have died.
    """
    rows = connection.execute(sa.select(ot.studies).order_by(ot.studies.c.study_name)).all()
    found = (read_overview(connection, r.study_id, r.study_name, is_dead) for r in rows)
    return [overview for overview in found if overview is not None and not overview.waits]


def list_names(connection: sa.Connection) -> list[str]:
    """Returns the names of the studies that :func:`list_overviews` lists, in order."""
    noted = ot.study_attributes.c
    rows = connection.execute(
        sa.select(ot.studies, sa.func.count().label("keys"))
        .join(ot.study_attributes, noted.study_id == ot.studies.c.study_id)
        .where(noted.key.in_((SPEC, CONFIRMS)))
        .group_by(ot.studies.c.study_id, ot.studies.c.study_name)
        .order_by(ot.studies.c.study_name)
    ).all()
    return [
        row.study_name
        for row in rows
        # Only of one that confirms another must the spec be read.
        if row.keys == 1
        or not _is_waiting_for_another(connection, read_attributes(connection, row.study_id))
    ]


def read_overview(
    connection: sa.Connection, study_id: int, name: str, is_dead: Callable[[str], bool]
) -> StudyOverview | None:
    """Returns the overview of one study, or None if tuner has not made it.

    Args:
        connection: An open transaction.
        study_id: Its id in Optuna's tables.
        name: Its name.
        is_dead: Returns for a worker's id whether its process is known to have died.
    """
    waits = False
    try:
        attributes = read_attributes(connection, study_id)
        if SPEC not in attributes:
            return None
        waits = _is_waiting_for_another(connection, attributes)
        return replace(_overview(connection, study_id, name, is_dead, attributes), waits=waits)
    except UNREADABLE as error:
        damage = (
            str(error) if isinstance(error, StorageError) else f"Its spec is damaged: {error!r}."
        )
    return StudyOverview(
        name=name,
        workload="",
        trials=0,
        started=ot.count_trials(connection, study_id),
        running=0,
        waiting=0,
        paused=0,
        best_value=None,
        created_at="",
        state=StudyState.STOPPED,
        activity=Activity.DAMAGED,
        waits=waits,
        damage=damage,
    )


def _overview(
    connection: sa.Connection,
    study_id: int,
    name: str,
    is_dead: Callable[[str], bool],
    attributes: Mapping[str, Any],
) -> StudyOverview:
    spec = attributes[SPEC]
    counts = connection.execute(
        sa.select(ot.stored_state, sa.func.count())
        .where(ot.trials.c.study_id == study_id)
        .group_by(ot.trials.c.state)
    ).all()
    by_state = {state: int(count) for state, count in counts}  # a damaged one is over
    started = sum(by_state.values())
    unfinished = sum(
        count
        for state, count in by_state.items()
        if not isinstance(state, Damaged) and not state.is_finished()
    )
    study_row = StudyRow(study_id, attributes)
    found = find_unfinished(connection, study_row.uuid, is_dead)
    paused = min(unfinished, len(found.paused))
    held = min(unfinished - paused, len(found.held))
    trials = study_row.trials  # where the spec is damaged, this tells how
    best = _best_value(connection, study_id, _ranking(spec["study"]))
    is_timed = spec["study"].get("target") is not None
    if is_timed and best is not None and best >= UNREACHED:
        best = None
    used_up = not unfinished and is_used_up(connection, study_row, started)
    return StudyOverview(
        name=name,
        workload=spec["study"]["workload"],
        trials=trials,
        started=started,
        running=held,
        waiting=unfinished - held - paused,
        paused=paused,
        best_value=best,
        created_at=attributes.get(CREATED, ""),
        state=study_row.state,
        activity=_activity(study_row.state, used_up=used_up, held=held),
        full_trials=study_row.full_trials,
        used=None if study_row.full_trials is None else read_charged(connection, study_row),
        unit=spec["study"].get("unit") if is_timed else None,
        active_at=_last_active(connection, study_row.uuid) or attributes.get(CREATED, ""),
    )


def _last_active(connection: sa.Connection, study_uuid: str) -> str | None:
    """Returns the time of the last event, or of a worker's last sign of life, as ISO 8601."""
    times = [
        sa.select(sa.func.max(column))
        # A damaged value, such as a text, is greater than any number, or less.
        .where(column.table.c.study_uuid == study_uuid, column.between(0.0, _LATEST_S))
        .scalar_subquery()
        for column in (events.c.at, workers.c.last_seen)
    ]
    found = [at for at in connection.execute(sa.select(*times)).one() if at is not None]
    if not found:
        return None
    return datetime.fromtimestamp(max(found), UTC).isoformat(timespec="seconds")


_LATEST_S = 2.0e11
"""Seconds since 1970 that a year of four digits has at most."""


def _is_waiting_for_another(connection: sa.Connection, attributes: Mapping[str, Any]) -> bool:
    """Tells whether a study confirms another one that is still there, and has not begun."""
    if not is_waiting(attributes[SPEC]):
        return False
    other = str(attributes.get(CONFIRMS))
    return bool(
        connection.execute(
            sa.select(sa.func.count()).select_from(ot.study_attributes).where(*match_uuid(other))
        ).scalar_one()
    )


def _ranking(section: Mapping[str, Any]) -> str:
    """Returns the direction of trials' values, from a stored spec's table."""
    return section["direction"] if section.get("target") is None else "minimize"


def _best_value(connection: sa.Connection, study_id: int, direction: str) -> float | None:
    """Returns the best value among the complete trials that can be ranked with each other."""
    complete = sa.and_(ot.trials.c.study_id == study_id, ot.trials.c.state == TrialState.COMPLETE)
    attributes: dict[int, dict[str, Any]] = defaultdict(dict)
    noted, values = ot.trial_attributes.c, ot.trial_values.c
    # Trials without an attribute of their length are full: of these the database finds the best.
    # Only those of the study are looked for: a database may hold many others.
    odd = (
        sa.select(noted.trial_id)
        .join(ot.trials, ot.trials.c.trial_id == noted.trial_id)
        .where(ot.trials.c.study_id == study_id, noted.key == "total_steps")
    )
    for row in connection.execute(
        sa.select(ot.trial_attributes, values.value)
        .join(ot.trials, ot.trials.c.trial_id == noted.trial_id)
        .join(ot.trial_values, values.trial_id == noted.trial_id)
        .where(complete, noted.key.in_(RECORDED), noted.trial_id.in_(odd))
    ):
        attributes[row.trial_id] |= {row.key: json.loads(row.value_json), "value": row.value}
    best, first = (sa.func.min, min) if direction == "minimize" else (sa.func.max, max)
    full, count = connection.execute(
        sa.select(best(values.value), sa.func.count())
        .join(ot.trials, ot.trials.c.trial_id == values.trial_id)
        .where(complete, values.trial_id.not_in(odd))
    ).one()
    lengths = Counter({FULL: int(count)})
    found: dict[Fraction, list[float]] = defaultdict(list, {FULL: [full] if count else []})
    for known in attributes.values():
        length = length_of(known)
        lengths[length] += 1
        found[length].append(known["value"])
    return first(found[ranked_length(lengths)], default=None)


def _activity(state: StudyState, *, used_up: bool, held: int) -> Activity:
    if used_up:
        return Activity.DONE
    if state is not StudyState.RUNNING:
        return Activity(state.value)
    return Activity.RUNNING if held else Activity.IDLE
