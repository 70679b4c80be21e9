"""A past for a study: trials that ended at every kind of point, written in large groups."""

from __future__ import annotations

import random
from collections.abc import Sequence

from optuna.trial import TrialState

from tuner.domain.spec import StudySpec
from tuner.domain.trials import progress_at
from tuner.search import Proposer
from tuner.store import Lease, Ledger, TrialEnding, TrialReport

_FILLING = 500


class Writer:
    """Writes what trials tell that train nothing.

    Args:
        ledger: Of a worker that has entered the study.
        spec: The study, resolved, of a budget in steps.
    """

    def __init__(self, ledger: Ledger, spec: StudySpec) -> None:
        self._ledger = ledger
        self._spec = spec
        self._steps = spec.budget.steps or 0
        self._random = random.Random(0)  # noqa: S311 (no secret)

    def fill(self, trials: int) -> None:
        """Writes trials that are complete with their reports: defaults, and draws at random."""
        chance = self._spec.search.model_copy(update={"sampler": "random"})
        proposer = Proposer(self._spec.model_copy(update={"search": chance}), 0)
        for first in range(0, trials, _FILLING):
            count = min(_FILLING, trials - first)
            proposals = proposer.propose_many(count)
            leases = self._ledger.start(proposer.openings(), proposals, count)
            for index in range(1, self._spec.budget.evaluations + 1):
                self.report(leases, index)
            self.end(leases)

    def report(self, leases: Sequence[Lease], index: int) -> list[float]:
        """Reports an evaluation of each trial, counted from 1, and one logged number beside it."""
        evaluations = self._spec.budget.evaluations
        step = index * self._steps // evaluations
        at = progress_at(self._spec, index, self._steps)
        values = [self._random.random() + 1 / index for _ in leases]
        reports = [
            TrialReport(lease, at, value, [(step, name, value) for name in ("val_loss", "loss")])
            for lease, value in zip(leases, values, strict=True)
        ]
        self._ledger.report(step, reports)
        return values

    def end(self, leases: Sequence[Lease]) -> None:
        """Ends trials as complete, with what is kept of those that train."""
        told = {"seed": 0, "steps": self._steps, "train_s": 1.0, "eval_s": 0.1}
        values = [self._random.random() for _ in leases]
        endings = [
            TrialEnding(lease, TrialState.COMPLETE, v, told | {"metrics": {"val_loss": v}})
            for lease, v in zip(leases, values, strict=True)
        ]
        self._ledger.finish(endings)
