"""A sampler that draws from beliefs about good values, from near the best trials, and evenly.

Each trial is drawn in one of three ways: evenly from the whole space, so that nothing is ruled out;
from the priors of the optimizers that lead; or near one of the best trials so far. It is the
mixture of Mallik et al., "PriorBand" (NeurIPS 2023), with weights that `benchmarks.search` chose.
Of many points near a trial, a model of its optimizer's trials chooses the most promising one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.study import Study, StudyDirection
from optuna.trial import FrozenTrial, TrialState

from tuner.domain.catalog.dimensions import Dimension, Fixed, Value
from tuner.domain.catalog.hyperparameters import LogNormalPrior
from tuner.search.distributions import to_distribution
from tuner.search.trial_model import TrialModel, normal_scores
from tuner.search.unit_cube import Vector, from_unit, nearest, to_unit

ROOT = "optimizer"
"""The parameter that decides which others a trial has; trials near another one share it."""

_STATES = (TrialState.COMPLETE, TrialState.PRUNED, TrialState.RUNNING)

Draw = Callable[[str, BaseDistribution], Any]


class MixtureSampler(optuna.samplers.BaseSampler):
    """Draws each trial evenly, from priors, or near one of the best trials.

    Args:
        seed: The seed of all draws.
        priors: Beliefs about numbers by the names of their parameters; a parameter without one is
            drawn evenly.
        evenly: The share of trials that are drawn evenly, in [0, 1].
        near: The share that are drawn near one of the best, in [0, (1 - evenly) / 2]; the rest are
            drawn from the priors. It doubles while a study grows from 20 to 60 trials, since what
            the study has found by then tells more than what was believed beforehand.
        startup: Trials before there are best ones.

    Any study can be sampled. Where it has a parameter ``optimizer``, priors are drawn mostly for
    the optimizers whose best trials lead.
    """

    def __init__(
        self,
        seed: int | None = None,
        priors: Mapping[str, LogNormalPrior] | None = None,
        *,
        evenly: float = 0.25,
        near: float = 0.25,
        startup: int = 8,
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self._priors = dict(priors or {})
        self._evenly, self._near, self._startup = evenly, near, startup
        self._drawing: tuple[int, Draw] | None = None

    def reseed_rng(self) -> None:
        """Seeds all draws anew, from the system."""
        self._rng = np.random.default_rng()

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        """Returns nothing: parameters are drawn as they are asked for."""
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns nothing, likewise."""
        return {}

    def sample_independent(
        self,
        study: Study,
        trial: FrozenTrial,
        param_name: str,
        param_distribution: BaseDistribution,
    ) -> Any:
        """Returns a value of a parameter; all values of a trial are drawn in one way."""
        if self._drawing is None or self._drawing[0] != trial._trial_id:  # noqa: SLF001
            past = _Past(study, without=trial.number)
            self._drawing = trial._trial_id, self._choose_way(past)  # noqa: SLF001
        return self._drawing[1](param_name, param_distribution)

    def draw_many(self, study: Study) -> Iterator[Callable[[str, Dimension], Value]]:
        """Yields functions that each draw one point, all from the study as it is now.

        Args:
            study: The study to learn from.

        Yields:
            A function that returns the point's value for a name and its axis.
        """
        past = _Past(study)
        while True:
            yield _on_axes(self._choose_way(past))

    def _choose_way(self, past: _Past) -> Draw:
        """Returns the way in which one trial is drawn."""
        luck = self._rng.random()
        if luck < self._evenly:
            return lambda name, distribution: draw_evenly(distribution, self._rng)
        grown = min(max((len(past.best) - _YOUNG) / (_GROWN - _YOUNG), 0.0), 1.0)
        if luck < self._evenly + self._near * (1 + grown) and len(past.best) >= self._startup:
            return self._draw_near(past)
        return self._draw_from_priors(past.best)

    def _draw_near(self, past: _Past) -> Draw:
        ranks = np.arange(min(_BEST, len(past.best)))
        weights = 0.5**ranks
        centre = past.best[int(self._rng.choice(ranks, p=weights / weights.sum()))]
        near = self._choose_near(centre, past)

        def draw(name: str, distribution: BaseDistribution) -> Any:
            if name in near and contains(distribution, near[name]):
                return near[name]
            return draw_evenly(distribution, self._rng)

        return draw

    def _choose_near(self, centre: FrozenTrial, past: _Past) -> dict[str, Any]:
        """Returns the most promising of many points around a trial, all of its optimizer."""
        axes = {name: axis for name, axis in centre.distributions.items() if name != ROOT}
        widths = self._rng.choice(_WIDTHS, size=_CANDIDATES)
        columns = {
            name: vary(centre.params[name], axis, self._rng, widths) for name, axis in axes.items()
        }
        near = {ROOT: centre.params[ROOT]} if ROOT in centre.params else {}
        if columns:
            model = past.model_of(centre)
            chosen = int(np.argmax(model.expect(columns, past.costs[0])))
            near |= {name: from_unit(axis, columns[name][chosen]) for name, axis in axes.items()}
            model.believe(near)
        return near

    def _draw_from_priors(self, best: Sequence[FrozenTrial]) -> Draw:
        leader = self._choose_leader(best) if len(best) >= self._startup else None

        def draw(name: str, distribution: BaseDistribution) -> Any:
            if name == ROOT and leader in getattr(distribution, "choices", ()):
                return leader
            prior = self._priors.get(name)
            if prior is None:
                return draw_evenly(distribution, self._rng)
            return _draw_from(prior, distribution, self._rng)

        return draw

    def _choose_leader(self, best: Sequence[FrozenTrial]) -> Any:
        """Returns an optimizer, the better its best trial the likelier; now and then None."""
        if self._rng.random() < _OPEN:
            return None
        leaders = list(dict.fromkeys(t.params[ROOT] for t in best if ROOT in t.params))
        if not leaders:
            return None
        weights = _FALL ** np.arange(len(leaders))
        return leaders[int(self._rng.choice(len(leaders), p=weights / weights.sum()))]


