"""What to stop: a trial that is behind the others at the same point."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import optuna

from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, TrialRecord
from tuner.search.history import History

STARTUP_TRIALS = 5
"""Complete trials before anything is stopped."""


class Pruner:
    """Judges running trials against a study's history.

    A trial of an optimizer's defaults is never stopped, so that the gap between default and
    tuned is known for every optimizer.

    Args:
        spec: The resolved spec.
        history: The past; whoever asks keeps it up to date.
    """

    def __init__(self, spec: StudySpec, history: History) -> None:
        self._history = history
        self._pruner = build_pruner(spec)

    def should_prune(self, record: TrialRecord, evaluations: Mapping[int, float]) -> bool:
        """Tells whether a trial should stop.

        Args:
            record: The trial.
            evaluations: Its metric so far by progress.
        """
        if record.is_default:
            return False
        running = dataclasses.replace(record, outcome=Outcome.RUNNING, evaluations=evaluations)
        return self._pruner.prune(self._history.study, self._history.to_frozen(running))


def build_pruner(spec: StudySpec) -> optuna.pruners.BasePruner:
    """Returns Optuna's pruner for a study; nobody is judged at the first evaluation."""
    if spec.search.pruner == "none":
        return optuna.pruners.NopPruner()
    first = 1
    if spec.budget.steps is not None:
        first = -(-spec.budget.steps // spec.budget.evaluations)
    return optuna.pruners.MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=first + 1)
