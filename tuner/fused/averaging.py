"""The averages of the weights of lanes: they follow training, and lanes are evaluated by them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray

from tuner.domain.catalog.averages import NO_AVERAGE, start_step
from tuner.domain.trials import TrialConfig
from tuner.fused.lane_state import LaneState
from tuner.fused.model import FusedModel
from tuner.training.loop import Parts
from tuner.training.seeds import BatchOrder, derive_seed, seeded
from tuner.training.workload import Batch


class LaneAveraging:
    """Keeps the averages of those lanes that average their weights.

    Args:
        model: The study's model, fused.
        configs: The configurations of the lanes.
        total_steps: Steps of a full trial.
        order: The examples that each step trains on.
    """

    def __init__(
        self,
        model: FusedModel,
        configs: Sequence[TrialConfig],
        total_steps: int,
        order: BatchOrder,
    ) -> None:
        self._model = model
        self._times = AveragingTimes(configs, total_steps)
        self._parts = Parts(model.prepared, order, model.spec.train.accumulate)
        self._start = 0
        self._due: list[bool] = []
        self._shares = torch.empty(0)

    def prepare(self, start: int, stop: int, rows: Sequence[int], state: LaneState) -> None:
        """Works out the shares by which averages move over some steps.

        Args:
            start: The first step, from 0.
            stop: The first one after.
            rows: The lane that trains in every row of the state.
            state: The lanes.
        """
        if state.average is None:
            return
        by_row = self._times.shares(start, stop)[:, list(rows)]
        due = [bool(row.any()) for row in by_row]
        self._start, self._due = start, due
        self._shares = torch.from_numpy(by_row).unsqueeze(-1).to(state.p)

    def follow(self, state: LaneState, step: int) -> None:
        """Moves the averages to the weights, in place, where that is due after a step, from 0."""
        if state.average is not None and self._due[step - self._start]:
            state.average.lerp_(state.p, self._shares[step - self._start])

    def begun(self, taken: int) -> list[int]:
        """Returns the lanes that have an average after a number of steps."""
        return self._times.begun(taken)

    def held(
        self,
        state: LaneState,
        rows: Sequence[int],
        on_part: Callable[[], object],
        *,
        weight: float = 1.0,
    ) -> LaneState:
        """Returns lanes whose weights are their averages, or lie between these and their own.

        Args:
            state: The lanes; they stay as they are.
            rows: The rows of the lanes that have an average.
            on_part: Called after each part of the training data that is gone through.
            weight: The place on the line from the lanes' own weights (0) to the averages (1).
        """
        if state.average is None or not rows:
            return state
        places = torch.tensor(rows, device=state.p.device)
        p = state.p.index_select(0, places).lerp(state.average.index_select(0, places), weight)
        buffers, norms = state.buffers, self._model.norms
        if norms.needed:
            own = {name: buffer.index_select(0, places) for name, buffer in buffers.items()}
            with seeded(derive_seed(self._model.seed, "norms"), state.p.device):
                own = norms(p, own, self._batches(on_part))
            buffers = {
                name: buffer.index_copy(0, places, own[name]) for name, buffer in buffers.items()
            }
        return dataclasses.replace(state, p=state.p.index_copy(0, places, p), buffers=buffers)

    def _batches(self, on_part: Callable[[], object]) -> Iterator[Batch]:
        for part in self._parts:
            yield part
            on_part()


class AveragingTimes:
    """The steps at which the averages of lanes take weights in, as those of single trials do.

    Args:
        configs: The configurations of the lanes.
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
        """Returns the lanes that have an average after a number of steps."""
        return [lane for lane, start in self._starts.items() if start <= taken]

    def shares(self, start: int, stop: int) -> NDArray[np.float64]:
        """Returns the shares, in [0, 1], by which averages move to the weights after some steps.

        An exponential average moves by 1 − decay (Polyak and Juditsky, 1992); the mean of n + 1
        weights moves by 1/(n + 1) (Izmailov et al., 2018, algorithm 1). The first weights become
        the average.

        Args:
            start: The first step, from 0.
            stop: The first one after.

        Returns:
            An array of shape (stop − start, lanes), 0 where no weights are taken in.

        >>> from tuner.domain.catalog.averages import AVERAGES
        >>> values = AVERAGES["swa"].decode({"start": 0.5})
        >>> config = TrialConfig("sgd", {}, "constant", {}, 32, average="swa",
        ...     average_values=values)
        >>> AveragingTimes([config], 6).shares(0, 6)[:, 0].round(3).tolist()
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
