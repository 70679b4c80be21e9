"""Tells the curve of any configuration from a table of trained ones.

A curve is averaged over the trained configurations of the same optimizer, near ones most, by
kernel regression (a Gaussian process with fixed length scales; Rasmussen and Williams, 2006,
equation 2.25). What is averaged is the logarithm of a loss's place among all losses of the table,
so that neither a divergence nor the last decimals of a plateau decide.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.search.spaces import EVALUATIONS, whole_space
from benchmarks.search.tables import Table
from benchmarks.search.training import Curves, Params

Matrix = npt.NDArray[np.float64]

_NOISE = 0.05
_FLOOR = 1e-3
_SCALE = 2.0
"""Length scales are this many times those of :func:`describe`; by five-fold validation on parabola
(rank correlation .925 of all, .479 of the best fifth; trees have .920 and .466)."""


class Surrogate:
    """Predicts the curves of configurations of a workload at one length.

    Args:
        table: The trained configurations.
        steps: The length.
    """

    def __init__(self, table: Table, steps: int) -> None:
        curves = table.curves[steps]
        every = curves.shape[1] // EVALUATIONS
        curves = curves[:, every - 1 :: every]
        finite = np.isfinite(curves)
        self._losses = np.sort(curves[finite])
        self._places = np.linspace(0, 1, len(self._losses))
        places = np.searchsorted(self._losses, curves) / len(self._losses)
        targets = np.log(np.where(finite, places, 1.0) + _FLOOR)
        self._optimizers = {}
        every_point = np.array([describe(point) for point in table.points])
        for name in whole_space().space.optimizers:
            own = np.array([point["optimizer"] == name for point in table.points])
            known, goals = every_point[own], targets[own]
            mean = goals.mean(0)
            kernel = _kernel(known, known) + _NOISE * np.eye(len(known))
            self._optimizers[name] = known, mean, np.linalg.solve(kernel, goals - mean)
        self._diverged = math.log(1.0 + _FLOOR) - 0.02

    def curves_of(self, points: Sequence[Params]) -> Curves:
        """Returns the losses of configurations, NaN from where on one diverges.

        Args:
            points: The configurations.

        Returns:
            An array of shape (configurations, evaluations).
        """
        places = np.empty((len(points), EVALUATIONS))
        for row, point in enumerate(points):
            known, mean, weights = self._optimizers[str(point["optimizer"])]
            places[row] = mean + _kernel(np.array([describe(point)]), known)[0] @ weights
        diverged = np.maximum.accumulate(places > self._diverged, axis=1)
        losses = np.interp(np.exp(places) - _FLOOR, self._places, self._losses)
        return np.where(diverged, np.nan, losses)


def describe(point: Params) -> list[float]:
    """Returns a configuration as numbers, each in units of its own length scale."""
    number = {name.split(".", 1)[-1]: value for name, value in point.items()}
    complement = [float(v) for k, v in number.items() if k.startswith("one_minus_")]
    schedule = str(point["schedule"])
    final = float(number["final_ratio"]) if "final_ratio" in number else 3e-4
    return [
        *(float(schedule == name) / 1.2 for name in whole_space().space.schedules),
        math.log10(float(number["lr"])) / 0.6,
        math.log10(complement[0] if complement else 0.1) / 0.7,
        math.log10(float(number.get("adamw_lr", 1e-2))) / 0.8,
        math.log10(float(number.get("weight_decay", 1e-2))) / 1.2,
        float(number.get("warmup", 0.0)) / 0.15,
        math.log10(float(number.get("gamma", 0.1))),
        float(number.get("period", 0.5)) / 0.4,
        float(number.get("cooldown", 0.2)) / 0.4,
        math.log10(max(final, 3e-4)) / 1.5,
    ]


def _kernel(one: Matrix, other: Matrix) -> Matrix:
    """Returns Matérn's kernel of order 3/2 between rows."""
    gaps = one[:, None] - other[None]
    distance = math.sqrt(3) * np.sqrt((gaps**2).sum(-1)) / _SCALE
    kernel: Matrix = (1 + distance) * np.exp(-distance)
    return kernel
