"""Which study of Optuna's is meant, wherever it has moved: a UUID among its attributes tells.

Renaming a study in Optuna Dashboard makes a new study, copies trials and then attributes, one
transaction each, and deletes the old one: name and all ids change. Meanwhile both are there. Every
study notes its own id as its home, so the one that is at home counts for as long as it exists. Once
it is gone, the first transaction that locks the copy makes it the home, and settles what was
written to the former one after its trials had been copied: a trial that is missing is no longer
held, so that its number can start anew, and one that runs and that nobody holds is given back.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from tuner.domain.spec import StudySpec
from tuner.domain.states import StudyState
from tuner.errors import NotFoundError, SpecError, StorageError
from tuner.store import events
from tuner.store.damage import parse_value, tell_damage
from tuner.store.identifiers import fault_of
from tuner.store.optuna import tables as ot
from tuner.store.tables import leases

UUID, SPEC, HOME, STATE = "tuner:uuid", "tuner:spec", "tuner:home", "tuner:state"


@dataclass(frozen=True)
class StudyHandle:
    """A study in the database.

    Attributes:
        name: Its name; changes when the study is renamed.
        study_id: Its id in Optuna's tables; changes when the study is renamed.
        uuid: Its identity, which never changes.
        spec: Its resolved spec.

    Raises:
        StorageError: If its identity is none.
    """

    name: str
    study_id: int
    uuid: str
    spec: StudySpec

    def __post_init__(self) -> None:
        fault = fault_of(self.uuid)
        if fault is not None:
            raise StorageError(
                f"The study {self.name!r} {fault} To be rid of it, delete it in 'tuner dashboard'."
            )


@dataclass(frozen=True)
class StudyRow:
    """A study as one transaction sees it.

    Attributes:
        study_id: Its id in Optuna's tables.
        attributes: Its attributes.
    """

    study_id: int
    attributes: Mapping[str, Any]

    @property
    def is_home(self) -> bool:
        """Whether it is no copy, or has been made the home."""
        return bool(self.attributes.get(HOME, self.study_id) == self.study_id)

    @property
    def uuid(self) -> str:
        """Its identity."""
        return str(self._read(UUID, str))

    @property
    def trials(self) -> int:
        """Trials it may start."""
        return int(self._budget["trials"])

    @property
    def wall_time_s(self) -> float | None:
        """Seconds it may be worked on, None without a limit."""
        wall_time: float | None = self._budget.get("wall_time")
        return wall_time

    @property
    def state(self) -> StudyState:
        """Whether it is worked on.

        Raises:
            StorageError: If that is damaged.
        """
        value = self.attributes.get(STATE, StudyState.RUNNING)
        try:
            return StudyState(value)
        except ValueError:
            raise tell_damage("Its state", value) from None

    @property
    def _budget(self) -> dict[str, Any]:
        spec = self._read(SPEC, dict)
        budget = spec.get("budget")
        if not isinstance(budget, dict) or type(budget.get("trials")) is not int:
            raise tell_damage("Its budget", budget)
        return budget

    def _read(self, key: str, kind: type) -> Any:
        value = self.attributes.get(key)
        if not isinstance(value, kind):
            raise tell_damage(f"Its attribute {key}", value)
        return value


def look_up(connection: sa.Connection, study: StudyHandle) -> StudyRow:
    """Returns a study, wherever it is by now.

    Raises:
        NotFoundError: If it has been deleted.
    """
    # SQLite gives a deleted study's id to the next one, so the UUID is what counts.
    study_row = StudyRow(study.study_id, read_attributes(connection, study.study_id))
    if study_row.attributes.get(UUID) == study.uuid and study_row.is_home:
        return study_row
    carriers = [
        StudyRow(study_id, read_attributes(connection, study_id))
        for study_id in _find_carriers(connection, study.uuid)
    ]
    complete = [carrier for carrier in carriers if SPEC in carrier.attributes]
    if not complete:
        raise NotFoundError(f"The study {study.name!r} has been deleted.")
    return max(complete, key=lambda carrier: (carrier.is_home, carrier.study_id))


def lock(connection: sa.Connection, study: StudyHandle) -> StudyRow:
    """Holds back other writers to a study until the transaction ends, and returns it.

    Raises:
        NotFoundError: If it has been deleted.
    """
    while True:
        ot.lock_study(connection, study.study_id)
        study_row = look_up(connection, study)
        if study_row.study_id == study.study_id:
            break
        study = replace(study, study_id=study_row.study_id)
    if not study_row.is_home:
        make_home(connection, study_row.study_id, study.uuid)
    return study_row


def is_copy(connection: sa.Connection, study: StudyHandle, home: int) -> bool:
    """Tells whether what was found under a name is a copy of a study that is still there."""
    if study.study_id == home:
        return False
    return bool(read_attributes(connection, study.study_id).get(UUID) == study.uuid)


def refuse_copy(connection: sa.Connection, study: StudyHandle, home: int) -> None:
    """Refuses to work on a copy of a study that is still there.

    Args:
        connection: In a transaction.
        study: What was found under a name.
        home: The id of the study that counts.

    Raises:
        SpecError: If they are two studies.
    """
    if not is_copy(connection, study, home):
        return
    name = connection.execute(
        sa.select(ot.studies.c.study_name).where(ot.studies.c.study_id == home)
    ).scalar_one()
    raise SpecError(
        f"{study.name!r} is a copy of the study {name!r}, as a renaming makes one: if that is "
        f"still under way, wait for its end; else work on {name!r}, or delete one of the two "
        "with 'tuner study delete'."
    )


def make_home(connection: sa.Connection, study_id: int, study_uuid: str) -> None:
    """Makes a copy the study itself, and gives back what nobody holds; it must be locked."""
    set_attribute(connection, study_id, HOME, study_id)
    of_study = sa.select(ot.trials.c.number).where(
        ot.trials.c.study_id == study_id, ot.trials.c.state == TrialState.RUNNING
    )
    ours = leases.c.study_uuid == study_uuid
    connection.execute(sa.delete(leases).where(ours, leases.c.number.not_in(of_study)))
    held = sa.select(leases.c.number).where(ours)
    unheld = connection.execute(of_study.where(ot.trials.c.number.not_in(held))).scalars().all()
    if unheld:
        connection.execute(
            sa.insert(leases),
            [
                {
                    "study_uuid": study_uuid,
                    "number": number,
                    "token": uuid.uuid4().hex,
                    "expires_at": 0.0,
                    "step": 0,
                    "attempts": 1,
                }
                for number in unheld
            ],
        )
    events.record(connection, study_uuid, "renamed", detail=f"Optuna's study {study_id} by now")


def dissolve_copies(connection: sa.Connection, study: StudyHandle, home: int) -> None:
    """Makes every copy of a study that is about to be deleted a study of its own."""
    for study_id in _find_carriers(connection, study.uuid):
        if study_id != home:
            identity = uuid.uuid4().hex
            set_attribute(connection, study_id, UUID, identity)
            make_home(connection, study_id, identity)


def read_attributes(connection: sa.Connection, study_id: int) -> dict[str, Any]:
    """Returns a study's attributes, empty if there is no such study; Damaged where no JSON is."""
    rows = connection.execute(
        sa.select(ot.study_attributes.c.key, ot.study_attributes.c.value_json).where(
            ot.study_attributes.c.study_id == study_id
        )
    )
    return {row.key: parse_value(row.value_json) for row in rows}


def set_attribute(connection: sa.Connection, study_id: int, key: str, value: Any) -> None:
    """Adds or replaces an attribute of a study."""
    row = {"study_id": study_id, "key": key, "value_json": json.dumps(value)}
    ot.upsert(connection, ot.study_attributes, [row], ("study_id", "key"))


def carries(study_uuid: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Returns what holds of the attribute that ties a study of Optuna's to a UUID."""
    return (
        ot.study_attributes.c.key == UUID,
        ot.study_attributes.c.value_json == json.dumps(study_uuid),
    )


def _find_carriers(connection: sa.Connection, study_uuid: str) -> list[int]:
    found = connection.execute(
        sa.select(ot.study_attributes.c.study_id)
        .where(*carries(study_uuid))
        .order_by(ot.study_attributes.c.study_id)
    )
    return list(found.scalars())
