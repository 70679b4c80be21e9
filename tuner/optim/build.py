"""From a catalog row and its values to a torch optimizer and its schedule."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR

from tuner.domain.calls import Call, Parameters
from tuner.domain.dimensions import Value
from tuner.domain.optimizers import OPTIMIZERS
from tuner.domain.schedules import SCHEDULES
from tuner.errors import WorkloadError
from tuner.optim.joint import JointOptimizer


def build_optimizer(name: str, values: dict[str, Value], model: nn.Module) -> torch.optim.Optimizer:
    """Builds one of the catalog's optimizers for a model.

    Args:
        name: Its name in the catalog.
        values: Every hyperparameter in torch's form, as the row's ``decode`` gives them.
        model: The model whose trainable parameters it updates.

    Returns:
        A torch optimizer; a :class:`JointOptimizer` where the row names a helper and the model
        has parameters for both.

    Raises:
        WorkloadError: If the model has no parameter the optimizer can take.

    >>> model = nn.Linear(2, 1)
    >>> build_optimizer("adam", OPTIMIZERS["adam"].decode({"lr": 0.01}), model).defaults["lr"]
    0.01
    """
    parameters = [p for p in model.parameters() if p.requires_grad]
    if not parameters:
        raise WorkloadError("The model has no trainable parameters: nothing to optimize.")
    calls = OPTIMIZERS[name].calls(values)
    if calls[0].parameters == "matrices" and not select_parameters("matrices", parameters):
        raise WorkloadError(
            f"{name} updates matrices, but the model has no parameter with two dimensions: "
            f"leave {name} out of space.optimizers."
        )
    parts = [
        instantiate(call, selected)
        for call in calls
        if (selected := select_parameters(call.parameters, parameters))
    ]
    return parts[0] if len(parts) == 1 else JointOptimizer(parts)


def build_schedule(
    name: str, values: dict[str, Value], optimizer: torch.optim.Optimizer, total_steps: int
) -> LambdaLR:
    """Builds one of the catalog's schedules over an optimizer.

    Args:
        name: Its name in the catalog.
        values: Its hyperparameters, as the row's ``decode`` gives them.
        optimizer: The optimizer whose learning rates it multiplies, group by group.
        total_steps: Steps of a full trial, at least 1.

    Returns:
        A torch scheduler, to be stepped after every optimizer step.
    """
    return LambdaLR(optimizer, SCHEDULES[name].factor(values, total_steps))


def select_parameters(which: Parameters, parameters: Sequence[Tensor]) -> list[Tensor]:
    """Returns the parameters a call takes: all, the two-dimensional ones, or the others."""
    if which == "all":
        return list(parameters)
    return [p for p in parameters if (p.ndim == 2) == (which == "matrices")]


def instantiate(call: Call, parameters: Sequence[Tensor]) -> torch.optim.Optimizer:
    """Builds the optimizer a call describes, over these parameters.

    Where torch has a fused kernel for it, that one is used: the same rule in one pass.
    """
    module, _, attribute = call.target.rpartition(".")
    constructor: Any = getattr(importlib.import_module(module), attribute)
    faster = {"fused": True} if _has_fused_kernel(constructor, parameters) else {}
    optimizer: torch.optim.Optimizer = constructor(parameters, **call.arguments, **faster)
    return optimizer


def _has_fused_kernel(constructor: Any, parameters: Sequence[Tensor]) -> bool:
    if "fused" not in inspect.signature(constructor).parameters:
        return False
    return all(p.device.type in ("cpu", "cuda") and p.is_floating_point() for p in parameters)
