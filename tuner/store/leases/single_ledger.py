"""Who holds which trial: every trial is worked on by one worker and finished exactly once.

What :mod:`tuner.store.leases.ledger` does for groups of trials, also for one at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from tuner.domain.catalog.dimensions import Value
from tuner.errors import LeaseLostError
from tuner.store.leases.ledger import GroupLedger, LaneEnding, LaneReport
from tuner.store.leases.rows import LEASE_S, Lease
from tuner.store.leases.takeover import MAX_ATTEMPTS
from tuner.store.leases.workers import WorkerIdentity
from tuner.store.optuna import tables as ot
from tuner.store.orders import Orders, is_done, read_elapsed_s

__all__ = [
    "LEASE_S",
    "MAX_ATTEMPTS",
    "LaneEnding",
    "LaneReport",
    "Lease",
    "Ledger",
    "Orders",
    "WorkerIdentity",
    "is_done",
    "read_elapsed_s",
]


class Ledger(GroupLedger):
    """The leases of one worker on one study: of one trial at a time, or of groups."""

    def start(self, defaults: Sequence[FrozenTrial], proposal: FrozenTrial) -> Lease | None:
        """Starts a trial if the study goes on and its budget allows one more.

        Args:
            defaults: The trials a study starts with, in order; those not run yet come first.
            proposal: What to try when all of them have started.

        Returns:
            The lease, or None if the budget of trials or wall time is used up, or the study is
            paused or stopped.

        Raises:
            NotFoundError: If the study has been deleted.
        """
        started = self.start_many(defaults, [proposal])
        return started[0] if started else None

    def take_over(self, is_dead: Callable[[str], bool], *, expired: bool = True) -> Lease | None:
        """Takes the first trial that nobody works on any more; see :meth:`take_over_many`.

        Args:
            is_dead: Tells of a worker's id whether its process is known to have died.
            expired: Whether an expired lease counts as left behind.

        Returns:
            The lease, or None if there is no such trial.
        """
        taken = self.take_over_many(is_dead, expired=expired, at_most=1)
        return taken[0] if taken else None

    def tell(self, lease: Lease, kind: str, detail: str) -> None:
        """Records what has become of a trial: what it goes on from, or that it starts over.

        Args:
            lease: The right to.
            kind: What, one of :data:`tuner.store.events.KINDS`.
            detail: More about it.

        Raises:
            LeaseLostError: If it belongs to another worker by now.
        """
        _raise(self.tell_many([lease], kind, detail))

    def renew(self, lease: Lease, step: int) -> None:
        """Says that a trial is still worked on.

        Raises:
            LeaseLostError: If it belongs to another worker by now.
        """
        _raise(self.renew_many([lease], step))

    def report(
        self,
        lease: Lease,
        step: int,
        progress: int,
        value: float,
        logged: Sequence[tuple[int, str, float]] = (),
    ) -> None:
        """Records an evaluation, and what was logged since the last one.

        Args:
            lease: The right to.
            step: Optimizer steps taken.
            progress: Where the evaluation stands on the axis trials are compared along.
            value: The metric.
            logged: (step, name, value) triples; see :mod:`tuner.store.curves`.

        Raises:
            LeaseLostError: If the trial belongs to another worker by now.
        """
        _raise(self.report_many(step, [LaneReport(lease, progress, value, logged)]))

    def log(self, lease: Lease, step: int, logged: Sequence[tuple[int, str, float]]) -> None:
        """Records what was logged between evaluations.

        Args:
            lease: The right to.
            step: Optimizer steps taken.
            logged: (step, name, value) triples; see :mod:`tuner.store.curves`.

        Raises:
            LeaseLostError: If the trial belongs to another worker by now.
        """
        _raise(self.report_many(step, [LaneReport(lease, logged=logged)]))

    def add_parameters(
        self,
        lease: Lease,
        params: Mapping[str, Value],
        distributions: Mapping[str, BaseDistribution],
    ) -> None:
        """Records parameters that were chosen while the trial trains.

        Args:
            lease: The right to.
            params: Values by name; a parameter the trial has already stays as it is.
            distributions: Where each value comes from, by name.

        Raises:
            LeaseLostError: If the trial belongs to another worker by now.
        """
        chosen = {name: (value, distributions[name]) for name, value in params.items()}
        with self._renewing([lease], step=0) as fenced:
            rows = [
                (trial_id, name, *param)
                for trial_id in fenced.ids.values()
                for name, param in chosen.items()
            ]
            ot.insert_params(fenced.connection, rows)
        _raise(fenced.lost)
        self._hand[lease].params = chosen | self._hand[lease].params

    def saved(self, lease: Lease, step: int) -> Lease:
        """Says that the holder's own checkpoint, named after its token, counts from now on.

        Args:
            lease: The right to.
            step: Optimizer steps taken when it was written.

        Returns:
            The lease, with its checkpoint.

        Raises:
            LeaseLostError: If the trial belongs to another worker by now.
        """
        _raise(self.saved_many([lease], step))
        return replace(lease, checkpoint=lease.token)

    def finish(
        self,
        lease: Lease,
        state: TrialState,
        value: float | None,
        attributes: Mapping[str, Any],
    ) -> None:
        """Ends a trial and gives up its lease.

        Raises:
            LeaseLostError: If the trial belongs to another worker by now.
        """
        _raise(self.finish_many([LaneEnding(lease, state, value, attributes)]))

    def release(self, lease: Lease) -> None:
        """Gives a trial back unfinished, for whoever asks next."""
        self.release_many([lease])


def _raise(lost: Mapping[int, LeaseLostError]) -> None:
    for error in lost.values():
        raise error
