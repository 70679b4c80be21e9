"""Trains configurations of a workload to their full length, as lanes of cohorts."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from benchmarks.search.spaces import whole_space, with_length
from benchmarks.search.workloads import SmallWorkload
from tuner.domain.catalog.dimensions import Value
from tuner.domain.trials import Decoder, Proposal
from tuner.fused.cohort import Cohort
from tuner.fused.lane import LaneStart
from tuner.fused.model import FusedModel
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.rehearsal import Rehearsal
from tuner.training.reporting import Evaluation

Curves = npt.NDArray[np.float64]
Params = Mapping[str, Value]

_LANES = 64


class Trainer:
    """Trains configurations of a workload; its steps are compiled once.

    Args:
        workload: The workload.
        seed: The seed of weights and batches, the same for all configurations.
    """

    def __init__(self, workload: SmallWorkload, seed: int = 0) -> None:
        torch.set_num_threads(1)
        spec = whole_space(workload.batch_size, seed)
        self._spec = spec
        self._decoder = Decoder(spec)
        prepared = PreparedWorkload.prepare(workload, torch.device("cpu"), "float32")
        self._model = FusedModel(prepared, spec, compiled=True)

    def train(self, points: Sequence[Params], steps: int, evaluations: int) -> Curves:
        """Returns the validation losses of configurations at evenly spread evaluations.

        Args:
            points: The configurations, as points of :func:`whole_space`.
            steps: Optimizer steps of each.
            evaluations: Evaluations of each.

        Returns:
            Losses of shape (configurations, evaluations), NaN from where on one has diverged.
        """
        model = copy.copy(self._model)  # the compiled steps are shared
        model.spec = with_length(self._spec, steps, evaluations)
        parts = []
        for start in range(0, len(points), _LANES):
            chunk = points[start : start + _LANES]
            configs = [self._decoder.decode(Proposal(dict(point))) for point in chunk]
            reporter = _Curves(len(chunk), evaluations)
            Cohort(model, [LaneStart(config) for config in configs], reporter).train()
            parts.append(reporter.curves)
        return np.concatenate(parts)


class _Curves(Rehearsal):
    """Keeps the losses of lanes, all of which go on."""

    def __init__(self, lanes: int, evaluations: int) -> None:
        super().__init__()
        self.curves = np.full((lanes, evaluations), math.nan)

    def report(self, evaluations: Sequence[Evaluation | None]) -> Sequence[bool]:
        """Takes an evaluation of every lane; all go on."""
        for lane, found in enumerate(evaluations):
            if found is not None:
                self.curves[lane, found.index - 1] = found.metrics["val_loss"]
        return [True] * len(evaluations)
