"""Records steps of many lanes as CUDA graphs, so that a GPU launches a step at once."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tuner.fused.lane_state import LaneState
from tuner.training.device import is_out_of_memory
from tuner.training.workload import Batch

Step = Callable[[LaneState, Tensor, Batch, int], Tensor]
"""Trains lanes by one step: see :class:`tuner.fused.step.FusedStep`."""

Record = Callable[[Callable[[], Tensor]], tuple[Callable[[], object], Tensor]]
"""Records the kernels that a function would launch, without running them.

It returns a function that runs them, as often as it is called, and the tensor they write to.
"""

_CALLS = 3
"""Steps taken before one is recorded: they compile and allocate, and lanes may not last longer."""


def captured(step: Step, device: torch.device) -> Step:
    """Returns a step that is launched as one where the device is a GPU of CUDA."""
    return CapturedStep(step, _Recorder(device)) if device.type == "cuda" else step


class CapturedStep:
    """Takes steps of the same lanes by replaying one of them.

    Launching the kernels of a step one after the other takes longer than the kernels of a small
    model. A recorded step reads and writes lanes at fixed addresses; coefficients and batches are
    copied to the addresses that it reads. When lanes move, as once some have been dropped, a few
    steps run unrecorded, and then one is recorded anew.

    Args:
        step: Takes a step. It must depend on its tensors alone, and not wait for the device.
        record: Records it.
    """

    def __init__(self, step: Step, record: Record) -> None:
        self._step, self._record = step, record
        self._where: tuple[Any, ...] = ()
        self._calls = 0
        self._works = True
        self._inputs: list[Tensor] = []
        self._replay: Callable[[], object] | None = None
        self._losses = torch.empty(0)

    def __call__(
        self, state: LaneState, coefficients: Tensor, batch: Batch, muon: int = 0
    ) -> Tensor:
        """Takes a step in place; see :meth:`tuner.fused.step.FusedStep.__call__`."""
        if not self._works:
            return self._step(state, coefficients, batch, muon)
        given = [coefficients, *batch]
        places = [tensor.data_ptr() for tensor in state.tensors]
        where = (muon, *places, *(tensor.shape for tensor in given))
        if where != self._where:
            self._where, self._calls, self._replay = where, 0, None
        self._calls += 1
        if self._calls == _CALLS + 1:
            self._capture(state, given, muon)
        if self._replay is None:
            return self._step(state, coefficients, batch, muon)
        for own, tensor in zip(self._inputs, given, strict=True):
            own.copy_(tensor)
        self._replay()
        return self._losses.clone()

    def _capture(self, state: LaneState, given: list[Tensor], muon: int) -> None:
        coefficients, *batch = self._inputs = [tensor.clone() for tensor in given]
        try:
            self._replay, self._losses = self._record(
                lambda: self._step(state, coefficients, tuple(batch), muon)
            )
        except RuntimeError as error:  # torch's, of operations that cannot be captured
            if is_out_of_memory(error):
                raise  # fewer lanes are captured, where there was no room for these
            self._works = False
            reason = str(error).strip().splitlines() or [type(error).__name__]
            warnings.warn(
                "Fused training goes on without CUDA graphs, since a step cannot be captured: "
                f"{reason[0]:.200}. To have it faster, see that loss() does not wait for the GPU, "
                "as .item() and tensors brought from the CPU do.",
                stacklevel=2,
            )


class _Recorder:
    """Records on a GPU of CUDA.

    The last graph is kept until the next is recorded, which then uses its memory again.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = torch.cuda.Stream(device)
        self._graph: torch.cuda.CUDAGraph | None = None
        self._failed: list[torch.cuda.CUDAGraph] = []
        self._nothing = torch.zeros(1, device=device)

    def __call__(self, function: Callable[[], Tensor]) -> tuple[Callable[[], object], Tensor]:
        graph = torch.cuda.CUDAGraph()
        pool = None if self._graph is None else self._graph.pool()
        torch.cuda.synchronize(self._device)
        with torch.cuda.stream(self._stream):
            try:
                # Other threads, such as that of the worker's heartbeat, are not affected.
                graph.capture_begin(pool, capture_error_mode="thread_local")
                result = function()
                graph.capture_end()
            except BaseException:
                self._give_up(graph)
                raise
        self._graph = graph
        return graph.replay, result

    def _give_up(self, graph: torch.cuda.CUDAGraph) -> None:
        """Ends a recording that has failed, so that random numbers can be drawn again.

        Where CUDA has taken a recording back, torch still counts its generator among those that
        record, and refuses to draw outside: until one has come to its end. It also goes on asking
        the graph where its memory is, which must not be gone.
        """
        self._failed.append(graph)
        with contextlib.suppress(RuntimeError):  # it may have ended, or not have begun
            graph.capture_end()
        empty = torch.cuda.CUDAGraph()
        with contextlib.suppress(RuntimeError):  # the first error is the one to tell
            empty.capture_begin(capture_error_mode="thread_local")
            self._nothing.zero_()
            empty.capture_end()
