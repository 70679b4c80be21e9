"""Expects of points near good trials how much better they are, from how the trials did.

The model is a Gaussian process over the trials of one optimizer (Rasmussen and Williams, *Gaussian
Processes for Machine Learning*, 2006, algorithm 2.1), with fixed constants: a study has ten or
twenty trials of an optimizer, too few to fit more.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from optuna.distributions import BaseDistribution, CategoricalDistribution
from scipy.special import ndtr, ndtri

from tuner.search.unit_cube import Vector, to_unit

Matrix = npt.NDArray[np.float64]
Columns = Mapping[str, Vector]

_SCALE = 0.3
"""The distance, as a share of a range, over which trials are much alike."""

_APART = 0.3
"""The distance between two trials that differ in a choice alone."""

_NOISE = 0.1
"""The variance that chance has, as a share of the variance between trials."""

_LEAST_SPREAD = 0.3
"""The least standard deviation that trials of an optimizer are taken to have, in normal scores."""


class TrialModel:
    """A model of one optimizer's trials: what a point is expected to cost, and how surely.

    Args:
        space: The distributions by name; trials may lack some of the parameters.
        points: The parameters of the trials.
        costs: Their costs, as :func:`normal_scores` gives them.
    """

    def __init__(
        self,
        space: Mapping[str, BaseDistribution],
        points: Sequence[Mapping[str, Any]],
        costs: Vector,
    ) -> None:
        self._space = dict(space)
        self._known = self._embed(self._to_columns(points), len(points))
        self._mean = float(costs.mean())
        self._spread = max(float(costs.std()), _LEAST_SPREAD)
        self._heights = (costs - self._mean) / self._spread
        self._fit()

    def expect(self, columns: Columns, best: float) -> Vector:
        """Returns by how much points are expected to cost less than the best trial.

        It is the expected improvement of Jones et al., "Efficient Global Optimization of Expensive
        Black-Box Functions" (1998), equation 15.

        Args:
            columns: The points' places by name, as :func:`to_unit` gives them, all of one length.
            best: The cost of the best trial of all.
        """
        count = len(next(iter(columns.values())))
        mean, deviation = self._predict(self._embed(columns, count))
        gap = (best - self._mean) / self._spread - mean
        z = gap / deviation
        density = np.exp(-(z**2) / 2) / math.sqrt(2 * math.pi)
        gain: Vector = self._spread * (gap * ndtr(z) + deviation * density)
        return gain

    def believe(self, params: Mapping[str, Any]) -> None:
        """Takes in a trial whose cost is not known yet, as if it cost what is expected of it.

        So a trial that others train at the same time is not drawn twice (the kriging believer of
        Ginsbourger et al., "Kriging Is Well-Suited to Parallelize Optimization", 2010).
        """
        at = self._embed(self._to_columns([params]), 1)
        mean, _ = self._predict(at)
        self._known = np.concatenate([self._known, at])
        self._heights = np.concatenate([self._heights, mean])
        self._fit()

    def _fit(self) -> None:
        kernel = _kernel(self._known, self._known) + _NOISE * np.eye(len(self._known))
        self._inverse = np.linalg.inv(kernel)
        self._weights = self._inverse @ self._heights

    def _predict(self, at: Matrix) -> tuple[Vector, Vector]:
        """Returns mean and standard deviation of points, in units of the spread."""
        kernel = _kernel(at, self._known)
        variance = 1 - ((kernel @ self._inverse) * kernel).sum(axis=1)
        return kernel @ self._weights, np.sqrt(np.maximum(variance, 1e-9))

    def _to_columns(self, points: Sequence[Mapping[str, Any]]) -> Columns:
        return {
            name: np.array([to_unit(axis, p[name]) if name in p else math.nan for p in points])
            for name, axis in self._space.items()
        }

    def _embed(self, columns: Columns, count: int) -> Matrix:
        """Returns points as vectors whose distances tell how much alike they are.

        A number that a point lacks is taken to be in the middle; a choice is one of several corners
        that lie equally far apart.
        """
        parts = []
        for name, axis in self._space.items():
            own = columns.get(name, np.full(count, math.nan))
            if isinstance(axis, CategoricalDistribution):
                corners = np.arange(len(axis.choices))
                chosen = np.floor(own * len(axis.choices))
                parts.append((chosen[:, None] == corners) * (_APART / math.sqrt(2)))
            else:
                parts.append(np.nan_to_num(own, nan=0.5)[:, None])
        return np.concatenate(parts, axis=1) if parts else np.zeros((count, 1))


def normal_scores(count: int) -> Vector:
    """Returns the costs of ranked trials: normal quantiles, so that only ranks count.

    Args:
        count: How many trials there are.

    >>> normal_scores(3).round(2).tolist()
    [-0.97, 0.0, 0.97]
    """
    scores: Vector = ndtri((np.arange(count) + 0.5) / count)
    return scores


def _kernel(one: Matrix, other: Matrix) -> Matrix:
    """Returns Matérn's kernel of order 5/2 between rows."""
    squares = (one**2).sum(axis=1)[:, None] + (other**2).sum(axis=1) - 2 * one @ other.T
    distance = np.sqrt(5 * np.maximum(squares, 0.0)) / _SCALE
    kernel: Matrix = (1 + distance + distance**2 / 3) * np.exp(-distance)
    return kernel
