"""The training step and the evaluation of many models, each as one function of tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from tuner.fused.compiler import Dims, Function, Make
from tuner.fused.lane_state import LaneState, Layout, Segment
from tuner.fused.lane_update import Kind, clip_lanes, move_matrices, update_lanes
from tuner.fused.yellowfin import tune_lanes
from tuner.training.device import autocast
from tuner.training.forks import leave_if_forked
from tuner.training.loop import split
from tuner.training.prepared_workload import check_metrics
from tuner.training.workload import Batch, Workload

_ROWS = 2
"""The dimension of coefficients that lanes are along."""


class _Bound(nn.Module):
    """A method of a workload as the forward pass of a module that holds its model."""

    def __init__(self, method: Callable[[nn.Module, Batch], Any], model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._method = method

    def forward(self, batch: Batch) -> Any:
        """Returns the result of the workload's method for a batch."""
        result = self._method(self.model, batch)
        leave_if_forked()
        return result


def _call(module: _Bound, values: dict[str, Tensor], batch: Batch) -> Any:
    """Calls a module with other values, which are afterwards as it leaves them."""
    named = {f"model.{name}": tensor for name, tensor in values.items()}
    result = functional_call(module, named, (batch,))
    values |= {name: named[f"model.{name}"] for name in values}
    return result


