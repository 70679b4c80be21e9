"""Studies in the database: created whole, found by name, extended, deleted."""

from __future__ import annotations

import json
import shlex
import uuid
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import sqlalchemy as sa
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy.exc import IntegrityError

from tuner.domain.budget import Budget
from tuner.domain.lengths import FULL, RECORDED, length_of, ranked_length
from tuner.domain.names import suggest
from tuner.domain.objective import UNREACHED
from tuner.domain.regimes import SCRATCH
from tuner.domain.spec import StudySpec
from tuner.domain.states import Activity, StudyState
from tuner.domain.study_file import parse_spec
from tuner.errors import NotFoundError, SpecError, StorageError
from tuner.store.connection.database import Database
from tuner.store.damage import UNREADABLE, Damaged, damage_error
from tuner.store.finalists import is_waiting
from tuner.store.identity import (
    CONFIRMS,
    HOME,
    SPEC,
    UUID,
    StudyHandle,
    StudyRow,
    dissolve_copies,
    is_copy,
    lock,
    look_up,
    match_uuid,
    read_attributes,
    set_attribute,
)
from tuner.store.leases.budget import is_used_up
from tuner.store.leases.charges import read_charged
from tuner.store.leases.rows import assume_alive, find_unfinished
from tuner.store.optuna import tables as ot
from tuner.store.tables import charges, curves, events, leases, plans, workers

CREATED = "tuner:created_at"
Limit = float | str | None
"""A limit of a budget: in trials, full trials or seconds, None without one; or when it stops."""

_DIRECTIONS = {"minimize": StudyDirection.MINIMIZE, "maximize": StudyDirection.MAXIMIZE}


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
    damage: str | None = None


