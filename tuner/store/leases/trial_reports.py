"""Reports and endings of trials: as a worker hands them to the ledger, and as rows."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from tuner.domain.catalog.dimensions import Value
from tuner.errors import SpecError
from tuner.store.curves import insert_points
from tuner.store.leases.fencing import Fenced
from tuner.store.leases.rows import Lease
from tuner.store.optuna import tables as ot


@dataclass(frozen=True)
class TrialReport:
    """An evaluation of one trial, and the numbers it logged since its last report.

    Attributes:
        lease: The lease the trial is held under; its token is checked.
        progress: Where the evaluation stands on the axis trials are compared along, None for a
            report without an evaluation.
        value: The metric of that evaluation, None without one.
        logged: (step, name, value) triples; see :mod:`tuner.store.curves`.

    Raises:
        SpecError: If an evaluation lacks its value.
    """

    lease: Lease
    progress: int | None = None
    value: float | None = None
    logged: Sequence[tuple[int, str, float]] = ()

    def __post_init__(self) -> None:
        if self.progress is not None and self.value is None:
            raise SpecError(
                f"Trial {self.lease.number} has no value at {self.progress}: report the metric, "
                "or leave the progress out where there is none."
            )


@dataclass(frozen=True)
class TrialEnding:
    """The end of one trial: its final state and value.

    Attributes:
        lease: The lease the trial is held under; its token is checked.
        state: COMPLETE, PRUNED or FAIL.
        value: The final metric, None if the trial has none.
        attributes: Values by key to keep with the trial, as JSON.
    """

    lease: Lease
    state: TrialState
    value: float | None
    attributes: Mapping[str, Any]


def write_reports(
    fenced: Fenced, study_uuid: str, reports: Sequence[TrialReport]
) -> list[tuple[Lease, int, float]]:
    """Writes the reports of those trials that are not lost.

    Args:
        fenced: A transaction that has checked the leases of these trials.
        study_uuid: The study.
        reports: One report a trial.

    Returns:
        The lease, progress and value of each evaluation written.
    """
    written = [report for report in reports if report.lease.number in fenced.ids]
    evaluated = [
        (report.lease, report.progress, report.value)
        for report in written
        if report.progress is not None and report.value is not None
    ]
    ot.insert_reports(
        fenced.connection,
        [(fenced.ids[lease.number], progress, value) for lease, progress, value in evaluated],
    )
    logged = [(report.lease.number, report.logged) for report in written]
    insert_points(fenced.connection, study_uuid, logged)
    return evaluated


def write_params(fenced: Fenced, params: Mapping[str, tuple[Value, BaseDistribution]]) -> None:
    """Writes parameters of those trials that are not lost; one that is there already stays.

    Args:
        fenced: A transaction that has checked the leases of these trials.
        params: (value, distribution) by name.
    """
    ot.insert_params(
        fenced.connection,
        [
            (trial_id, name, value, distribution)
            for trial_id in fenced.ids.values()
            for name, (value, distribution) in params.items()
        ],
    )


def write_endings(fenced: Fenced, endings: Sequence[TrialEnding]) -> None:
    """Ends those trials that are not lost.

    Args:
        fenced: A transaction that has checked the leases of these trials.
        endings: One ending a trial.
    """
    write_attributes(fenced, endings)
    ot.finish_trials(
        fenced.connection,
        [
            (fenced.ids[ending.lease.number], ending.state, ending.value)
            for ending in endings
            if ending.lease.number in fenced.ids
        ],
    )


def write_attributes(fenced: Fenced, endings: Sequence[TrialEnding]) -> None:
    """Writes the attributes of those trials that are not lost.

    Args:
        fenced: A transaction that has checked the leases of these trials.
        endings: One ending a trial.
    """
    ot.set_attributes(
        fenced.connection,
        [
            (fenced.ids[ending.lease.number], key, value)
            for ending in endings
            if ending.lease.number in fenced.ids
            for key, value in ending.attributes.items()
        ],
    )
