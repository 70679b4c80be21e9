"""The check that comes before whatever a worker writes about a trial."""

from __future__ import annotations

from dataclasses import dataclass, field

import sqlalchemy as sa
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from tuner.domain.dimensions import Value
from tuner.errors import LeaseLostError, NotFoundError
from tuner.store import optuna_tables as ot
from tuner.store.identity import StudyHandle, carries, lock
from tuner.store.leases import Lease, find_running, is_of


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


def change_lease(
    connection: sa.Connection,
    study: StudyHandle,
    lease: Lease,
    held: Held,
    change: sa.Update | sa.Delete,
) -> int:
    """Changes a lease that still counts, of a trial that still runs.

    Where the trial's id is still the same, one statement checks and changes it all. Else it is
    looked up, and given what a copy that was made while the study was being renamed may lack.

    Args:
        connection: In a transaction that writes about the trial.
        study: The study.
        lease: The right to write.
        held: What is known of the trial.
        change: What to do to the lease.

    Returns:
        The trial's id.

    Raises:
        LeaseLostError: If the trial belongs to another worker by now, is over, or is gone.
    """
    counts = is_of(study.uuid, lease.number, lease.token)
    if held.trial_id is not None:
        runs = _runs(study.uuid, lease.number, held.trial_id)
        if connection.execute(change.where(*counts, runs)).rowcount == 1:
            return held.trial_id
    try:
        trial_id = find_running(connection, lock(connection, study).study_id, lease.number)
    except NotFoundError:
        raise LeaseLostError(f"Trial {lease.number} was deleted, and its study with it.") from None
    if connection.execute(change.where(*counts)).rowcount != 1:
        raise LeaseLostError(f"Trial {lease.number} belongs to another worker by now.")
    if trial_id is None:
        raise LeaseLostError(f"Trial {lease.number} was ended, or deleted, by somebody else.")
    _tell_again(connection, trial_id, held)
    return trial_id


def _runs(study_uuid: str, number: int, trial_id: int) -> sa.ColumnElement[bool]:
    of_study = ot.trials.c.study_id == ot.study_attributes.c.study_id
    return (
        sa.select(ot.trials.c.trial_id)
        .join(ot.study_attributes, of_study)
        .where(
            ot.trials.c.trial_id == trial_id,
            ot.trials.c.number == number,
            ot.trials.c.state == TrialState.RUNNING,
            *carries(study_uuid),
        )
        .exists()
    )


def _tell_again(connection: sa.Connection, trial_id: int, held: Held) -> None:
    values = {name: value for name, (value, _) in held.params.items()}
    distributions = {name: distribution for name, (_, distribution) in held.params.items()}
    ot.insert_params(connection, trial_id, values, distributions)
    reports = [(trial_id, progress, value) for progress, value in held.reports.items()]
    ot.insert_reports(connection, reports)
