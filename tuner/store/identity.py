"""The identity of a study: a UUID among its attributes, which stays when the study is renamed.

Renaming a study in Optuna Dashboard makes a new study, copies trials and then attributes, one
transaction each, and deletes the old one: name and all ids change. Meanwhile both are there. Every
study notes its own id as its home, so the one that is at home counts for as long as it exists. Once
it is gone, the first transaction that locks the copy makes it the home, and makes leases and trials
agree again: the lease of a trial that the copy lacks is deleted, so that its number can start anew,
and a trial that runs and that nobody holds gets a lease that any worker may take.
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState
from pydantic import ValidationError

from tuner.domain.spec import StudySpec
from tuner.domain.states import StudyState
from tuner.domain.study_section import StudySection
from tuner.errors import NotFoundError, SpecError, StorageError
from tuner.store import events
from tuner.store.damage import damage_error, parse_value
from tuner.store.finalists import add_finalists
from tuner.store.identifiers import fault_of
from tuner.store.optuna import tables as ot
from tuner.store.tables import leases

UUID, SPEC, HOME, STATE = "tuner:uuid", "tuner:spec", "tuner:home", "tuner:state"
CONFIRMS = "tuner:confirms"
"""The attribute of a study that confirms another one: that one's UUID."""


@dataclass(frozen=True)
class StudyHandle:
    """A study as it was found in the database.

    Attributes:
        name: Its name; changes when the study is renamed.
        study_id: Its id in Optuna's tables; changes when the study is renamed.
        uuid: Its identity, 32 hexadecimal digits; never changes.
        spec: Its resolved spec.

    Raises:
        StorageError: If its identity is not 32 hexadecimal digits.
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

    @property
    def waits(self) -> bool:
        """Whether it is to confirm another study, and has no finalists yet."""
        return self.spec.confirmation is not None and self.spec.confirmation.waits


@dataclass(frozen=True)
class StudyRow:
    """A study as one transaction sees it.

    Attributes:
        study_id: Its id in Optuna's tables.
        attributes: Its attributes by key; ``Damaged`` where a value is not JSON.
    """

    study_id: int
    attributes: Mapping[str, Any]

    @property
    def is_home(self) -> bool:
        """Whether it is the study itself, not a copy made while it is being renamed."""
        return bool(self.attributes.get(HOME, self.study_id) == self.study_id)

    @property
    def uuid(self) -> str:
        """Its identity."""
        return str(self._read(UUID, str))

    @property
    def section(self) -> StudySection:
        """The table of its study file that says what trials are ranked by.

        Raises:
            StorageError: If it is damaged.
        """
        section = self._read(SPEC, dict).get("study")
        try:
            return StudySection.model_validate(section)
        except ValidationError:
            raise damage_error("Its table [study]", section) from None

    @property
    def trials(self) -> int:
        """The number of trials it may start."""
        return int(self._budget["trials"])

    @property
    def full_trials(self) -> float | None:
        """The training it may do, in full trials, None without a limit."""
        full_trials: float | None = self._budget.get("full_trials")
        return full_trials

    @property
    def ends_early(self) -> bool:
        """Whether it ends by itself once little is left to gain."""
        return self._budget.get("stop") == "auto"

    @property
    def evaluations(self) -> int:
        """The number of evaluations of a full trial."""
        return int(self._budget["evaluations"])

    @property
    def wall_time_s(self) -> float | None:
        """The seconds it may be worked on, None without a limit."""
        wall_time: float | None = self._budget.get("wall_time")
        return wall_time

    @property
    def state(self) -> StudyState:
        """Whether it runs, is paused or was stopped.

        Raises:
            StorageError: If the attribute is damaged.
        """
        value = self.attributes.get(STATE, StudyState.RUNNING)
        try:
            return StudyState(value)
        except ValueError:
            raise damage_error("Its state", value) from None

    @property
    def _budget(self) -> dict[str, Any]:
        spec = self._read(SPEC, dict)
        budget = spec.get("budget")
        if not isinstance(budget, dict) or type(budget.get("trials")) is not int:
            raise damage_error("Its budget", budget)
        return budget

    def _read(self, key: str, kind: type) -> Any:
        value = self.attributes.get(key)
        if not isinstance(value, kind):
            raise damage_error(f"Its attribute {key}", value)
        return value


def look_up(connection: sa.Connection, study: StudyHandle) -> StudyRow:
    """Returns a study as it is now, also if it has been renamed.

    Raises:
        NotFoundError: If it has been deleted.
    """
    # SQLite gives a deleted study's id to the next one, so the UUID is what counts.
    study_row = StudyRow(study.study_id, read_attributes(connection, study.study_id))
    if study_row.attributes.get(UUID) == study.uuid and study_row.is_home:
        return study_row
    found = [
        StudyRow(study_id, read_attributes(connection, study_id))
        for study_id in _find_ids(connection, study.uuid)
    ]
    complete = [row for row in found if SPEC in row.attributes]
    if not complete:
        raise NotFoundError(f"The study {study.name!r} has been deleted.")
    return max(complete, key=lambda row: (row.is_home, row.study_id))


def lock(connection: sa.Connection, study: StudyHandle) -> StudyRow:
    """Locks a study until the transaction ends, so that its other writers wait, and returns it.

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
    """Tells whether a study found by its name is a copy of a study that is still there.

    Args:
        connection: An open transaction.
        study: The study found.
        home: The id of the study of that identity which counts, as :func:`lock` returns it.
    """
    if study.study_id == home:
        return False
    return bool(read_attributes(connection, study.study_id).get(UUID) == study.uuid)


