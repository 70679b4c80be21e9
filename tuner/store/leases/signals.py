"""Control signals: a worker reads from the database whether it is to go on, wait or end."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from tuner.domain.states import StudyState
from tuner.store.damage import parse_value
from tuner.store.identity import HOME, SPEC, STATE, UUID, StudyHandle, StudyRow, look_up
from tuner.store.leases.budget import is_out_of_time
from tuner.store.leases.heartbeat import Alive
from tuner.store.optuna import tables as ot
from tuner.store.tables import workers


@dataclass(frozen=True)
class ControlSignals:
    """The signals that one worker has to follow; :mod:`tuner.store.control` sends them.

    Attributes:
        state: Whether the study runs, is paused or was stopped.
        out_of_time: Whether its wall time is used up.
        leaving: Whether this worker was asked to end.
    """

    state: StudyState
    out_of_time: bool
    leaving: bool


def read_signals(connection: sa.Connection, study: StudyHandle, worker: Alive) -> ControlSignals:
    """Returns the signals for a worker, in one statement if the study has no wall time.

    Args:
        connection: An open transaction.
        study: The study.
        worker: The worker, at its current age.

    Raises:
        NotFoundError: If the study has been deleted.
    """
    leaving = sa.select(workers.c.leaving).where(workers.c.worker_id == worker.worker_id)
    attributes = ot.study_attributes.c
    rows = connection.execute(
        sa.select(attributes.key, attributes.value_json, leaving.scalar_subquery()).where(
            attributes.study_id == study.study_id,
            attributes.key.in_((UUID, SPEC, HOME, STATE)),
        )
    ).all()
    study_row = StudyRow(study.study_id, {key: _from_json(value) for key, value, _ in rows})
    asked = any(row_asked for _, _, row_asked in rows)
    if study_row.attributes.get(UUID) != study.uuid or not study_row.is_home:
        study_row = look_up(connection, study)
        asked = bool(connection.execute(leaving).scalar_one_or_none())
    return ControlSignals(study_row.state, is_out_of_time(connection, study_row, worker), asked)


@functools.lru_cache(maxsize=16)
def _from_json(text: str) -> Any:
    return parse_value(text)
