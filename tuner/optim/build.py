"""From a catalog row and its values to a torch optimizer."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from tuner.domain.calls import Call
from tuner.domain.dimensions import Value
from tuner.domain.groups import GroupValues, group_settings
from tuner.domain.optimizers import OPTIMIZERS, OptimizerRow
from tuner.errors import SpecError, WorkloadError
from tuner.optim.groups import (
    Block,
    select_parameters,
    sparse_parameters,
    split_model,
)
from tuner.optim.joint import FrozenGroup, JointOptimizer


def build_optimizer(
    name: str,
    values: dict[str, Value],
    model: nn.Module,
    groups: Sequence[GroupValues] = (),
    *,
    spare_vectors: bool = False,
    total_steps: int | None = None,
) -> torch.optim.Optimizer:
    """Builds one of the catalog's optimizers for a model.

    Args:
        name: Its name in the catalog.
        values: Every hyperparameter in torch's form, as the row's ``decode`` gives them.
        model: The model whose trainable parameters it updates.
        groups: Parameters that train otherwise than the rest; those of a frozen group do not
            train until the optimizer's ``thaw`` is told so, which a schedule of ours does.
        spare_vectors: Whether parameters with fewer than two dimensions are spared from weight
            decay.
        total_steps: Steps of a full trial, at least 1, for an optimizer that must know them.

    Returns:
        A torch optimizer; a :class:`JointOptimizer` where the row names a helper and the model
        has parameters for both, or a group is frozen.

    Raises:
        SpecError: If the optimizer's package is not installed, or it must know ``total_steps``.
        WorkloadError: If the model has no parameter the optimizer can take, or all are frozen.

    >>> model = nn.Linear(2, 1)
    >>> build_optimizer("adam", OPTIMIZERS["adam"].decode({"lr": 0.01}), model).defaults["lr"]
    0.01
    """
    row = OPTIMIZERS[name]
    if row.length_argument is not None and total_steps is None:
        raise SpecError(
            f"{name} is built with the steps of a full trial, which are not known yet: set "
            "budget.steps, or call run.measure(len(loader)) before run.optimizer(model)."
        )
    blocks = split_model(model, groups, spare_vectors=spare_vectors)
    _check_fit(row, [p for block in blocks for p in block.parameters], model)
    if row.groups and all(block.values.frozen_until for block in blocks):
        raise WorkloadError(
            "train.groups freezes every parameter of the model, so that nothing would train: "
            "narrow a group's match, or leave out its frozen_until."
        )
    sparse = {id(p) for p in sparse_parameters(model)}
    parts: list[torch.optim.Optimizer] = []
    frozen: list[FrozenGroup] = []
    for call in row.calls(values, total_steps):
        own = [
            (block, selected)
            for block in blocks
            if (selected := select_parameters(call.parameters, block.parameters, model))
        ]
        if own and row.groups:
            parts.append(_instantiate(call, own, sparse))
            frozen += [FrozenGroup(parts[-1], group) for group in _freeze(parts[-1])]
        elif own:
            parts.append(
                find_constructor(call.target)([p for _, ps in own for p in ps], **call.arguments)
            )
    if len(parts) == 1 and not frozen:
        return parts[0]
    return JointOptimizer(parts, frozen)


def _check_fit(row: OptimizerRow, parameters: Sequence[Tensor], model: nn.Module) -> None:
    if row.takes == "all" or select_parameters(row.takes, parameters, model):
        return
    kind = "with two dimensions" if row.takes == "matrices" else "whose gradients are sparse"
    raise WorkloadError(
        f"{row.name} trains parameters {kind}, but the model has none: "
        f"leave {row.name} out of space.optimizers."
    )


def _instantiate(
    call: Call, blocks: Sequence[tuple[Block, list[Tensor]]], sparse: set[int]
) -> torch.optim.Optimizer:
    """Builds the optimizer a call describes, a parameter group a block.

    Where torch has a fused kernel for it, that one is used: the same rule in one pass.
    """
    constructor = find_constructor(call.target)
    accepted = inspect.signature(constructor).parameters
    groups = [
        {
            "params": parameters,
            **group_settings(call, block.values, spared=block.spared, accepted=accepted),
        }
        for block, parameters in blocks
    ]
    has_kernel = call.target.startswith("torch.") and "fused" in accepted
    fusable = has_kernel and all(
        p.device.type in ("cpu", "cuda") and p.is_floating_point() and id(p) not in sparse
        for _, parameters in blocks
        for p in parameters
    )
    faster = {"fused": True} if fusable else {}
    optimizer: torch.optim.Optimizer = constructor(groups, **call.arguments, **faster)
    if call.wrapper is not None:
        optimizer = find_constructor(call.wrapper.target)(optimizer, **call.wrapper.arguments)
    return optimizer


def find_constructor(target: str) -> Any:
    """Returns the class of an import path.

    Raises:
        SpecError: If its package is not installed.
    """
    module, _, attribute = target.rpartition(".")
    try:
        return getattr(importlib.import_module(module), attribute)
    except ModuleNotFoundError as error:
        if error.name != "pytorch_optimizer":
            raise
        raise SpecError(
            f"{attribute} is of the package pytorch-optimizer, which is not installed: "
            "pip install 'tuner[optimizers]'."
        ) from error


def _freeze(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Takes the groups to be frozen out of an optimizer, and has their parameters not train."""
    frozen = [group for group in optimizer.param_groups if group.get("frozen_until")]
    # In place, since what is around an optimizer shares its list of groups.
    optimizer.param_groups[:] = [g for g in optimizer.param_groups if not g.get("frozen_until")]
    for group in frozen:
        for parameter in group["params"]:
            parameter.requires_grad_(False)
    return frozen
