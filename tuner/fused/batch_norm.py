"""BatchNorm of many lanes: its precision, and the measurement of its statistics."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable

import torch
from torch import Tensor, nn, vmap
from torch.nn.modules.batchnorm import _BatchNorm

from tuner.fused.lane_state import Layout
from tuner.fused.step import FusedLoss
from tuner.training.module_modes import training_norms
from tuner.training.workload import Batch, Workload


def widen_norms(model: nn.Module) -> nn.Module:
    """Makes the BatchNorm of a model compute in its own type, and answer in the type of its input.

    By itself it does so for bfloat16; under vmap, it takes only one type at once.

    Args:
        model: A model, which is changed.

    Returns:
        The model.
    """
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            own = next(itertools.chain(module.parameters(), module.buffers()), None)
            if own is not None:
                types = _Types(own.dtype)
                module.register_forward_pre_hook(types.widen)
                module.register_forward_hook(types.narrow)
    return model


class _Types:
    """The type in which a norm computes, and that of its input.

    Args:
        own: The type in which it computes.
    """

    def __init__(self, own: torch.dtype) -> None:
        self._own = self._given = own

    def widen(self, _: nn.Module, arguments: tuple[Tensor]) -> Tensor:
        [given] = arguments
        self._given = given.dtype
        return given.to(self._own)

    def narrow(self, _: nn.Module, __: tuple[Tensor], output: Tensor) -> Tensor:
        return output.to(self._given)


class FusedNorms:
    """Measures statistics of many lanes at once, as :class:`Averaging` does of one model.

    Args:
        workload: The workload.
        model: One of its models, on the device; its modes are used, its own values are not, and its
            norms are changed.
        precision: The study's ``train.precision``.
    """

    def __init__(self, workload: Workload, model: nn.Module, precision: str) -> None:
        self._layout = Layout.of(model)
        self._calls: Counter[nn.Module] = Counter()
        norms = training_norms(model)
        self._names = [f"{name}." if name else "" for name in norms]
        for norm in norms.values():
            norm.register_forward_pre_hook(self._count)
        self._pass = vmap(
            FusedLoss(workload, model, precision), in_dims=(0, 0, None), randomness="same"
        )

    @property
    def needed(self) -> bool:
        """Whether the model has such statistics."""
        return bool(self._names)

    def __call__(
        self, p: Tensor, buffers: dict[str, Tensor], batches: Iterable[Batch]
    ) -> dict[str, Tensor]:
        """Returns the buffers as training data leaves them.

        Args:
            p: Parameters, of shape (lanes, width).
            buffers: Buffers by name, with the lanes first; they stay as they are.
            batches: The training data.
        """
        self._calls.clear()
        buffers = dict(buffers)
        for name in self._names:
            buffers[f"{name}running_mean"] = torch.zeros_like(buffers[f"{name}running_mean"])
            buffers[f"{name}running_var"] = torch.ones_like(buffers[f"{name}running_var"])
            tracked = f"{name}num_batches_tracked"
            buffers[tracked] = torch.zeros_like(buffers[tracked])
        for batch in batches:
            _, buffers = self._pass(self._layout.split(p), buffers, batch)
        return buffers

    def _count(self, norm: _BatchNorm, _: object) -> None:
        """Sets a norm's momentum to average batches; torch would read their number from a GPU."""
        self._calls[norm] += 1
        norm.momentum = 1 / self._calls[norm]
