"""The searches that are compared: plain Optuna's, others of Optuna's, and tuner's own."""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, cast

import numpy as np
import optuna
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from benchmarks.search.replay import Search, Searching
from benchmarks.search.spaces import (
    EVALUATIONS,
    TRIALS,
    former_space,
    present_space,
    with_length,
)
from benchmarks.search.tables import draw_on
from benchmarks.search.training import Params
from tuner.domain.catalog.dimensions import Float, Value
from tuner.domain.catalog.hyperparameters import LogNormalPrior
from tuner.domain.space import walk
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, Proposal, TrialRecord, tell_waiting
from tuner.search import Proposer, Pruner, Verdict
from tuner.search.batches import BatchSampler
from tuner.search.distributions import suggest
from tuner.search.history import SAMPLER_STATE
from tuner.search.knowledge import Knowledge
from tuner.search.portfolio import Entry, fit_portfolio
from tuner.search.promotion import pausing_rungs

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


def search_by_tuner(
    spec: StudySpec,
    seed: int,
    knowledge: Knowledge | None = None,
    *,
    lanes: int = 1,
    evaluations: int | None = 400,
    foresees: bool = False,
) -> Searching:
    """Searches as tuner's workers do: paused trials that may go on first, then new ones.

    Args:
        spec: The space, the sampler and the pruner, and the length of trials.
        seed: The worker's seed.
        knowledge: The portfolio and priors; None for those that ship with tuner.
        lanes: Trials of a cohort.
        evaluations: The training after which no further cohort starts, in evaluations; None for a
            whole study, of as many trials as the spec's budget has but its closing.
        foresees: Whether an oracle says, at the first rung, which trials will be the best so far;
            all others stop there.
    """
    play = Play(spec, seed, knowledge, foresees)
    while evaluations is None or play.search.evaluations < evaluations:
        cohort = play.find_promoted(lanes)
        left = lanes if evaluations is not None else spec.budget.trials - 1 - play.started
        if not cohort and left:
            drawn = play.propose(min(lanes, left))
            cohort = play.start(drawn, (yield [trial.params for trial in drawn]))
        cohort = cohort or play.find_last(lanes)
        if not cohort:
            break
        play.train(cohort)
    return play.search


