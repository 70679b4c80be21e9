"""One step of many models at once: forward, backward and update as one function of tensors."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad_and_value, vmap

from tuner.optim.lane_rules import Kind
from tuner.optim.lanes import Layout, Segment, clip_lanes, update_lanes
from tuner.training.device import autocast
from tuner.training.workload import Batch, Workload


class _Objective(nn.Module):
    """A workload's loss as the forward pass of a module that holds its model."""

    def __init__(self, workload: Workload, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self._workload = workload

    def forward(self, batch: Batch) -> Tensor:
        """Returns the loss on a batch, a scalar."""
        return self._workload.loss(self.model, batch)


@dataclass
class LaneState:
    """What changes as lanes train, of all of them.

    Attributes:
        p: Parameters, of shape (lanes, width).
        m: The optimizers' first buffer, likewise.
        s: Their second buffer, likewise.
        buffers: The models' buffers by name, each with the lanes first.
    """

    p: Tensor
    m: Tensor
    s: Tensor
    buffers: dict[str, Tensor]


class FusedStep:
    """Trains all lanes on a batch.

    Args:
        workload: The workload.
        model: One of its models, in training mode, on the device; its own values are not used.
        segments: Which parameters have which coefficients.
        kinds: What kinds of optimizers there are among the lanes.
        grad_clip: The largest norm of a lane's gradient, or None.
        precision: The study's ``train.precision``.
        shared: Whether all lanes train on the same batch.
        compiled: Whether to have it compiled.
    """

    def __init__(
        self,
        workload: Workload,
        model: nn.Module,
        segments: tuple[Segment, ...],
        kinds: frozenset[Kind],
        *,
        grad_clip: float | None = None,
        precision: str = "float32",
        shared: bool = True,
        compiled: bool = False,
    ) -> None:
        self._objective = _Objective(workload, model)
        self.layout = Layout.of(model)
        self._segments, self._kinds = segments, kinds
        self._grad_clip = grad_clip
        self._precision = precision
        self._device = next(model.parameters()).device
        self._differentiate = vmap(
            grad_and_value(self._loss, has_aux=True),
            in_dims=(0, 0, None if shared else 0),
        )
        step: Callable[..., Any] = self._step
        self._run = torch.compile(step, dynamic=False) if compiled else step

    def __call__(self, state: LaneState, coefficients: Tensor, batch: Batch) -> Tensor:
        """Takes a step in place.

        Args:
            state: The lanes.
            coefficients: Of the lanes at this step: see :func:`update_lanes`.
            batch: The batch; with the lanes first unless all share it.

        Returns:
            Every lane's loss before the step, of shape (lanes,).
        """
        losses: Tensor = self._run(state.p, state.m, state.s, state.buffers, coefficients, batch)
        return losses

    def _loss(
        self, parameters: dict[str, Tensor], buffers: dict[str, Tensor], batch: Batch
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns a lane's loss, and its buffers as the forward pass leaves them."""
        kept = {name: buffer.clone() for name, buffer in buffers.items()}
        values = {f"model.{name}": tensor for name, tensor in (parameters | kept).items()}
        with autocast(self._precision, self._device):
            loss = functional_call(self._objective, values, (batch,))
        return loss, kept

    def _step(
        self,
        p: Tensor,
        m: Tensor,
        s: Tensor,
        buffers: dict[str, Tensor],
        coefficients: Tensor,
        batch: Batch,
    ) -> Tensor:
        with torch.no_grad():
            losses: Tensor
            gradients, (losses, kept) = self._differentiate(self.layout.split(p), buffers, batch)
            g = self.layout.join(gradients, len(p))
            if self._grad_clip is not None:
                g = clip_lanes(g, self._grad_clip)
            update_lanes(p, g, m, s, coefficients, self._segments, self._kinds)
            for name, buffer in kept.items():
                buffers[name].copy_(buffer)
            return losses
