"""What to stop: a trial that is behind the others at the same point."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping

import optuna
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tuner.domain.optimizers import OPTIMIZERS
from tuner.domain.schedules import as_numbers, split_steps
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, TrialRecord, decode, steps_at
from tuner.search.halving import AshaPruner, HyperbandPruner
from tuner.search.history import History
from tuner.search.plugins import build_plugin

STARTUP_TRIALS = 5
"""Complete trials before the median pruner stops anything."""

OWN_TRIALS = 2
"""Complete trials of an optimizer, its default one of them, before the median stops its others.

An optimizer that learns slowly at first would otherwise be known by its default alone."""


class Pruner:
    """Judges running trials against a study's history.

    A trial of an optimizer's defaults is never stopped, so that the gap between default and
    tuned is known for every optimizer. Nobody is stopped while the learning rate only warms up,
    or the optimizer finds out by itself how fast it may go.

    Args:
        spec: The resolved spec.
        history: The past; whoever asks keeps it up to date.

    Raises:
        SpecError: If the user's own pruner cannot be built.
    """

    def __init__(self, spec: StudySpec, history: History) -> None:
        self._spec = spec
        self._history = history
        self._pruner = build_pruner(spec)

    def should_prune(
        self, record: TrialRecord, evaluations: Mapping[int, float], total_steps: int | None = None
    ) -> bool:
        """Tells whether a trial should stop.

        Args:
            record: The trial.
            evaluations: Its metric so far by progress.
            total_steps: Its steps when full; left out, the budget's, which may count epochs.
        """
        total = total_steps or self._spec.budget.steps
        if record.is_default or (total and self._is_starting(record, evaluations, total)):
            return False
        running = dataclasses.replace(record, outcome=Outcome.RUNNING, evaluations=evaluations)
        trial = self._history.to_frozen(running)
        return bool(self._pruner.prune(self._history.study, trial))

    def _is_starting(
        self, record: TrialRecord, evaluations: Mapping[int, float], total_steps: int
    ) -> bool:
        config = decode(self._spec, record.proposal)
        warmup, _ = split_steps(as_numbers(config.schedule_values), total_steps)
        slow = OPTIMIZERS[config.optimizer].slow_start(config.optimizer_values)
        return steps_at(self._spec, max(evaluations), total_steps) <= max(warmup, slow)


class MedianPruner(optuna.pruners.MedianPruner):
    """Optuna's, which stops a trial behind the median of all, but gives each optimizer a start."""

    def prune(self, study: Study, trial: FrozenTrial) -> bool:
        """Tells whether a trial should stop."""
        complete = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        own = [t for t in complete if t.params["optimizer"] == trial.params["optimizer"]]
        return len(own) >= OWN_TRIALS and super().prune(study, trial)


def build_pruner(spec: StudySpec) -> optuna.pruners.BasePruner:
    """Returns the pruner of a study.

    Raises:
        SpecError: If the user's own pruner cannot be built.
    """
    evaluations = spec.budget.evaluations
    match spec.search.pruner:
        case "none":
            return optuna.pruners.NopPruner()
        case "median":
            # Nobody is judged at the first evaluation.
            steps = spec.budget.steps
            first = 1 if steps is None else -(-steps // evaluations)
            return MedianPruner(n_startup_trials=STARTUP_TRIALS, n_warmup_steps=first + 1)
        case "asha":
            return AshaPruner(evaluations)
        case "hyperband":
            return HyperbandPruner(evaluations)
        case own:
            pruner: optuna.pruners.BasePruner = build_plugin(
                own, optuna.pruners.BasePruner, "search.pruner"
            )
            return pruner


def needs_running(spec: StudySpec) -> bool:
    """Tells whether the pruner looks at evaluations of trials that still run elsewhere.

    Successive halving does; the median is that of complete trials. The user's own may.
    """
    return spec.search.pruner not in ("median", "none")
