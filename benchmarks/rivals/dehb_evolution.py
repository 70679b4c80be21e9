"""DEHB: Hyperband whose rungs evolve by differential evolution."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from dehb import DEHB
from loguru import logger

from benchmarks.rivals.asking import Searched, searched_axes
from benchmarks.search.spaces import EVALUATIONS
from tuner.domain.catalog.dimensions import Choice, Value
from tuner.domain.spec import StudySpec
from tuner.search.knowledge import Knowledge


class Dehb:
    """Holds a search of DEHB over the unit cube, which is how it sees every space.

    Args:
        spec: The space, given flat.
        seed: Its seed.
    """

    def __init__(self, spec: StudySpec, seed: int) -> None:
        self._axes = searched_axes(spec)
        self._search = DEHB(
            dimensions=len(self._axes),
            min_fidelity=1,
            max_fidelity=EVALUATIONS,
            n_workers=1,
            seed=seed,
            save_freq="end",
            output_path=tempfile.mkdtemp(prefix="tuner-dehb-"),
        )
        logger.remove()
        self._job: dict[str, Any] = {}

    def ask(self) -> tuple[Mapping[str, Value], int]:
        """Returns what it wants next: a configuration up to a rung."""
        self._job = self._search.ask()
        return place(self._job["config"], self._axes), round(self._job["fidelity"])

    def tell(self, loss: float) -> None:
        """Takes the loss there."""
        self._search.tell(self._job, {"fitness": float(loss), "cost": 1.0})


def start(spec: StudySpec, seed: int, knowledge: Knowledge) -> Dehb:
    """Returns DEHB with its own constants."""
    return Dehb(spec, seed)


def place(point: Sequence[float], axes: Mapping[str, Searched]) -> dict[str, Value]:
    """Returns the values of axes at a point of the unit cube."""
    return {
        name: _place(share, axis) for share, (name, axis) in zip(point, axes.items(), strict=True)
    }


def _place(share: float, axis: Searched) -> Value:
    if isinstance(axis, Choice):
        return axis.choices[min(int(share * len(axis.choices)), len(axis.choices) - 1)]
    if axis.log:
        low, high = math.log(axis.low), math.log(axis.high)
        return min(max(math.exp(low + share * (high - low)), axis.low), axis.high)
    return axis.low + share * (axis.high - axis.low)