class Studies:
    """Creates, finds, changes and deletes the studies of a database.

    Args:
        database: The database.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, spec: StudySpec) -> StudyHandle:
        """Creates a study, with all its attributes in one transaction.

        Args:
            spec: A resolved spec.

        Raises:
            SpecError: If the name is taken.
        """
        identity = uuid.uuid4().hex
        attributes: dict[str, Any] = {
            UUID: identity,
            SPEC: spec.to_json(),
            CREATED: datetime.now(UTC).isoformat(timespec="seconds"),
        }
        if spec.confirmation is not None:
            attributes[CONFIRMS] = spec.confirmation.study
        name, direction = spec.study.name, _DIRECTIONS[spec.study.ranking]
        try:
            with self._database.write() as connection:
                study_id = ot.insert_study(connection, name, direction, attributes)
                set_attribute(connection, study_id, HOME, study_id)
        except StorageError as error:
            if isinstance(error.__cause__, IntegrityError):
                raise SpecError(
                    f"{self._database.name}: there is a study {name!r} already. Choose another "
                    f"--name, or delete it with 'tuner study delete {shlex.quote(name)}'."
                ) from None
            raise
        return StudyHandle(name, study_id, identity, spec)

    def get(self, name: str) -> StudyHandle | None:
        """Returns the study of a name, or None if there is none.

        Raises:
            NotFoundError: If the study of that name was not made by tuner.
        """
        with self._database.read() as connection:
            study_id = connection.execute(
                sa.select(ot.studies.c.study_id).where(ot.studies.c.study_name == name)
            ).scalar_one_or_none()
            if study_id is None:
                return None
            attributes = read_attributes(connection, study_id)
        if SPEC not in attributes:
            raise NotFoundError(
                f"The study {name!r} was not made by tuner; see it with 'tuner dashboard'."
            )
        spec = _parse(attributes[SPEC], f"study {name!r} in {self._database.name}")
        return StudyHandle(name, study_id, attributes.get(UUID, ""), spec)

    def find(self, name: str) -> StudyHandle:
        """Returns the study of a name.

        Raises:
            NotFoundError: If there is none, with the nearest name.
        """
        study = self.get(name)
        if study is not None:
            return study
        with self._database.read() as connection:
            names = list(connection.execute(sa.select(ot.studies.c.study_name)).scalars())
        raise NotFoundError(
            f"{self._database.name} has no study {name!r}"
            + (f": {suggest(name, names)}" if names else ": it has none at all.")
        )

    def extend(
        self, study: StudyHandle, change: Callable[[Budget], Mapping[str, Limit]]
    ) -> StudyHandle:
        """Gives a study another budget; running workers see it at their next trial.

        Args:
            study: The study.
            change: Returns, for the current budget, new limits by name; the others stay. It is
                called while the study is locked.

        Raises:
            NotFoundError: If the study has been deleted.
        """
        with self._database.write() as connection:
            study_row = lock(connection, study)
            spec = _parse(study_row.attributes[SPEC], f"study {study.name!r}")
            limits = dict(change(spec.budget))
            if limits:
                spec = spec.with_budget(spec.budget.model_copy(update=limits))
                set_attribute(connection, study_row.study_id, SPEC, spec.to_json())
        return StudyHandle(study.name, study_row.study_id, study.uuid, spec)

    def refresh(self, study: StudyHandle) -> StudyHandle:
        """Returns a study as it is now, since it may have been extended or renamed.

        Raises:
            NotFoundError: If it has been deleted.
        """
        with self._database.read() as connection:
            study_row = look_up(connection, study)
            name = connection.execute(
                sa.select(ot.studies.c.study_name).where(
                    ot.studies.c.study_id == study_row.study_id
                )
            ).scalar_one()
        spec = _parse(study_row.attributes[SPEC], f"study {name!r}")
        return StudyHandle(name, study_row.study_id, study.uuid, spec)

    def count_trials(self, study: StudyHandle) -> int:
        """Returns the number of trials of a study that have started; a copy has its own."""
        with self._database.read() as connection:
            return ot.count_trials(connection, study.study_id)

    def delete(self, study: StudyHandle) -> bool:
        """Deletes a study and all its records; if it is a copy, only the copy.

        Returns:
            Whether it was the study itself, and no copy.
        """
        with self._database.write() as connection:
            home = lock(connection, study).study_id
            if is_copy(connection, study, home):
                ot.delete_study(connection, study.study_id)
                return False
            dissolve_copies(connection, study, home)
            for table in (leases, charges, workers, curves, events, plans):
                connection.execute(sa.delete(table).where(table.c.study_uuid == study.uuid))
            ot.delete_study(connection, home)
        return True

    def list(self, is_dead: Callable[[str], bool] = assume_alive) -> list[StudyOverview]:
        """Returns every study made by tuner, by name, but those that wait to confirm another one.

        Args:
            is_dead: Returns for a worker's id whether its process is known to have died; without
                it, a worker counts as alive until its lease expires.
        """
        with self._database.read() as connection:
            rows = connection.execute(sa.select(ot.studies).order_by(ot.studies.c.study_name))
            overviews = [
                _overview_or_damage(connection, row.study_id, row.study_name, is_dead)
                for row in rows
            ]
        return [overview for overview in overviews if overview is not None]


def _parse(stored: Any, origin: str) -> StudySpec:
    if not isinstance(stored, dict):
        raise damage_error(f"The spec of the {origin}", stored)
    for table, values in _BEFORE.items():
        own = stored.get(table, {})
        if isinstance(own, dict):
            stored = stored | {table: values | own}
    return parse_spec(stored, origin=origin)


_BEFORE: dict[str, dict[str, Any]] = {
    "search": {"portfolio": False, "spare": 2},
    "space": {"regime": SCRATCH},
}
"""The values of keys that older versions did not know, for the specs that these stored."""


def _overview_or_damage(
    connection: sa.Connection, study_id: int, name: str, is_dead: Callable[[str], bool]
) -> StudyOverview | None:
    try:
        return _overview(connection, study_id, name, is_dead)
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
        damage=damage,
    )


def _overview(
    connection: sa.Connection, study_id: int, name: str, is_dead: Callable[[str], bool]
) -> StudyOverview | None:
    attributes = read_attributes(connection, study_id)
    if SPEC not in attributes or _is_waiting_for_another(connection, attributes):
        return None
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
    )


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
