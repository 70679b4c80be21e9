"""Averages of the weights of many lanes: when each takes these in, and how much of them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tuner.domain.catalog.averages import NO_AVERAGE, start_step
from tuner.domain.trials import TrialConfig


class LaneAverages:
    """When averages of lanes take weights in, as single trials' do; see averages.py.

    Args:
        configs: What the lanes train with.
        total_steps: Steps of a full trial.
    """

    def __init__(self, configs: Sequence[TrialConfig], total_steps: int) -> None:
        own = {
            lane: config.average_values
            for lane, config in enumerate(configs)
            if config.average != NO_AVERAGE
        }
        self._lanes = len(configs)
        self._starts = {lane: start_step(values, total_steps) for lane, values in own.items()}
        self._intervals = {lane: int(values["interval"]) for lane, values in own.items()}
        # An exponential average forgets; the mean of a part of a run has no decay.
        self._decays = {lane: values.get("decay") for lane, values in own.items()}

    def begun(self, taken: int) -> list[int]:
        """Returns the lanes that have an average after so many steps."""
        return [lane for lane, start in self._starts.items() if start <= taken]

    def shares(self, start: int, stop: int) -> NDArray[np.float64]:
        """Returns what averages move by towards the weights after some steps, from 0 to 1.

        Args:
            start: The first step, from 0.
            stop: The first one after.

        Returns:
            An array of shape (stop − start, lanes): 0 where nothing is taken in.

        >>> from tuner.domain.catalog.averages import AVERAGES
        >>> values = AVERAGES["swa"].decode({"start": 0.5})
        >>> config = TrialConfig("sgd", {}, "constant", {}, 32, average="swa",
        ...     average_values=values)
        >>> LaneAverages([config], 6).shares(0, 6)[:, 0].round(3).tolist()
        [0.0, 0.0, 1.0, 0.5, 0.333, 0.25]
        """
        shares = np.zeros((stop - start, self._lanes))
        taken = np.arange(start, stop) + 1
        for lane, first in self._starts.items():
            before, apart = np.divmod(taken - first, self._intervals[lane])
            decay = self._decays[lane]
            later = 1 / np.maximum(before + 1, 1) if decay is None else 1 - float(decay)
            due = (taken >= first) & (apart == 0)
            shares[:, lane] = np.where(due, np.where(before == 0, 1.0, later), 0.0)
        return shares