_BEST = 5
"""Trials that others are drawn near to, each half as often as the one before it."""

_OPEN = 0.3
"""The share of trials drawn from priors whose optimizer is drawn evenly."""

_FALL = 0.6
"""How much less often each optimizer is drawn than the one whose best trial is just ahead."""

_YOUNG, _GROWN = 20, 60
"""Trials between which the share of those drawn near the best doubles."""

_WIDTHS = (0.1, 0.03)
"""Standard deviations of a point's moves, as fractions of ranges, each as often: the wider ones
find better regions, the narrower ones the best point of a region."""

_MUTATION = 0.2
"""The probability that a choice is drawn anew."""

_CANDIDATES = 128
"""Points around a trial, of which the most promising is taken."""

_MODELLED = 100
"""The best trials of an optimizer that its model learns from."""


class _Past:
    """The trials that draws learn from, the best first, and models of them.

    Args:
        study: The study.
        without: The number of a trial to leave out.
    """

    def __init__(self, study: Study, without: int | None = None) -> None:
        trials = study.get_trials(deepcopy=False, states=_STATES)
        others = [trial for trial in trials if trial.number != without]
        sign = 1.0 if study.direction is StudyDirection.MINIMIZE else -1.0
        self.best = _rank([trial for trial in others if _is_evaluated(trial)], sign)
        self.costs = normal_scores(len(self.best))
        self._begun = [trial for trial in others if not _is_evaluated(trial)]
        self._models: dict[Any, TrialModel] = {}

    def model_of(self, centre: FrozenTrial) -> TrialModel:
        """Returns the model of a trial's optimizer, which knows of the points drawn before, too."""
        root = centre.params.get(ROOT)
        if root not in self._models:
            self._models[root] = self._fit(root)
        return self._models[root]

    def _fit(self, root: Any) -> TrialModel:
        places = [i for i, t in enumerate(self.best) if t.params.get(ROOT) == root][:_MODELLED]
        own = [self.best[place] for place in places]
        axes = {name: axis for trial in own for name, axis in trial.distributions.items()}
        axes.pop(ROOT, None)
        points = [_within(axes, trial.params) for trial in own]
        model = TrialModel(axes, points, self.costs[places])
        for trial in self._begun:
            if trial.params.get(ROOT) == root and trial.params:
                model.believe(_within(axes, trial.params))
        return model


def _is_evaluated(trial: FrozenTrial) -> bool:
    return bool(trial.intermediate_values) or trial.value is not None


def _within(axes: Mapping[str, BaseDistribution], params: Mapping[str, Any]) -> dict[str, Any]:
    """Returns the parameters that lie on the axes as they are now."""
    return {n: params[n] for n, axis in axes.items() if n in params and contains(axis, params[n])}


def _on_axes(draw: Draw) -> Callable[[str, Dimension], Value]:
    def draw_on(name: str, axis: Dimension) -> Value:
        if isinstance(axis, Fixed):
            return axis.value
        value: Value = draw(name, to_distribution(axis))
        return value

    return draw_on


def _rank(trials: Sequence[FrozenTrial], sign: float) -> list[FrozenTrial]:
    """Returns trials that have been evaluated, the best first.

    A trial that got further comes first, and of those that got as far the better one. Diverged
    trials come last.
    """

    def key(trial: FrozenTrial) -> tuple[bool, float, float]:
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            return False, -math.inf, sign * trial.value
        last = max(trial.intermediate_values, default=0)
        value = trial.intermediate_values.get(last, trial.value)
        if value is None or math.isnan(value):
            return True, 0.0, 0.0
        return False, -float(last), sign * value

    return sorted(trials, key=key)


def contains(distribution: BaseDistribution, value: Any) -> bool:
    """Returns whether a value is one of a distribution's."""
    try:
        return bool(distribution._contains(distribution.to_internal_repr(value)))  # noqa: SLF001
    except ValueError:  # no choice of a category
        return False


def draw_evenly(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    """Returns a value of a distribution; all are as likely, on the scale that it is searched on.

    Raises:
        TypeError: If it is none of Optuna's distributions.
    """
    return from_unit(distribution, float(rng.random()))


def _draw_from(
    prior: LogNormalPrior, distribution: BaseDistribution, rng: np.random.Generator
) -> Any:
    """Returns a value of a range, as a prior has it; where it hardly meets the range, evenly."""
    if isinstance(distribution, FloatDistribution | IntDistribution) and distribution.low > 0:
        for _ in range(_TRIES):
            value = 10 ** float(rng.normal(prior.mean, prior.std))
            if distribution.low <= value <= distribution.high:
                return nearest(distribution, value)
    return draw_evenly(distribution, rng)


_TRIES = 50


def vary(
    value: Any, distribution: BaseDistribution, rng: np.random.Generator, widths: Vector
) -> Vector:
    """Returns places near a value's on its axis: numbers moved a little, choices mostly kept.

    Args:
        value: The value.
        distribution: Its distribution.
        rng: The source of the moves.
        widths: The standard deviation of each move, as a fraction of the range. A move over an end
            of the range stops there.

    Returns:
        As many places as there are widths, each in [0, 1], for :func:`from_unit`.
    """
    at = np.full(len(widths), to_unit(distribution, value))
    if isinstance(distribution, CategoricalDistribution):
        anew = rng.random(len(widths)) < _MUTATION
        return np.where(anew, rng.random(len(widths)), at)
    return np.clip(at + widths * rng.standard_normal(len(widths)), 0.0, 1.0)
