"""Studies in the database: created whole, found by name, extended, deleted."""

from __future__ import annotations

import shlex
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime

import sqlalchemy as sa
from optuna.study import StudyDirection
from optuna.trial import TrialState
from sqlalchemy.exc import IntegrityError

from tuner.domain.names import suggest
from tuner.domain.spec import Budget, StudySpec
from tuner.domain.states import Activity, StudyState
from tuner.domain.study_file import parse_spec
from tuner.errors import NotFoundError, SpecError, StorageError
from tuner.store import optuna_tables as ot
from tuner.store.database import Database
from tuner.store.identity import (
    HOME,
    SPEC,
    UUID,
    Present,
    StudyHandle,
    dissolve_copies,
    is_copy,
    lock,
    look_up,
    read_attributes,
    set_attribute,
)
from tuner.store.leases import find_held, none_is
from tuner.store.orders import is_used_up
from tuner.store.tables import curves, events, leases, plans, workers

CREATED = "tuner:created_at"
_DIRECTIONS = {"minimize": StudyDirection.MINIMIZE, "maximize": StudyDirection.MAXIMIZE}


@dataclass(frozen=True)
class StudyOverview:
    """A line of the list of studies.

    Attributes:
        name: The study's name.
        workload: Its workload's import string.
        trials: Trials it may start.
        started: Trials started.
        running: Trials that somebody trains.
        waiting: Trials that are not over, and that nobody trains.
        best_value: The best complete value, or None.
        created_at: When it was created, ISO 8601.
        state: What it is asked to do.
        activity: What it does.
    """

    name: str
    workload: str
    trials: int
    started: int
    running: int
    waiting: int
    best_value: float | None
    created_at: str
    state: StudyState
    activity: Activity


class Studies:
    """The studies of a database.

    Args:
        database: Where they are.
    """

    def __init__(self, database: Database) -> None:
        self._database = database

    def create(self, spec: StudySpec) -> StudyHandle:
        """Creates a study.

        Args:
            spec: A resolved spec.

        Raises:
            SpecError: If the name is taken.
        """
        identity = uuid.uuid4().hex
        attributes = {
            UUID: identity,
            SPEC: spec.to_json(),
            CREATED: datetime.now(UTC).isoformat(timespec="seconds"),
        }
        name, direction = spec.study.name, _DIRECTIONS[spec.study.direction]
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

    def find(self, name: str) -> StudyHandle:
        """Returns the study of a name.

        Raises:
            NotFoundError: If there is none, with the nearest name.
        """
        with self._database.read() as connection:
            study_id = connection.execute(
                sa.select(ot.studies.c.study_id).where(ot.studies.c.study_name == name)
            ).scalar_one_or_none()
            if study_id is None:
                names = list(connection.execute(sa.select(ot.studies.c.study_name)).scalars())
                raise NotFoundError(
                    f"{self._database.name} has no study {name!r}"
                    + (f": {suggest(name, names)}" if names else ": it has none at all.")
                )
            attributes = read_attributes(connection, study_id)
        if SPEC not in attributes:
            raise NotFoundError(
                f"The study {name!r} was not made by tuner; see it with 'tuner dashboard'."
            )
        spec = parse_spec(attributes[SPEC], origin=f"study {name!r} in {self._database.name}")
        return StudyHandle(name, study_id, attributes.get(UUID, ""), spec)

    def exists(self, name: str) -> bool:
        """Tells whether there is a study of this name."""
        with self._database.read() as connection:
            found = connection.execute(
                sa.select(ot.studies.c.study_id).where(ot.studies.c.study_name == name)
            ).scalar_one_or_none()
        return found is not None

    def extend(self, study: StudyHandle, budget: Budget) -> StudyHandle:
        """Gives a study another budget; running workers see it at their next trial."""
        spec = study.spec.with_budget(budget)
        with self._database.write() as connection:
            study_id = lock(connection, study).study_id
            set_attribute(connection, study_id, SPEC, spec.to_json())
        return StudyHandle(study.name, study_id, study.uuid, spec)

    def refresh(self, study: StudyHandle) -> StudyHandle:
        """Returns a study as it is now: it may have been extended or renamed.

        Raises:
            NotFoundError: If it has been deleted.
        """
        with self._database.read() as connection:
            present = look_up(connection, study)
            name = connection.execute(
                sa.select(ot.studies.c.study_name).where(ot.studies.c.study_id == present.study_id)
            ).scalar_one()
        spec = parse_spec(present.attributes[SPEC], origin=f"study {name!r}")
        return StudyHandle(name, present.study_id, study.uuid, spec)

    def delete(self, study: StudyHandle) -> bool:
        """Deletes a study and everything recorded of it; of a copy, no more than the copy.

        Returns:
            Whether it was the study itself.
        """
        with self._database.write() as connection:
            home = lock(connection, study).study_id
            if is_copy(connection, study, home):
                ot.delete_study(connection, study.study_id)
                return False
            dissolve_copies(connection, study, home)
            for table in (leases, workers, curves, events, plans):
                connection.execute(sa.delete(table).where(table.c.study_uuid == study.uuid))
            ot.delete_study(connection, home)
        return True

    def list(self, is_dead: Callable[[str], bool] = none_is) -> list[StudyOverview]:
        """Returns every study made by tuner, by name.

        Args:
            is_dead: Tells of a worker's id whether its process is known to have died; without it,
                a worker counts as alive until its lease expires.
        """
        with self._database.read() as connection:
            rows = connection.execute(sa.select(ot.studies).order_by(ot.studies.c.study_name))
            overviews = [
                _overview(connection, row.study_id, row.study_name, is_dead) for row in rows
            ]
        return [overview for overview in overviews if overview is not None]


def _overview(
    connection: sa.Connection, study_id: int, name: str, is_dead: Callable[[str], bool]
) -> StudyOverview | None:
    attributes = read_attributes(connection, study_id)
    if SPEC not in attributes:
        return None
    spec = attributes[SPEC]
    counts = connection.execute(
        sa.select(ot.trials.c.state, sa.func.count())
        .where(ot.trials.c.study_id == study_id)
        .group_by(ot.trials.c.state)
    ).all()
    by_state = {state: int(count) for state, count in counts}
    started = sum(by_state.values())
    unfinished = sum(count for state, count in by_state.items() if not state.is_finished())
    present = Present(study_id, attributes)
    held = min(unfinished, len(find_held(connection, present.uuid, is_dead)))
    used_up = not unfinished and is_used_up(connection, present, started)
    best = sa.func.min if spec["study"]["direction"] == "minimize" else sa.func.max
    value = connection.execute(
        sa.select(best(ot.trial_values.c.value))
        .join(ot.trials, ot.trials.c.trial_id == ot.trial_values.c.trial_id)
        .where(ot.trials.c.study_id == study_id, ot.trials.c.state == TrialState.COMPLETE)
    ).scalar_one_or_none()
    return StudyOverview(
        name=name,
        workload=spec["study"]["workload"],
        trials=present.trials,
        started=started,
        running=held,
        waiting=unfinished - held,
        best_value=value,
        created_at=attributes.get(CREATED, ""),
        state=present.state,
        activity=_activity(present.state, used_up=used_up, held=held),
    )


def _activity(state: StudyState, *, used_up: bool, held: int) -> Activity:
    if used_up:
        return Activity.DONE
    if state is not StudyState.RUNNING:
        return Activity(state.value)
    return Activity.RUNNING if held else Activity.IDLE
