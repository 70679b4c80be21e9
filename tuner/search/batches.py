"""Many proposals from one fit: TPE's mixtures are built once, and drawn from for a whole cohort."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import RandomSampler, TPESampler
from optuna.samplers._tpe.sampler import _split_trials, default_gamma
from optuna.study import Study
from optuna.trial import TrialState

from tuner.domain.dimensions import Dimension, Fixed, Value
from tuner.search.distributions import to_distribution

_LEARNED_FROM = (TrialState.COMPLETE, TrialState.PRUNED)

_STARTUP = 10
"""Trials before there is anything to fit, as in Optuna."""

_CANDIDATES = 24
"""Points that compete to be one draw, as in Optuna."""

_AT_ONCE = 4
"""Draws made in one go, since how many of a part are needed turns out as lanes are drawn."""


class BatchSampler(TPESampler):
    """Optuna's multivariate TPE over groups, which can also draw many points from one fit.

    Args:
        seed: Of all draws.
    """

    def __init__(self, seed: int) -> None:
        super().__init__(seed=seed, multivariate=True, group=True)
        self._spare = RandomSampler(seed=seed)

    def draw_many(self, study: Study) -> Iterator[Callable[[str, Dimension], Value]]:
        """Returns one way after another to draw a point, all from the study as it is now.

        Args:
            study: What to learn from.

        Yields:
            A function that gives a value for a name and its axis, one point's at a time.
        """
        parts = self._fit(study)
        while True:
            yield _Point(self._spare, study, parts)

    def _fit(self, study: Study) -> dict[str, _Part]:
        """Returns the part of the space that each parameter belongs to, by its name."""
        trials = study.get_trials(deepcopy=False, states=_LEARNED_FROM)
        if len(trials) < _STARTUP:
            return {}
        self.infer_relative_search_space(study, None)  # type: ignore[arg-type]
        below, above = _split_trials(study, trials, default_gamma(len(trials)))
        parts: dict[str, _Part] = {}
        for found in self._search_space_group.search_spaces:  # type: ignore[union-attr]
            space = {name: axis for name, axis in sorted(found.items()) if not axis.single()}
            if space:
                part = _Part(self, study, space, below, above)
                parts |= dict.fromkeys(space, part)
        return parts


class _Part:
    """A part of the space whose parameters are drawn together."""

    def __init__(
        self,
        sampler: BatchSampler,
        study: Study,
        space: Mapping[str, BaseDistribution],
        below: list[Any],
        above: list[Any],
    ) -> None:
        self._rng = sampler._rng.rng  # noqa: SLF001
        self._space = space
        self._sampler = sampler
        self._study = study
        self._split = ((below, True), (above, False))
        self._mixtures: list[Any] = []
        self._waiting: list[dict[str, Value]] = []

    def draw(self) -> dict[str, Value]:
        """Returns one point of the part."""
        if not self._waiting:
            self._waiting = self._draw_some()
        return self._waiting.pop()

    def _draw_some(self) -> list[dict[str, Value]]:
        if not self._mixtures:
            self._mixtures = [
                self._sampler._build_parzen_estimator(  # noqa: SLF001
                    self._study, dict(self._space), trials, handle_below=is_below
                )
                for trials, is_below in self._split
            ]
        good, bad = self._mixtures
        points = good.sample(self._rng, _CANDIDATES * _AT_ONCE)
        gains = (good.log_pdf(points) - bad.log_pdf(points)).reshape(_AT_ONCE, _CANDIDATES)
        chosen = np.arange(_AT_ONCE) * _CANDIDATES + gains.argmax(1)
        return [
            {
                name: axis.to_external_repr(points[name][index].item())
                for name, axis in self._space.items()
            }
            for index in chosen
        ]


class _Point:
    """One point as it is drawn, name by name."""

    def __init__(self, spare: RandomSampler, study: Study, parts: Mapping[str, _Part]) -> None:
        self._spare = spare
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
            drawn: Value = self._spare.sample_independent(
                self._study,
                None,  # type: ignore[arg-type]
                name,
                to_distribution(axis),
            )
            self._drawn[name] = drawn
        return self._drawn[name]
