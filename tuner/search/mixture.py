"""A sampler that draws from beliefs about good values, from near the best trials, and evenly.

Each trial is drawn in one of three ways: evenly from the whole space, so that nothing is ruled out;
from the priors of the optimizers that lead; or near one of the best trials so far. It is the
mixture of Mallik et al., "PriorBand" (NeurIPS 2023), with weights that `benchmarks.search` chose.
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
            best = _rank(study, without=trial.number)
            self._drawing = trial._trial_id, self._choose_way(best)  # noqa: SLF001
        return self._drawing[1](param_name, param_distribution)

    def draw_many(self, study: Study) -> Iterator[Callable[[str, Dimension], Value]]:
        """Yields functions that each draw one point, all from the study as it is now.

        Args:
            study: The study to learn from.

        Yields:
            A function that returns the point's value for a name and its axis.
        """
        best = _rank(study)
        while True:
            yield _on_axes(self._choose_way(best))

    def _choose_way(self, best: Sequence[FrozenTrial]) -> Draw:
        """Returns the way in which one trial is drawn.

        Args:
            best: The trials so far, the best first.
        """
        luck = self._rng.random()
        if luck < self._evenly:
            return lambda name, distribution: draw_evenly(distribution, self._rng)
        grown = min(max((len(best) - _YOUNG) / (_GROWN - _YOUNG), 0.0), 1.0)
        if luck < self._evenly + self._near * (1 + grown) and len(best) >= self._startup:
            return self._draw_near(best)
        return self._draw_from_priors(best)

    def _draw_near(self, best: Sequence[FrozenTrial]) -> Draw:
        ranks = np.arange(min(_BEST, len(best)))
        weights = 0.5**ranks
        near = best[int(self._rng.choice(ranks, p=weights / weights.sum()))].params
        width = _WIDTHS[int(self._rng.integers(len(_WIDTHS)))]

        def draw(name: str, distribution: BaseDistribution) -> Any:
            if name not in near or not distribution._contains(  # noqa: SLF001
                distribution.to_internal_repr(near[name])
            ):
                return draw_evenly(distribution, self._rng)
            if name == ROOT:
                return near[name]
            return vary(near[name], distribution, self._rng, width)

        return draw

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
"""Standard deviations of a trial's moves, as fractions of ranges, each as often: the wider ones
find better regions, the narrower ones the best point of a region."""

_MUTATION = 0.2
"""The probability that a choice is drawn anew."""


def _on_axes(draw: Draw) -> Callable[[str, Dimension], Value]:
    def draw_on(name: str, axis: Dimension) -> Value:
        if isinstance(axis, Fixed):
            return axis.value
        value: Value = draw(name, to_distribution(axis))
        return value

    return draw_on


def _rank(study: Study, without: int | None = None) -> list[FrozenTrial]:
    """Returns the trials that have been evaluated, but for one by its number, the best first.

    A trial that got further comes first, and of those that got as far the better one. Diverged
    trials come last.
    """
    sign = 1.0 if study.direction is StudyDirection.MINIMIZE else -1.0

    def key(trial: FrozenTrial) -> tuple[bool, float, float]:
        if trial.state is TrialState.COMPLETE and trial.value is not None:
            return False, -math.inf, sign * trial.value
        last = max(trial.intermediate_values, default=0)
        value = trial.intermediate_values.get(last, trial.value)
        if value is None or math.isnan(value):
            return True, 0.0, 0.0
        return False, -float(last), sign * value

    trials = study.get_trials(deepcopy=False, states=_STATES)
    seen = (t for t in trials if t.intermediate_values or t.value is not None)
    return sorted((t for t in seen if t.number != without), key=key)


def _ends(distribution: FloatDistribution | IntDistribution) -> tuple[float, float]:
    """Returns the ends of a range, as logarithms where it is logarithmic."""
    low, high = float(distribution.low), float(distribution.high)
    return (math.log(low), math.log(high)) if distribution.log else (low, high)


def _place(at: float, distribution: FloatDistribution | IntDistribution) -> float | int:
    """Returns the value of a range at a place between its :func:`_ends`."""
    value = math.exp(at) if distribution.log else at
    if distribution.step:
        steps = round((value - distribution.low) / distribution.step)
        value = distribution.low + steps * distribution.step
    value = min(max(value, distribution.low), distribution.high)
    return int(value) if isinstance(distribution, IntDistribution) else float(value)


def draw_evenly(distribution: BaseDistribution, rng: np.random.Generator) -> Any:
    """Returns a value of a distribution; all are as likely, on the scale that it is searched on.

    Raises:
        TypeError: If it is none of Optuna's distributions.
    """
    match distribution:
        case CategoricalDistribution():
            return distribution.choices[int(rng.integers(len(distribution.choices)))]
        case FloatDistribution() | IntDistribution():
            return _place(float(rng.uniform(*_ends(distribution))), distribution)
    raise TypeError(f"{type(distribution).__name__} is none of Optuna's distributions")


def _draw_from(
    prior: LogNormalPrior, distribution: BaseDistribution, rng: np.random.Generator
) -> Any:
    """Returns a value of a range, as a prior has it; where it hardly meets the range, evenly."""
    if isinstance(distribution, FloatDistribution | IntDistribution) and distribution.low > 0:
        for _ in range(_TRIES):
            value = 10 ** float(rng.normal(prior.mean, prior.std))
            if distribution.low <= value <= distribution.high:
                return _place(math.log(value) if distribution.log else value, distribution)
    return draw_evenly(distribution, rng)


_TRIES = 50


def vary(
    value: Any, distribution: BaseDistribution, rng: np.random.Generator, width: float = _WIDTHS[0]
) -> Any:
    """Returns a value near another: a number moved a little, a choice mostly kept.

    Args:
        value: The other.
        distribution: The distribution of both.
        rng: The source of the move.
        width: The standard deviation of a number's moves, as a fraction of its range.
    """
    if not isinstance(distribution, FloatDistribution | IntDistribution):
        return draw_evenly(distribution, rng) if rng.random() < _MUTATION else value
    low, high = _ends(distribution)
    at = math.log(value) if distribution.log else float(value)
    at += float(rng.normal(0, width)) * (high - low)
    # A move over an end of the range goes back from there.
    at = 2 * low - at if at < low else 2 * high - at if at > high else at
    return _place(min(max(at, low), high), distribution)
