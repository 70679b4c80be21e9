"""The averages of a cohort's lanes: followed as they train, and what they are evaluated by."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import torch

from tuner.domain.trials import TrialConfig
from tuner.fused.lane_averages import LaneAverages
from tuner.fused.lane_state import LaneState
from tuner.fused.model import FusedModel
from tuner.training.loop import Parts
from tuner.training.seeds import BatchOrder, derive_seed, seeded
from tuner.training.workload import Batch


class LaneAveraging:
    """The averages of those lanes that average their weights, if any do.

    Args:
        model: The study's model, fused.
        configs: What the lanes train with.
        total_steps: Steps of a full trial.
        order: Which examples each step trains on.
    """

    def __init__(
        self,
        model: FusedModel,
        configs: Sequence[TrialConfig],
        total_steps: int,
        order: BatchOrder,
    ) -> None:
        self._model = model
        self._averages = LaneAverages(configs, total_steps)
        self._parts = Parts(model.prepared, order, model.spec.train.accumulate)
        self._start = 0
        self._due: list[bool] = []
        self._shares = torch.empty(0)

    def settle(self, start: int, stop: int, rows: Sequence[int], state: LaneState) -> None:
        """Works out what averages take in over some steps.

        Args:
            start: The first step, from 0.
            stop: The first one after.
            rows: The lane that trains in every row of the state.
            state: The lanes.
        """
        if state.average is None:
            return
        by_row = self._averages.shares(start, stop)[:, list(rows)]
        due = [bool(row.any()) for row in by_row]
        self._start, self._due = start, due
        self._shares = torch.from_numpy(by_row).unsqueeze(-1).to(state.p)

    def follow(self, state: LaneState, step: int) -> None:
        """Takes the weights in, in place, where that is due after a step, from 0."""
        if state.average is not None and self._due[step - self._start]:
            state.average.lerp_(state.p, self._shares[step - self._start])

    def begun(self, taken: int) -> list[int]:
        """Returns the lanes that have an average after so many steps."""
        return self._averages.begun(taken)

    def held(
        self,
        state: LaneState,
        rows: Sequence[int],
        on_part: Callable[[], object],
        *,
        weight: float = 1.0,
    ) -> LaneState:
        """Returns lanes with the weights that they are evaluated by.

        Args:
            state: The lanes; they stay as they are.
            rows: Those that have an average.
            on_part: Called after each part of the training data that is gone through.
            weight: Where on the line from the lanes' own weights (0) to the averages (1).
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
