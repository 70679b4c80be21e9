"""The check that comes before whatever a worker writes about its trials."""

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
from tuner.store.identity import StudyHandle, carries, lock
from tuner.store.leases.rows import LASTING_S, UNTIL, Lease, are_of, find_running
from tuner.store.optuna import tables as ot
from tuner.store.tables import leases


@dataclass
class Held:
    """A trial in hand.

    Attributes:
        trial_id: Its id in Optuna's tables when it was last written to, None if not known.
        reports: Evaluations written so far, by progress.
        params: Parameters added so far, by name.
    """

    trial_id: int | None = None
    reports: dict[int, float] = field(default_factory=dict)
    params: dict[str, tuple[Value, BaseDistribution]] = field(default_factory=dict)


@dataclass(frozen=True)
class Change:
    """What to do to leases.

    Attributes:
        statement: A constant of the program: what is built around it is kept for the next time.
        values: Those of its parameters.
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

GIVING_UP = Change(sa.delete(leases))
"""What ends leases, with their trials."""


def renewal(step: int, lease_s: float, *, saved: bool = False) -> Change:
    """Returns what has leases count for longer.

    Args:
        step: Optimizer steps taken.
        lease_s: How long the leases count from now on, in seconds.
        saved: Whether their holder's own checkpoints count from now on.
    """
    values = {_STEP.key: step, LASTING_S.key: lease_s}
    return Change(_SAVING if saved else _RENEWAL, values)


@dataclass
class Fenced:
    """Trials whose leases a transaction has changed, so that it may write about them.

    Attributes:
        connection: In that transaction.
        ids: The ids in Optuna's tables of those that still belong to the worker, by number.
        lost: Why the others do not, by number.
    """

    connection: sa.Connection
    ids: dict[int, int]
    lost: dict[int, LeaseLostError]


class Hand:
    """The trials that a worker has in hand."""

    def __init__(self) -> None:
        self._held: dict[str, Held] = {}

    def __contains__(self, token: str) -> bool:
        return token in self._held

    def __getitem__(self, lease: Lease) -> Held:
        return self._held[lease.token]

    def take(self, lease: Lease, trial_id: int) -> None:
        """Takes a trial into the hand."""
        self._held[lease.token] = Held(trial_id)

    def drop(self, those: Collection[Lease]) -> None:
        """Has trials in the hand no more."""
        for lease in those:
            self._held.pop(lease.token, None)

    @contextlib.contextmanager
    def changing(
        self,
        database: Database,
        study: StudyHandle,
        those: Sequence[Lease],
        change: Change,
    ) -> Iterator[Fenced]:
        """A transaction that changes leases, and writes about the trials that are not lost.

        Args:
            database: Where the study is.
            study: The study.
            those: The rights to write.
            change: What to do to each of the leases.
        """
        held = {lease: self._held.setdefault(lease.token, Held()) for lease in those}
        with database.write() as connection:
            fenced = Fenced(connection, _change_known(connection, study, held, change), {})
            if len(fenced.ids) < len(held):
                _look_closer(fenced, study, held, change)
            yield fenced
        for lease, each in held.items():
            each.trial_id = fenced.ids.get(lease.number)
        self.drop([lease for lease in held if lease.number in fenced.lost])


def _change_known(
    connection: sa.Connection, study: StudyHandle, held: Mapping[Lease, Held], change: Change
) -> dict[int, int]:
    """Changes, in one statement, leases that count of trials that run under the ids known.

    Returns:
        These ids by number.
    """
    known = {lease: each.trial_id for lease, each in held.items() if each.trial_id is not None}
    if not known:
        return {}
    ids = {lease.number: trial_id for lease, trial_id in known.items()}
    values = {
        **change.values,
        "known_tokens": [lease.token for lease in known],
        "known_ids": list(ids.values()),
        "known_trials": list(ids.items()),
    }
    changed = connection.execute(_where_known(change.statement, study.uuid), values)
    return {number: ids[number] for number in changed.scalars()}


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
            *carries(study_uuid),
        )
    )
    return statement.where(
        leases.c.study_uuid == study_uuid,
        leases.c.number.in_(running),
        leases.c.token.in_(sa.bindparam("known_tokens", expanding=True)),
    ).returning(leases.c.number)


def _look_closer(
    fenced: Fenced, study: StudyHandle, held: Mapping[Lease, Held], change: Change
) -> None:
    """Looks up where trials are by now, and why those that are lost are.

    A trial that has moved is given what a copy that was made while its study was being renamed
    may lack.
    """
    connection, lost = fenced.connection, fenced.lost
    unclear = {lease: each for lease, each in held.items() if lease.number not in fenced.ids}
    numbers = [lease.number for lease in unclear]
    try:
        study_id = lock(connection, study).study_id
    except NotFoundError:
        for number in numbers:
            lost[number] = LeaseLostError(f"Trial {number} was deleted, and its study with it.")
        return
    running = find_running(connection, study_id, numbers)
    counting = set(
        connection.execute(sa.select(leases.c.number).where(*are_of(study.uuid, unclear))).scalars()
    )
    moved = {}
    for lease, each in unclear.items():
        number = lease.number
        if number not in counting:
            lost[number] = LeaseLostError(f"Trial {number} belongs to another worker by now.")
        elif number not in running:
            lost[number] = LeaseLostError(
                f"Trial {number} was ended, or deleted, by somebody else."
            )
        else:
            moved[lease] = each
            fenced.ids[number] = running[number]
    if moved:
        connection.execute(change.statement.where(*are_of(study.uuid, moved)), change.values)
        _tell_again(connection, [(running[lease.number], each) for lease, each in moved.items()])


def _tell_again(connection: sa.Connection, moved: Sequence[tuple[int, Held]]) -> None:
    ot.insert_params(
        connection,
        [
            (trial_id, name, *param)
            for trial_id, held in moved
            for name, param in held.params.items()
        ],
    )
    ot.insert_reports(
        connection,
        [
            (trial_id, progress, value)
            for trial_id, held in moved
            for progress, value in held.reports.items()
        ],
    )
