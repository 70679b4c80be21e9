"""Optuna's own calls inside a transaction of ours: slower, and right for any version of Optuna.

Each function does what its namesake in :mod:`tuner.store.optuna.tables` does, through methods of
Optuna's storage whose session joins our connection. Their commits are savepoints: all of it happens
with our transaction, or nothing, so a lease checked in it fences these writes too.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Concatenate, ParamSpec, TypeVar

import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.exceptions import DuplicatedStudyError, UpdateFinishedTrialError
from optuna.storages import RDBStorage
from optuna.trial import FrozenTrial, TrialState, create_trial
from sqlalchemy import orm

P = ParamSpec("P")
R = TypeVar("R")

OWN_CALLS = "tuner_optuna_calls"
"""The execution option of an engine whose writes are left to Optuna."""


class JoinedStorage(RDBStorage):
    """Optuna's storage within the transaction of a connection.

    Args:
        connection: In a transaction, which stays open.
    """

    def __init__(self, connection: sa.Connection) -> None:
        # Optuna's own constructor would open an engine; its methods need no more than these two.
        self.engine = connection.engine
        self.scoped_session = orm.scoped_session(
            orm.sessionmaker(bind=connection, join_transaction_mode="create_savepoint")
        )


def else_by(
    own: Callable[Concatenate[sa.Connection, P], R],
) -> Callable[
    [Callable[Concatenate[sa.Connection, P], R]], Callable[Concatenate[sa.Connection, P], R]
]:
    """Decorates a write into Optuna's tables with what does it where they may be others.

    Args:
        own: The same by Optuna's own calls, used on engines with the option :data:`OWN_CALLS`.
    """

    def decorate(
        write: Callable[Concatenate[sa.Connection, P], R],
    ) -> Callable[Concatenate[sa.Connection, P], R]:
        @functools.wraps(write)
        def choose(connection: sa.Connection, /, *args: P.args, **kwargs: P.kwargs) -> R:
            leave = connection.get_execution_options().get(OWN_CALLS, False)
            return (own if leave else write)(connection, *args, **kwargs)

        return choose

    return decorate


def insert_study(
    connection: sa.Connection, name: str, direction: Any, attributes: Mapping[str, Any]
) -> int:
    """Creates a study with its attributes; returns its id."""
    storage = JoinedStorage(connection)
    try:
        study_id = storage.create_new_study([direction], name)
    except DuplicatedStudyError as error:
        # What the constraint said: callers know a name that is taken by that.
        raise error.__context__ or error from None
    for key, value in attributes.items():
        storage.set_study_user_attr(study_id, key, value)
    return study_id


def delete_study(connection: sa.Connection, study_id: int) -> None:
    """Deletes a study and everything Optuna keeps of it."""
    JoinedStorage(connection).delete_study(study_id)


def insert_trials(
    connection: sa.Connection,
    study_id: int,
    templates: Sequence[FrozenTrial],
    number: int | None = None,
) -> list[tuple[int, int]]:
    """Starts trials; Optuna counts for itself, whatever number is given."""
    storage = JoinedStorage(connection)
    started: list[tuple[int, int]] = []
    for template in templates:
        trial = create_trial(
            state=TrialState.RUNNING,
            params=template.params,
            distributions=template.distributions,
            user_attrs=template.user_attrs,
        )
        trial_id = storage.create_new_trial(study_id, trial)
        started.append((trial_id, storage.get_trial_number_from_id(trial_id)))
    return started


def insert_params(
    connection: sa.Connection, params: Sequence[tuple[int, str, Any, BaseDistribution]]
) -> None:
    """Adds (trial id, name, value, distribution) to trials; what one has already is left alone."""
    storage = JoinedStorage(connection)
    for trial_id, name, value, distribution in params:
        if name not in storage.get_trial_params(trial_id):
            stored = distribution.to_internal_repr(value)
            storage.set_trial_param(trial_id, name, stored, distribution)


def insert_reports(connection: sa.Connection, reports: Sequence[tuple[int, int, float]]) -> None:
    """Records (trial id, step, value) triples; a step reported again is replaced."""
    storage = JoinedStorage(connection)
    for trial_id, step, value in reports:
        storage.set_trial_intermediate_value(trial_id, step, value)


def set_attributes(connection: sa.Connection, attributes: Sequence[tuple[int, str, Any]]) -> None:
    """Records (trial id, key, value) triples; values are what JSON can hold."""
    storage = JoinedStorage(connection)
    for trial_id, key, value in attributes:
        storage.set_trial_user_attr(trial_id, key, value)


def finish_trials(
    connection: sa.Connection, endings: Sequence[tuple[int, TrialState, float | None]]
) -> None:
    """Ends trials: (trial id, state, value or None); one that has ended stays as it is."""
    storage = JoinedStorage(connection)
    for trial_id, state, value in endings:
        values = None if value is None or math.isnan(value) else [value]
        try:
            storage.set_trial_state_values(trial_id, state, values)
        except UpdateFinishedTrialError:
            continue