class FusedLoss:
    """Computes the training loss of a lane.

    Args:
        workload: The workload.
        model: One of its models, on the device; its modes are used, its own values are not.
        precision: The study's ``train.precision``.
    """

    def __init__(self, workload: Workload, model: nn.Module, precision: str) -> None:
        self._objective = _Bound(workload.loss, model)
        self._autocast = functools.partial(autocast, precision, next(model.parameters()).device)

    def __call__(
        self,
        parameters: dict[str, Tensor],
        buffers: dict[str, Tensor],
        batch: Batch,
        share: float = 1.0,
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns a lane's loss, and its buffers as the forward pass leaves them.

        Args:
            parameters: Its parameters by name.
            buffers: Its buffers by name; they stay as they are.
            batch: The batch.
            share: The factor on the loss.
        """
        values = parameters | {name: buffer.clone() for name, buffer in buffers.items()}
        with self._autocast():
            loss: Tensor = _call(self._objective, values, batch)
        return (loss if share == 1 else share * loss), {name: values[name] for name in buffers}


class FusedStep:
    """Trains all lanes on the same batch.

    Args:
        workload: The workload.
        model: One of its models, on the device; its modes are used, its own values are not.
        segments: The parameters that train, and the coefficients they have.
        kinds: The kinds of optimizers among the lanes.
        compiler: Traces or compiles its functions.
        matrices: The segments that Muon trains, where there is Muon.
        grad_clip: The largest norm of a lane's gradient, or None.
        precision: The study's ``train.precision``.
        accumulate: Parts a batch is computed in, one after the other.
    """

    def __init__(
        self,
        workload: Workload,
        model: nn.Module,
        segments: tuple[Segment, ...],
        kinds: frozenset[Kind],
        compiler: Make,
        *,
        matrices: tuple[Segment, ...] = (),
        grad_clip: float | None = None,
        precision: str = "float32",
        accumulate: int = 1,
    ) -> None:
        self.layout = Layout.of(model)
        self._segments, self._matrices, self._kinds = segments, matrices, kinds
        self._grad_clip, self._accumulate = grad_clip, accumulate
        # Lanes draw the same numbers, as single trials of a study do: dropout is a matter of the
        # study's seed and the step, whoever the neighbours are.
        self._differentiate = vmap(
            grad_and_value(FusedLoss(workload, model, precision), has_aux=True),
            in_dims=(0, 0, None, None),
            randomness="same",
        )
        self._compiler = compiler
        self._compiled: dict[Any, Function] = {}

    def __call__(
        self, state: LaneState, coefficients: Tensor, batch: Batch, muon: int = 0
    ) -> Tensor:
        """Takes a step in place; call it under ``torch.no_grad()``.

        Args:
            state: The lanes, those with Muon first.
            coefficients: Of the lanes at this step: see :func:`update_lanes`.
            batch: The batch.
            muon: The number of lanes that have Muon.

        Returns:
            Every lane's loss before the step, of shape (lanes,).
        """
        if self._accumulate == 1:
            dims = [_ROWS, *(None for _ in batch)]
            losses = self._run(self._step, state, [coefficients, *batch], dims)
        else:
            losses = self._step_by_parts(state, coefficients, batch)
        if muon and self._matrices:
            self._move(state, coefficients, muon)
        return losses

    def _run(
        self,
        function: Callable[..., Tensor],
        state: LaneState,
        others: Sequence[Tensor],
        dims: Dims,
        **fixed: float,
    ) -> Tensor:
        """Calls a function of lanes and other tensors, compiled for any number of lanes.

        Args:
            function: One of those below.
            state: The lanes.
            others: The tensors that come before those of the lanes.
            dims: The dimension of each of these that counts lanes.
            fixed: Further keyword arguments.
        """
        tensors = [*others, *state.tensors]
        sizes = [other.shape[:dim] for other, dim in zip(others, dims, strict=True)]
        key = (function.__name__, *sizes, *fixed.items())
        if key not in self._compiled:
            bound = functools.partial(function, state, len(others), **fixed)
            every = [*dims, *(0 for _ in state.tensors)]
            self._compiled[key] = self._compiler(bound, tensors, every)
        return self._compiled[key](*tensors)

    def _move(self, state: LaneState, coefficients: Tensor, muon: int) -> None:
        """Moves the matrices of the lanes with Muon, apart: they are fewer, and cost the most."""
        rows = [state.p, state.s] + ([] if state.slow is None else [state.slow])
        own = [coefficients[:, :, :muon].contiguous(), *(row[:muon] for row in rows)]
        key = ("move", len(coefficients))
        if key not in self._compiled:
            dims = [_ROWS, *(0 for _ in rows)]
            self._compiled[key] = self._compiler(self._move_matrices, own, dims)
        self._compiled[key](*own)

    def _step_by_parts(self, state: LaneState, coefficients: Tensor, batch: Batch) -> Tensor:
        """Takes a step whose gradient is computed part by part, each in the memory of the last."""
        g = torch.zeros_like(state.p)
        losses = [
            self._run(self._add_part, state, [g, *part], [0, *(None for _ in part)], share=share)
            for part, share in split(batch, self._accumulate)
        ]
        self._run(self._finish, state, [coefficients, g], [_ROWS, 0])
        return torch.stack(losses).sum(0)

    # The functions that are compiled. They take a state to be like, the number of tensors that
    # come before those of a state, and all of these.

    def _step(self, like: LaneState, count: int, *tensors: Tensor) -> Tensor:
        state, (coefficients, *batch) = like.replace(tensors[count:]), tensors[:count]
        with torch.no_grad():
            g, losses = self._backward(state, tuple(batch))
            self._update(state, coefficients, g)
            return losses

    def _add_part(
        self, like: LaneState, count: int, *tensors: Tensor, share: float = 1.0
    ) -> Tensor:
        state, (total, *part) = like.replace(tensors[count:]), tensors[:count]
        with torch.no_grad():
            g, losses = self._backward(state, tuple(part), share)
            total.add_(g)
            return losses

    def _finish(self, like: LaneState, count: int, *tensors: Tensor) -> Tensor:
        state, (coefficients, g) = like.replace(tensors[count:]), tensors[:count]
        with torch.no_grad():
            self._update(state, coefficients, g)
            return g

    def _move_matrices(self, coefficients: Tensor, p: Tensor, s: Tensor, *slow: Tensor) -> Tensor:
        with torch.no_grad():
            behind = slow[0] if slow else None
            move_matrices(p, s, behind, coefficients, self.layout, self._matrices)
        return p

    def _backward(
        self, state: LaneState, batch: Batch, share: float = 1.0
    ) -> tuple[Tensor, Tensor]:
        """Returns gradients and losses of a batch; the buffers are as it leaves them."""
        gradients, (losses, kept) = self._differentiate(
            self.layout.split(state.p), state.buffers, batch, share
        )
        g = self.layout.join(gradients, len(state.p))
        for name, buffer in kept.items():
            state.buffers[name].copy_(buffer)
        return g, losses

    def _update(self, state: LaneState, coefficients: Tensor, g: Tensor) -> None:
        if self._grad_clip is not None:
            g = clip_lanes(g, self._grad_clip, self._segments)
        coefficients = tune_lanes(state, g, coefficients, self._segments)
        update_lanes(state, g, coefficients, self._segments, self._kinds)


class FusedMetrics:
    """Measures all lanes on validation data.

    Args:
        workload: The workload.
        model: One of its models, on the device; its own values are not used.
        compiler: Traces or compiles its function.
        precision: The study's ``train.precision``.
    """

    def __init__(
        self,
        workload: Workload,
        model: nn.Module,
        compiler: Make,
        *,
        precision: str = "float32",
    ) -> None:
        self._metrics = _Bound(workload.metrics, model)
        self._layout = Layout.of(model)
        self._autocast = functools.partial(autocast, precision, next(model.parameters()).device)
        self._measure = vmap(self._one, in_dims=(0, 0, None), randomness="same")
        self._compiler = compiler
        self._compiled: dict[Any, Function] = {}
        self.names: tuple[str, ...] = ()

    def __call__(self, state: LaneState, batch: Batch) -> Tensor:
        """Returns the metrics on a batch, float64 of shape (metrics, lanes).

        They are in the order of :attr:`names`, which are known after the first call.
        """
        rows = [state.p, *state.buffers.values()]
        tensors, dims = [*rows, *batch], [*(0 for _ in rows), *(None for _ in batch)]
        key = tuple(tensor.shape for tensor in batch)
        if key not in self._compiled:
            function = functools.partial(self._run, tuple(state.buffers))
            self._compiled[key] = self._compiler(function, tensors, dims)
        return self._compiled[key](*tensors)

    def _run(self, names: tuple[str, ...], p: Tensor, *tensors: Tensor) -> Tensor:
        buffers = dict(zip(names, tensors, strict=False))
        self._metrics.eval()
        with torch.no_grad():
            metrics = self._measure(self._layout.split(p), buffers, tensors[len(names) :])
            self.names = tuple(metrics)
            return torch.stack([value.double() for value in metrics.values()])

    def _one(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], batch: Batch
    ) -> dict[str, Tensor]:
        # Copies, since a metric may look at its model in training mode.
        kept = {name: buffer.clone() for name, buffer in buffers.items()}
        with self._autocast():
            metrics = check_metrics(_call(self._metrics, parameters | kept, batch))
        return {name: value.detach().reshape(()) for name, value in metrics.items()}
