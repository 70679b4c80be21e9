"""The searches that tuner is compared with: plain Optuna's, and a baseline."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from benchmarks.search.replay import Search, Searching
from benchmarks.search.spaces import EVALUATIONS, TRIALS
from benchmarks.search.tables import draw_on
from benchmarks.search.training import Params
from tuner.domain.catalog.dimensions import Value
from tuner.domain.space import walk
from tuner.domain.spec import StudySpec
from tuner.search.batches import BatchSampler
from tuner.search.distributions import suggest

optuna.logging.set_verbosity(optuna.logging.WARNING)

Pruning = Callable[[], optuna.pruners.BasePruner]


class PlainTPE(BatchSampler):
    """Optuna's TPE for conditional spaces, which draws only the groups that a trial needs.

    Optuna's own draws every group for every trial and drops most. Groups are drawn apart from one
    another, so what is left out changes no distribution, and replays take a quarter of the time.
    """

    def infer_relative_search_space(
        self, study: optuna.Study, trial: optuna.trial.FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns nothing: parameters are drawn as they are asked for."""
        super().infer_relative_search_space(study, trial)
        self._drawn: dict[str, Any] = {}
        return {}

    def sample_independent(
        self,
        study: optuna.Study,
        trial: optuna.trial.FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Returns a value, drawn with the others of its group."""
        if param_name not in self._drawn:
            # Optuna's, found when the trial was asked for.
            for group in self._search_space_group.search_spaces:  # type: ignore[union-attr]
                if param_name in group:
                    self._drawn |= self._sample_relative(study, trial, dict(sorted(group.items())))
        if param_name in self._drawn:
            return self._drawn[param_name]
        return self._random_sampler.sample_independent(study, trial, param_name, param_distribution)


def search_plainly(
    spec: StudySpec,
    seed: int,
    *,
    sampler: str = "tpe",
    pruner: Pruning = optuna.pruners.MedianPruner,
    trials: int = TRIALS,
    first: Sequence[dict[str, Value]] = (),
) -> Searching:
    """Searches as the script does that a careful user of Optuna writes.

    Args:
        spec: The space and the length of trials.
        seed: The sampler's seed.
        sampler: ``tpe`` or ``random``.
        pruner: Makes the pruner.
        trials: The number of trials.
        first: Configurations to enqueue before.
    """
    samplers = optuna.samplers
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)
        made = PlainTPE(seed) if sampler == "tpe" else samplers.RandomSampler(seed=seed)
    # Hyperband's brackets hang on the name.
    study = optuna.create_study(study_name=f"plain-{seed}", sampler=made, pruner=pruner())
    for point in first:
        study.enqueue_trial(point)
    search = Search()
    for _ in range(trials):
        trial = study.ask()
        params = walk(spec, functools.partial(suggest, trial))
        [curve] = yield [params]
        state, told = TrialState.COMPLETE, list[float]()
        for place, value in enumerate(curve, 1):
            search.evaluations += 1
            if not math.isfinite(value):
                state = TrialState.PRUNED
                break
            told.append(value)
            trial.report(value, place)
            if trial.should_prune():
                state = TrialState.PRUNED
                break
        if state is TrialState.COMPLETE:
            study.tell(trial, told[-1])
            search.end(params, told[-1])
        else:
            study.tell(trial, state=state)
    return search


def search_by_first_evaluation(
    spec: StudySpec, seed: int, *, group: int = 10, evaluations: int = 400
) -> Searching:
    """Trains random trials for one evaluation, and only the best of each group to its end.

    It is the baseline of "i-Epoch" (Egele et al., "The Unreasonable Effectiveness of Early
    Discarding", TMLR 2024).

    Args:
        spec: The space and the length of trials.
        seed: The seed of the draws.
        group: Trials of which one goes on.
        evaluations: The training after which no further group starts, in evaluations.
    """
    search, rng = Search(), np.random.default_rng(seed)
    while search.evaluations < evaluations:
        points: list[Params] = [
            walk(spec, lambda _, axis: draw_on(axis, rng)) for _ in range(group)
        ]
        curves = yield points
        search.evaluations += group
        best = min(range(group), key=lambda i: math.inf if math.isnan(c := curves[i][0]) else c)
        ends = [value for value in curves[best] if math.isfinite(value)]
        search.evaluations += max(0, len(ends) - 1)
        if len(ends) == EVALUATIONS:
            search.end(points[best], ends[-1])
    return search