def refuse_copy(connection: sa.Connection, study: StudyHandle, home: int) -> None:
    """Refuses to work on a copy of a study that is still there.

    Args:
        connection: An open transaction.
        study: The study found by its name.
        home: The id of the study of that identity which counts.

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
    """Makes a copy the study itself, and makes its leases agree with its trials; lock it first."""
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
    """Gives every copy of a study an identity of its own, before the study is deleted."""
    for study_id in _find_ids(connection, study.uuid):
        if study_id != home:
            identity = uuid.uuid4().hex
            attributes = read_attributes(connection, study_id)
            if isinstance(attributes.get(SPEC), dict):  # its finalists stay with the other identity
                set_attribute(connection, study_id, SPEC, attributes[SPEC])
            set_attribute(connection, study_id, UUID, identity)
            make_home(connection, study_id, identity)


def read_attributes(connection: sa.Connection, study_id: int) -> dict[str, Any]:
    """Returns the attributes of a study, by key; its spec comes with the finalists it confirms.

    Returns:
        The values; ``Damaged`` where one is not JSON. Empty if there is no such study.
    """
    rows = connection.execute(
        sa.select(ot.study_attributes.c.key, ot.study_attributes.c.value_json).where(
            ot.study_attributes.c.study_id == study_id
        )
    )
    attributes = {row.key: parse_value(row.value_json) for row in rows}
    if CONFIRMS in attributes and SPEC in attributes:
        spec = add_finalists(connection, attributes.get(UUID), attributes[SPEC])
        attributes[SPEC] = spec
    return attributes


def set_attribute(connection: sa.Connection, study_id: int, key: str, value: Any) -> None:
    """Adds or replaces an attribute of a study."""
    row = {"study_id": study_id, "key": key, "value_json": json.dumps(value)}
    ot.upsert(connection, ot.study_attributes, [row], ("study_id", "key"))


def match_uuid(study_uuid: str) -> tuple[sa.ColumnElement[bool], ...]:
    """Returns the conditions that match the attribute of Optuna's that holds a study's UUID."""
    return (
        ot.study_attributes.c.key == UUID,
        ot.study_attributes.c.value_json == json.dumps(study_uuid),
    )


def _find_ids(connection: sa.Connection, study_uuid: str) -> list[int]:
    found = connection.execute(
        sa.select(ot.study_attributes.c.study_id)
        .where(*match_uuid(study_uuid))
        .order_by(ot.study_attributes.c.study_id)
    )
    return list(found.scalars())
