"""Draws many proposals from one fit of TPE, for the trials of a cohort.

Optuna's own sampler fits anew for every trial and offers no other way, so its private parts are
used here; constraints.txt pins their version.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler, TPESampler
from optuna.samplers._tpe.parzen_estimator import _ParzenEstimator
from optuna.samplers._tpe.probability_distributions import _BatchedCategoricalDistributions
from optuna.samplers._tpe.sampler import _split_trials, default_gamma
from optuna.search_space.group_decomposed import _GroupDecomposedSearchSpace
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tuner.domain.catalog.dimensions import Dimension, Fixed, Value
from tuner.search.distributions import to_distribution

Points = npt.NDArray[np.float64]

_LEARNED_FROM = (TrialState.COMPLETE, TrialState.PRUNED)

_STARTUP = 10
"""Trials before there is anything to fit, as in Optuna."""

_CANDIDATES = 4
"""Candidates of one draw. Optuna has 24 for its next trial; as many for each trial of a cohort
would have all of these crowd around the best point of one fit."""


@runtime_checkable
class DrawsMany(Protocol):
    """A sampler that draws the trials of a cohort all at once."""

    def draw_many(self, study: Study) -> Iterator[Callable[[str, Dimension], Value]]:
        """Yields functions that each draw one point, all from the study as it is now."""
        ...


class BatchSampler(TPESampler):
    """Optuna's multivariate TPE over groups, which can also draw many points from one fit.

    Args:
        seed: The seed of all draws.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed, multivariate=True, group=True)
        self._group_decomposed_search_space = _Groups()
        self._fallback = RandomSampler(seed=seed)
        self._lesson: tuple[int, _Lesson] | None = None

    def draw_many(self, study: Study) -> Iterator[Callable[[str, Dimension], Value]]:
        """Yields functions that each draw one point, all from one fit to the study as it is now.

        Args:
            study: The study to learn from.

        Yields:
            A function that returns the point's value for a name and its axis.
        """
        parts = self._fit(study)
        while True:
            yield _Point(self._fallback, study, parts)

    def _fit(self, study: Study) -> dict[str, _Part]:
        """Returns the part of the space that each parameter belongs to, by its name."""
        trials = study.get_trials(deepcopy=False, states=_LEARNED_FROM)
        if len(trials) < _STARTUP:
            return {}
        # Optuna looks at the study alone, here and below.
        self.infer_relative_search_space(study, None)  # type: ignore[arg-type]
        lesson = _Lesson(study, trials)
        parts: dict[str, _Part] = {}
        for found in self._search_space_group.search_spaces:  # type: ignore[union-attr]
            space = {name: axis for name, axis in sorted(found.items()) if not axis.single()}
            if space:
                part = _Part(self, space, lesson)
                parts |= dict.fromkeys(space, part)
        return parts

    def _sample(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Returns a point of a part of the space; the past is split but once a question."""
        if self._lesson is None or self._lesson[0] != trial._trial_id:  # noqa: SLF001
            trials = study._get_trials(deepcopy=False, states=_LEARNED_FROM, use_cache=True)  # noqa: SLF001
            self._lesson = trial._trial_id, _Lesson(study, trials)  # noqa: SLF001
        below, above = (
            _ParzenEstimator(
                dict(zip(search_space, points.T, strict=True)),
                search_space,
                self._parzen_estimator_parameters,
            )
            for points in self._lesson[1].observe(search_space)
        )
        points = below.sample(self._rng.rng, self._n_ei_candidates)
        chosen = self._compare(points, self._compute_acquisition_func(points, below, above))
        return {name: axis.to_external_repr(chosen[name]) for name, axis in search_space.items()}


class _Groups(_GroupDecomposedSearchSpace):
    """The parts of the space whose parameters occur together; Optuna's, which looks at all anew.

    Trials with the same parameters as an earlier one part nothing further.
    """

    def __init__(self) -> None:
        super().__init__(include_pruned=True)
        self._seen: set[frozenset[str]] = set()

    def calculate(self, study: Study, use_cache: bool = False) -> Any:
        """Returns the parts."""
        trials = study._get_trials(deepcopy=False, states=_LEARNED_FROM, use_cache=use_cache)  # noqa: SLF001
        for trial in trials:
            names = frozenset(trial.distributions)
            if names not in self._seen:
                self._seen.add(names)
                self._search_space.add_distributions(trial.distributions)
        return self._search_space


class _Lesson:
    """The past as TPE sees it at one moment: the good trials, and the others."""

    def __init__(self, study: Study, trials: list[FrozenTrial]) -> None:
        self._sides = tuple(
            _group_by_parameter(side)
            for side in _split_trials(study, trials, default_gamma(len(trials)))
        )

    def observe(self, space: Mapping[str, BaseDistribution]) -> tuple[Points, ...]:
        """Returns two matrices of points: of the good, and of the other trials in a space."""
        return tuple(_observe(side, space) for side in self._sides)


def _group_by_parameter(trials: list[FrozenTrial]) -> dict[str, list[dict[str, Any]]]:
    """Returns, for each name of a parameter, the parameters of the trials that have it."""
    found: dict[str, list[dict[str, Any]]] = {}
    for trial in trials:
        params = trial.params
        for name in params:
            found.setdefault(name, []).append(params)
    return found


def _observe(
    side: Mapping[str, list[dict[str, Any]]], space: Mapping[str, BaseDistribution]
) -> Points:
    having = side.get(next(iter(space)), [])
    rows = [
        [axis.to_internal_repr(params[name]) for name, axis in space.items()]
        for params in having
        if space.keys() <= params.keys()
    ]
    return np.array(rows, dtype=float).reshape(-1, len(space))


def draw_evenly(random: RandomSampler, study: Study) -> Iterator[Callable[[str, Dimension], Value]]:
    """Yields functions as :meth:`BatchSampler.draw_many` does, which draw points evenly.

    Args:
        random: The sampler that draws.
        study: Any study; the sampler asks for one.
    """
    while True:
        yield _Point(random, study, {})


class _Part:
    """A part of the space whose parameters are drawn together.

    Points that have been drawn count as bad trials for the draws after them, or lanes would crowd
    around the best point of one fit.
    """

    def __init__(
        self, sampler: BatchSampler, space: Mapping[str, BaseDistribution], lesson: _Lesson
    ) -> None:
        self._rng = sampler._rng.rng  # noqa: SLF001
        self._space = dict(space)
        self._sampler = sampler
        self._lesson = lesson
        self._good: Any = None
        self._bad_points: list[list[float]] = []
        self._count = 0
        self._waiting: list[dict[str, Value]] = []

    def draw(self) -> dict[str, Value]:
        """Returns one point of the part."""
        if not self._waiting:
            self._waiting = self._draw_some()
        return self._waiting.pop()

    def _draw_some(self) -> list[dict[str, Value]]:
        """Returns points drawn at once: one at first, and then ever more."""
        if self._good is None:
            below, above = self._lesson.observe(self._space)
            self._good, self._bad_points = self._fit(below), above.tolist()
        draws = max(1, self._count // 2)
        self._count += draws
        points = _sample(self._good, self._rng, draws * _CANDIDATES)
        bad = self._fit(np.array(self._bad_points).reshape(-1, len(self._space)))
        gains = (self._good.log_pdf(points) - bad.log_pdf(points)).reshape(draws, _CANDIDATES)
        chosen = points[np.arange(draws) * _CANDIDATES + gains.argmax(1)].tolist()
        self._bad_points += chosen
        return [
            {
                name: axis.to_external_repr(value)
                for (name, axis), value in zip(self._space.items(), point, strict=True)
            }
            for point in chosen
        ]

    def _fit(self, points: Points) -> Any:
        """Returns the density of points, Optuna's mixture of a kernel for each."""
        estimator = _ParzenEstimator(
            dict(zip(self._space, points.T, strict=True)),
            self._space,
            self._sampler._parzen_estimator_parameters,  # noqa: SLF001
        )
        return estimator._mixture_distribution  # noqa: SLF001


def _sample(mixture: Any, rng: np.random.RandomState, count: int) -> Points:
    """Returns points of a mixture, as Optuna's own method does in three times the time."""
    # Not by every sampler, and slow to import.
    from scipy.special import ndtr, ndtri  # noqa: PLC0415

    kernels = rng.choice(len(mixture.weights), p=mixture.weights, size=count)
    columns = []
    for axis in mixture.distributions:
        quantiles = rng.random_sample(count)
        if isinstance(axis, _BatchedCategoricalDistributions):
            edges = axis.weights[kernels].cumsum(axis=1)[:, :-1]
            columns.append((edges < quantiles[:, None]).sum(axis=1))
            continue
        mu, sigma = axis.mu[kernels], axis.sigma[kernels]
        low, high = (ndtr((end - mu) / sigma) for end in (axis.adapted_low, axis.adapted_high))
        values = mu + sigma * ndtri(low + quantiles * (high - low))
        values = np.exp(values) if axis.is_log else values
        if axis.step:
            values = axis.low + np.round((values - axis.low) / axis.step) * axis.step
        columns.append(np.clip(values, axis.low, axis.high))
    return np.stack(columns, axis=1)


class _Point:
    """Draws one point, name by name."""

    def __init__(self, fallback: RandomSampler, study: Study, parts: Mapping[str, _Part]) -> None:
        self._fallback = fallback
        self._study = study
        self._parts = parts
        self._drawn: dict[str, Value] = {}

    def __call__(self, name: str, axis: Dimension) -> Value:
        """Returns the point's value of a parameter."""
        if isinstance(axis, Fixed):
            return axis.value
        if name not in self._drawn and name in self._parts:
            self._drawn |= self._parts[name].draw()
        if name not in self._drawn:
            drawn: Value = self._fallback.sample_independent(
                self._study,
                None,  # type: ignore[arg-type]
                name,
                to_distribution(axis),
            )
            self._drawn[name] = drawn
        return self._drawn[name]
