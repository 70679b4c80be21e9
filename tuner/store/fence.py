"""The check that comes before whatever a worker writes about its trials."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass, field

import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from tuner.domain.dimensions import Value
from tuner.errors import LeaseLostError, NotFoundError
from tuner.store import optuna_tables as ot
from tuner.store.database import Database
from tuner.store.identity import StudyHandle, carries, lock
from tuner.store.leases import Lease, are_of, find_running
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
        change: sa.Update | sa.Delete,
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
    connection: sa.Connection,
    study: StudyHandle,
    held: dict[Lease, Held],
    change: sa.Update | sa.Delete,
) -> dict[int, int]:
    """Changes, in one statement, leases that count of trials that run under the ids known.

    Returns:
        These ids by number.
    """
    known = {lease: each.trial_id for lease, each in held.items() if each.trial_id is not None}
    if not known:
        return {}
    ids = {lease.number: trial_id for lease, trial_id in known.items()}
    of_study = ot.trials.c.study_id == ot.study_attributes.c.study_id
    running = (
        sa.select(ot.trials.c.number)
        .join(ot.study_attributes, of_study)
        .where(
            ot.trials.c.trial_id.in_(list(ids.values())),
            sa.tuple_(ot.trials.c.number, ot.trials.c.trial_id).in_(list(ids.items())),
            ot.trials.c.state == TrialState.RUNNING,
            *carries(study.uuid),
        )
    )
    changed = connection.execute(
        change.where(*are_of(study.uuid, known), leases.c.number.in_(running)).returning(
            leases.c.number
        )
    )
    return {number: ids[number] for number in changed.scalars()}


def _look_closer(
    fenced: Fenced, study: StudyHandle, held: dict[Lease, Held], change: sa.Update | sa.Delete
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
        connection.execute(change.where(*are_of(study.uuid, moved)))
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
