"""The searches that are compared: plain Optuna's, others of Optuna's, and tuner's own."""

from __future__ import annotations

import dataclasses
import math
import warnings
from collections.abc import Callable, Sequence
from typing import Any, cast

import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import TrialState

from benchmarks.quality import record_of
from benchmarks.search.replay import Search, Searching
from benchmarks.search.spaces import EVALUATIONS, TRIALS
from tuner.domain.catalog.dimensions import Choice, Dimension, Float, Int, Value
from tuner.domain.space import walk
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, TrialRecord
from tuner.search import Proposer, Pruner, Verdict
from tuner.search.batches import BatchSampler
from tuner.search.knowledge import Knowledge

optuna.logging.set_verbosity(optuna.logging.WARNING)
warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)

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
    made = PlainTPE(seed) if sampler == "tpe" else samplers.RandomSampler(seed=seed)
    study = optuna.create_study(sampler=made, pruner=pruner())
    for point in first:
        study.enqueue_trial(point)
    search = Search()
    for _ in range(trials):
        trial = study.ask()
        params = walk(spec, _suggest_with(trial))
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
            search.ends.append((search.evaluations, told[-1]))
        else:
            study.tell(trial, state=state)
        search.trials.append((params, told, state is TrialState.COMPLETE))
    return search


def _suggest_with(trial: optuna.Trial) -> Callable[[str, Dimension], Value]:
    def suggest(name: str, axis: Dimension) -> Value:
        match axis:
            case Float():
                return trial.suggest_float(name, axis.low, axis.high, log=axis.log)
            case Int():
                return trial.suggest_int(name, axis.low, axis.high, log=axis.log)
            case Choice():
                return cast("Value", trial.suggest_categorical(name, axis.choices))
            case _:
                return axis.value

    return suggest


def search_by_tuner(
    spec: StudySpec,
    seed: int,
    knowledge: Knowledge | None = None,
    *,
    lanes: int = 1,
    evaluations: int = 400,
) -> Searching:
    """Searches as tuner's workers do: cohorts are proposed and judged as one.

    Args:
        spec: The space, the sampler and the pruner, and the length of trials.
        seed: The worker's seed.
        knowledge: The portfolio and priors; None for those that ship with tuner.
        lanes: Trials of a cohort.
        evaluations: The training after which no further cohort starts, in evaluations.
    """
    search, records = Search(), list[TrialRecord]()
    proposer = Proposer(spec, seed, knowledge)
    pruner = Pruner(spec, proposer.history)
    waiting = proposer.openings()
    while search.evaluations < evaluations:
        drawn = [waiting.pop(0) for _ in range(min(lanes, len(waiting)))]
        if len(drawn) < lanes:
            drawn += (
                proposer.propose_many(lanes - len(drawn)) if lanes > 1 else [proposer.propose()]
            )
        cohort = [record_of(trial, len(records) + place) for place, trial in enumerate(drawn)]
        curves = yield [record.proposal.params for record in cohort]
        ended = _train(search, pruner, cohort, curves, spec)
        proposer.history.add(ended)
        records += ended
    return search


def _train(
    search: Search,
    pruner: Pruner,
    cohort: list[TrialRecord],
    curves: Sequence[Sequence[float]],
    spec: StudySpec,
) -> list[TrialRecord]:
    """Plays a cohort to its end; returns its records."""
    steps = cast("int", spec.budget.steps)
    for place in range(EVALUATIONS):
        progress = -(-(place + 1) * steps // EVALUATIONS)
        for lane, record in enumerate(cohort):
            if record.outcome is Outcome.RUNNING:
                search.evaluations += 1
                value = curves[lane][place]
                if math.isfinite(value):
                    known = {**record.evaluations, progress: value}
                    cohort[lane] = dataclasses.replace(record, evaluations=known, value=value)
                else:
                    cohort[lane] = dataclasses.replace(record, outcome=Outcome.DIVERGED)
        if place + 1 < EVALUATIONS and any(r.outcome is Outcome.RUNNING for r in cohort):
            verdicts = pruner.judge([(record, record.evaluations) for record in cohort], steps)
            for lane, verdict in enumerate(verdicts):
                # Nobody is promoted here: who pauses has ended as it stands.
                if verdict is not Verdict.GO_ON and cohort[lane].outcome is Outcome.RUNNING:
                    cohort[lane] = dataclasses.replace(cohort[lane], outcome=Outcome.PRUNED)
    for lane, record in enumerate(cohort):
        complete = record.outcome is Outcome.RUNNING
        if complete:
            cohort[lane] = dataclasses.replace(record, outcome=Outcome.COMPLETE)
            search.ends.append((search.evaluations, cast("float", record.value)))
        told = list(record.evaluations.values())
        search.trials.append((record.proposal.params, told, complete))
    return cohort
