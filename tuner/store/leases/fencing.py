"""Fencing: a worker's leases are checked and updated before it writes about its trials.

A lease's token is a fencing token: a worker that hung or was cut off, and has lost a lease by now,
shows a token that no longer counts, and nothing it writes about that trial is taken.
"""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from tuner.domain.catalog.dimensions import Value
from tuner.errors import LeaseLostError, NotFoundError
from tuner.store.connection.database import Database
from tuner.store.identity import StudyHandle, lock, match_uuid
from tuner.store.leases.rows import LASTING_S, UNTIL, Lease, find_running, match_leases
from tuner.store.optuna import tables as ot
from tuner.store.tables import leases


@dataclass
class HeldTrial:
    """A trial whose lease this worker holds, with the values written about it so far.

    Attributes:
        trial_id: Its id in Optuna's tables at the last write, None if unknown.
        reports: The metric of each evaluation written, by progress.
        params: (value, distribution) of each parameter added while it trains, by name.
    """

    trial_id: int | None = None
    reports: dict[int, float] = field(default_factory=dict)
    params: dict[str, tuple[Value, BaseDistribution]] = field(default_factory=dict)


@dataclass(frozen=True)
class LeaseUpdate:
    """An UPDATE or DELETE of leases, without its WHERE.

    Attributes:
        statement: The statement; a constant of the program, since the full statement is cached by
            it.
        values: The values of its parameters, by name.
    """

    statement: sa.Update | sa.Delete
    values: Mapping[str, Any] = field(default_factory=dict)


_STEP = sa.bindparam("steps_taken", type_=sa.Integer)
_IS_FURTHER = leases.c.step < _STEP
_RENEWAL = sa.update(leases).values(
    expires_at=UNTIL,
    attempts=sa.case((_IS_FURTHER, 1), else_=leases.c.attempts),
    step=sa.case((_IS_FURTHER, _STEP), else_=leases.c.step),
)
_SAVING = _RENEWAL.values(checkpoint=leases.c.token)
_PAUSED_AT = sa.bindparam("paused_at", type_=sa.Integer)
_PAUSING = _SAVING.values(worker_id=None, paused=_PAUSED_AT)

DELETION = LeaseUpdate(sa.delete(leases))
"""The update of leases whose trials end."""


def renewal(step: int, lease_s: float, *, saved: bool = False) -> LeaseUpdate:
    """Returns the update that makes leases count for longer.

    Args:
        step: Optimizer steps that their trials have taken.
        lease_s: Seconds that the leases count from now on.
        saved: Whether the checkpoints of their holder, named after the tokens, count from now on.
    """
    values = {_STEP.key: step, LASTING_S.key: lease_s}
    return LeaseUpdate(_SAVING if saved else _RENEWAL, values)


def pausing(step: int, progress: int, lease_s: float) -> LeaseUpdate:
    """Returns the update that takes the holder off leases whose trials wait to be promoted.

    The checkpoints of their holder count from now on.

    Args:
        step: Optimizer steps that their trials have taken.
        progress: The progress that they stand at.
        lease_s: Seconds that the leases would count.
    """
    values = {_STEP.key: step, _PAUSED_AT.key: progress, LASTING_S.key: lease_s}
    return LeaseUpdate(_PAUSING, values)


@dataclass
class Fenced:
    """A transaction that has checked and updated leases.

    Attributes:
        connection: The transaction's connection.
        ids: The ids in Optuna's tables of the trials that the worker still holds, by number.
        lost: The errors that explain why it lost the others, by number.
    """

    connection: sa.Connection
    ids: dict[int, int]
    lost: dict[int, LeaseLostError]


class HeldLeases:
    """The leases that a worker holds, by token."""

    def __init__(self) -> None:
        self._held: dict[str, HeldTrial] = {}

    def __contains__(self, token: str) -> bool:
        return token in self._held

    def __getitem__(self, lease: Lease) -> HeldTrial:
        return self._held[lease.token]

    def add(self, lease: Lease, trial_id: int) -> None:
        """Adds a lease that the worker has been given, and its trial's id in Optuna's tables."""
        self._held[lease.token] = HeldTrial(trial_id)

    def remove(self, held: Collection[Lease]) -> None:
        """Removes leases that the worker no longer holds."""
        for lease in held:
            self._held.pop(lease.token, None)

    @contextlib.contextmanager
    def fence(
        self,
        database: Database,
        study: StudyHandle,
        held: Sequence[Lease],
        update: LeaseUpdate,
    ) -> Iterator[Fenced]:
        """Opens a transaction that first updates these leases.

        Write only trials in :attr:`Fenced.ids`; :attr:`Fenced.lost` explains the rest.

        Args:
            database: The study's database.
            study: The study.
            held: The leases the trials are held under; their tokens are checked.
            update: The update of each of the leases.
        """
        trials = {lease: self._held.setdefault(lease.token, HeldTrial()) for lease in held}
        with database.write() as connection:
            fenced = Fenced(connection, _update_known(connection, study, trials, update), {})
            if len(fenced.ids) < len(trials):
                _update_unknown(fenced, study, trials, update)
            yield fenced
        for lease, trial in trials.items():
            trial.trial_id = fenced.ids.get(lease.number)
        self.remove([lease for lease in trials if lease.number in fenced.lost])