class Play:
    """A study of tuner's whose trials' curves are known beforehand."""

    def __init__(
        self, spec: StudySpec, seed: int, knowledge: Knowledge | None, foresees: bool
    ) -> None:
        self.search = Search()
        self._foresees = foresees
        self._steps = cast("int", spec.budget.steps)
        self._proposer = Proposer(spec, seed, knowledge)
        self._pruner = Pruner(spec, self._proposer.history)
        self._waiting = self._proposer.openings()
        self._records = self.search.records
        self._curves: list[Sequence[float]] = []
        self._paused: dict[int, int] = {}

    def shown(self) -> list[TrialRecord]:
        """Returns the trials, those marked as paused that are."""
        return tell_waiting(self._records, (), self._paused)

    def propose(self, lanes: int) -> list[FrozenTrial]:
        """Returns trials to start: openings first."""
        self._proposer.history.pause(self._paused)
        drawn, self._waiting = self._waiting[:lanes], self._waiting[lanes:]
        if len(drawn) < lanes:
            drawn += (
                self._proposer.propose_many(lanes - len(drawn))
                if lanes > 1
                else [self._proposer.propose()]
            )
        return drawn

    def start(self, drawn: Sequence[FrozenTrial], curves: Sequence[Sequence[float]]) -> list[int]:
        """Starts trials; returns their numbers."""
        first = len(self._records)
        self._records += [self._record(trial, first + place) for place, trial in enumerate(drawn)]
        self._curves += curves
        return list(range(first, len(self._records)))

    def _record(self, trial: FrozenTrial, number: int) -> TrialRecord:
        """Returns a proposed trial as one that has started."""
        attributes = trial.user_attrs
        proposal = Proposal(trial.params, attributes.get("preset"))
        notes = {SAMPLER_STATE: attributes.get(SAMPLER_STATE)}
        return TrialRecord(number, Outcome.RUNNING, proposal, attributes=notes)

    @property
    def started(self) -> int:
        """The number of trials that have started."""
        return len(self._records)

    def find_promoted(self, lanes: int) -> list[int]:
        """Returns paused trials that may go on, all from one rung."""
        return self._take(self._pruner.find_promotable(self._paused), lanes)

    def find_last(self, lanes: int) -> list[int]:
        """Returns paused trials that go on once no others are to come, all from one rung."""
        return self._take(self._pruner.find_last(self._paused), lanes)

    def _take(self, ready: Sequence[int], lanes: int) -> list[int]:
        together = [n for n in ready if self._paused[n] == self._paused[ready[0]]][:lanes]
        for number in together:
            del self._paused[number]
        return together

    def train(self, cohort: Sequence[int]) -> None:
        """Trains trials, which stand at the same point, until each has ended or paused."""
        records = self._records
        trains = set(cohort)
        for place in range(len(records[cohort[0]].evaluations), EVALUATIONS):
            progress = -(-(place + 1) * self._steps // EVALUATIONS)
            for number in sorted(trains):
                self._step(number, place, progress)
            trains = {n for n in trains if records[n].outcome is Outcome.RUNNING}
            if place + 1 < EVALUATIONS and trains:
                trains -= self._judge(cohort, trains, progress)
        for number in trains:
            value = cast("float", records[number].value)
            self.search.end(records[number].proposal.params, value)
            records[number] = replace(records[number], outcome=Outcome.COMPLETE)
        self._proposer.history.add(records[number] for number in cohort)

    def _step(self, number: int, place: int, progress: int) -> None:
        self.search.evaluations += 1
        record, value = self._records[number], self._curves[number][place]
        if math.isfinite(value):
            known = {**record.evaluations, progress: value}
            record = replace(record, evaluations=known, value=value)
        else:
            record = replace(record, outcome=Outcome.DIVERGED)
        self._records[number] = record

    def _judge(self, cohort: Sequence[int], trains: set[int], progress: int) -> set[int]:
        """Returns the trials that stop or pause here."""
        if self._foresees:
            return self._foresee(trains, progress)
        lanes = [(self._records[n], self._records[n].evaluations) for n in cohort]
        left = set()
        for number, verdict in zip(cohort, self._pruner.judge(lanes, self._steps), strict=True):
            if number in trains and verdict is not Verdict.GO_ON:
                left.add(number)
                if verdict is Verdict.PAUSE:
                    self._paused[number] = progress
                else:
                    self._stop(number)
        return left

    def _foresee(self, trains: set[int], progress: int) -> set[int]:
        """Stops the trials that will not be the best so far, once they have come to a rung."""
        rung = pausing_rungs(EVALUATIONS)[0]
        if progress < -(-rung * self._steps // EVALUATIONS):
            return set()
        best = self.search.best_by(math.inf)
        left = {n for n in trains if not self._curves[n][-1] < best}
        for number in left:
            self._stop(number)
        return left

    def _stop(self, number: int) -> None:
        stopped = replace(self._records[number], outcome=Outcome.PRUNED)
        self._records[number] = stopped


Strategy = Callable[[int, int, Knowledge], Searching]
PLAIN = "plain"
TUNER = "tuner"


def _plainly(**options: Any) -> Strategy:
    return lambda steps, seed, knowledge: search_plainly(
        with_length(former_space(), steps), seed, **options
    )


def _plainly_here(*, portfolio: bool) -> Strategy:
    """Returns plain Optuna in tuner's space of today, with or without tuner's portfolio."""

    def search(steps: int, seed: int, knowledge: Knowledge) -> Searching:
        spec = with_length(present_space(), steps)
        first = fit_portfolio(spec, knowledge.portfolio) if portfolio else []
        return search_plainly(spec, seed, first=first)

    return search


def _by_tuner(
    *,
    lanes: int = 1,
    evaluations: int | None = 400,
    foresees: bool = False,
    knowing: Callable[[Knowledge], Knowledge] = lambda knowledge: knowledge,
    **own: Any,
) -> Strategy:
    """Returns tuner's search, with what it knows beforehand or a choice of the study file changed.

    Args:
        lanes: As for :func:`search_by_tuner`.
        evaluations: Likewise.
        foresees: Likewise.
        knowing: Returns what it takes for knowledge.
        own: Values of the table ``[search]``.
    """

    def search(steps: int, seed: int, knowledge: Knowledge) -> Searching:
        spec = with_length(present_space(), steps)
        spec = spec.model_copy(update={"search": spec.search.model_copy(update=own)})
        return search_by_tuner(
            spec,
            seed,
            knowing(knowledge),
            lanes=lanes,
            evaluations=evaluations,
            foresees=foresees,
        )

    return search


def _without_portfolio(knowledge: Knowledge) -> Knowledge:
    return Knowledge((), knowledge.priors)


def _without_priors(knowledge: Knowledge) -> Knowledge:
    return Knowledge(knowledge.portfolio, {})


def misled(knowledge: Knowledge) -> Knowledge:
    """Returns knowledge of rates two decades too low."""
    return Knowledge(
        [_lowered(entry) for entry in knowledge.portfolio],
        {name: replace(prior, mean=prior.mean - 2) for name, prior in knowledge.priors.items()},
    )


def _lowered(entry: Entry) -> Entry:
    """Returns an entry of a portfolio with its learning rates two decades lower."""
    rates = {name: value / 100 for name, value in entry[entry["optimizer"]].items() if "lr" in name}
    return {**entry, entry["optimizer"]: {**entry[entry["optimizer"]], **rates}}


def inverted(knowledge: Knowledge) -> Knowledge:
    """Returns knowledge whose priors lie as far from the other end of each range."""
    return Knowledge(
        knowledge.portfolio,
        {
            name: replace(prior, mean=_mirror(name, prior))
            for name, prior in knowledge.priors.items()
        },
    )


def _mirror(name: str, prior: LogNormalPrior) -> float:
    optimizer, key = name.split(".")
    axis = present_space().optimizer[optimizer][key]
    if not isinstance(axis, Float):
        raise TypeError(f"{name} is no range")
    return math.log10(axis.low) + math.log10(axis.high) - prior.mean


STRATEGIES: dict[str, Strategy] = {
    PLAIN: _plainly(),
    "Optuna Hyperband": _plainly(
        pruner=lambda: optuna.pruners.HyperbandPruner(max_resource=EVALUATIONS)
    ),
    "random": _plainly(sampler="random", pruner=optuna.pruners.NopPruner),
    "first evaluation": lambda steps, seed, _: search_by_first_evaluation(
        with_length(former_space(), steps), seed
    ),
    "plain, our space": _plainly_here(portfolio=False),
    "and our portfolio": _plainly_here(portfolio=True),
    "random + ASHA": _by_tuner(knowing=_without_portfolio, sampler="random", pruner="asha"),
    TUNER: _by_tuner(),
    "tuner, 8 lanes": _by_tuner(lanes=8),
    "whole study": _by_tuner(evaluations=None),
    "whole, 8 lanes": _by_tuner(evaluations=None, lanes=8),
    "without portfolio": _by_tuner(knowing=_without_portfolio),
    "without priors": _by_tuner(knowing=_without_priors),
    "without pausing": _by_tuner(pruner="asha"),
    "with TPE": _by_tuner(sampler="tpe"),
    "misled": _by_tuner(knowing=misled),
    "inverted priors": _by_tuner(knowing=inverted),
    "oracle judges": _by_tuner(foresees=True),
    "oracle, evenly": _by_tuner(knowing=_without_portfolio, sampler="random", foresees=True),
}
"""The strategies by name. The lower rows are tuner with one part taken out or exchanged, or with
false knowledge; an oracle tells what a search could do at best that draws as tuner does, or evenly.
"""
