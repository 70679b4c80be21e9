"""A ledger for tests of one trial at a time: each call is a group of one, and raises if lost."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from tuner.errors import LeaseLostError
from tuner.store import Lease, Ledger, TrialEnding, TrialReport


class SingleTrials(Ledger):
    """A ledger that also takes one trial instead of a group."""

    def start_one(self, openings: Sequence[FrozenTrial], proposal: FrozenTrial) -> Lease | None:
        return next(iter(self.start(openings, [proposal])), None)

    def take_one(self, is_dead: Callable[[str], bool], *, expired: bool = True) -> Lease | None:
        return next(iter(self.take_over(is_dead, expired=expired, at_most=1)), None)

    def tell_one(self, lease: Lease, kind: str, detail: str) -> None:
        raise_lost(self.tell([lease], kind, detail))

    def renew_one(self, lease: Lease, step: int) -> None:
        raise_lost(self.renew([lease], step))

    def report_one(
        self,
        lease: Lease,
        step: int,
        progress: int,
        value: float,
        logged: Sequence[tuple[int, str, float]] = (),
    ) -> None:
        raise_lost(self.report(step, [TrialReport(lease, progress, value, logged)]))

    def log_one(self, lease: Lease, step: int, logged: Sequence[tuple[int, str, float]]) -> None:
        raise_lost(self.report(step, [TrialReport(lease, logged=logged)]))

    def saved_one(self, lease: Lease, step: int) -> Lease:
        raise_lost(self.saved([lease], step))
        return replace(lease, checkpoint=lease.token)

    def finish_one(
        self, lease: Lease, state: TrialState, value: float | None, attributes: Mapping[str, Any]
    ) -> None:
        raise_lost(self.finish([TrialEnding(lease, state, value, attributes)]))


def raise_lost(lost: Mapping[int, LeaseLostError]) -> None:
    for error in lost.values():
        raise error