def _update_known(
    connection: sa.Connection,
    study: StudyHandle,
    held: Mapping[Lease, HeldTrial],
    update: LeaseUpdate,
) -> dict[int, int]:
    """Updates, in one statement, leases that count and whose trials run under the ids known.

    Returns:
        These ids by number.
    """
    known = {lease: trial.trial_id for lease, trial in held.items() if trial.trial_id is not None}
    if not known:
        return {}
    ids = {lease.number: trial_id for lease, trial_id in known.items()}
    values = {
        **update.values,
        "known_tokens": [lease.token for lease in known],
        "known_ids": list(ids.values()),
        "known_trials": list(ids.items()),
    }
    updated = connection.execute(_where_known(update.statement, study.uuid), values)
    return {number: ids[number] for number in updated.scalars()}


@functools.lru_cache(maxsize=64)
def _where_known(statement: sa.Update | sa.Delete, study_uuid: str) -> sa.Executable:
    of_study = ot.trials.c.study_id == ot.study_attributes.c.study_id
    numbered = sa.tuple_(ot.trials.c.number, ot.trials.c.trial_id)
    running = (
        sa.select(ot.trials.c.number)
        .join(ot.study_attributes, of_study)
        .where(
            ot.trials.c.trial_id.in_(sa.bindparam("known_ids", expanding=True)),  # by the index
            numbered.in_(sa.bindparam("known_trials", expanding=True)),
            ot.trials.c.state == TrialState.RUNNING,
            *match_uuid(study_uuid),
        )
    )
    return statement.where(
        leases.c.study_uuid == study_uuid,
        leases.c.number.in_(running),
        leases.c.token.in_(sa.bindparam("known_tokens", expanding=True)),
    ).returning(leases.c.number)


def _update_unknown(
    fenced: Fenced, study: StudyHandle, held: Mapping[Lease, HeldTrial], update: LeaseUpdate
) -> None:
    """Looks up the trials that do not run under the ids known: they have moved, or are lost.

    A trial that has moved, since its study was renamed, is updated and written again: its copy may
    lack the values written while the renaming was under way.
    """
    connection, lost = fenced.connection, fenced.lost
    unknown = {lease: trial for lease, trial in held.items() if lease.number not in fenced.ids}
    numbers = [lease.number for lease in unknown]
    try:
        study_id = lock(connection, study).study_id
    except NotFoundError:
        for number in numbers:
            lost[number] = LeaseLostError(f"Trial {number} was deleted, and its study with it.")
        return
    running = find_running(connection, study_id, numbers)
    matching = sa.select(leases.c.number).where(*match_leases(study.uuid, unknown))
    counting = set(connection.execute(matching).scalars())
    moved = {}
    for lease, trial in unknown.items():
        number = lease.number
        if number not in counting:
            lost[number] = LeaseLostError(f"Trial {number} belongs to another worker by now.")
        elif number not in running:
            lost[number] = LeaseLostError(
                f"Trial {number} was ended, or deleted, by somebody else."
            )
        else:
            moved[lease] = trial
            fenced.ids[number] = running[number]
    if moved:
        connection.execute(update.statement.where(*match_leases(study.uuid, moved)), update.values)
        _write_again(connection, [(running[lease.number], trial) for lease, trial in moved.items()])


def _write_again(connection: sa.Connection, moved: Sequence[tuple[int, HeldTrial]]) -> None:
    ot.insert_params(
        connection,
        [
            (trial_id, name, *param)
            for trial_id, trial in moved
            for name, param in trial.params.items()
        ],
    )
    ot.insert_reports(
        connection,
        [
            (trial_id, progress, value)
            for trial_id, trial in moved
            for progress, value in trial.reports.items()
        ],
    )
