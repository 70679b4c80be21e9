"""Builds torch optimizers from the rows of the catalog."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from tuner.domain.catalog.calls import Call, split_target
from tuner.domain.catalog.dimensions import Value
from tuner.domain.catalog.optimizers import OPTIMIZERS, OptimizerRow
from tuner.domain.groups import GroupValues, group_settings
from tuner.errors import SpecError, WorkloadError
from tuner.optim.composite import CompositeOptimizer, FrozenGroup
from tuner.optim.groups import (
    Block,
    optimizable,
    select_parameters,
    sparse_parameters,
    split_model,
)

_SHOW = "call backward() on one batch's loss before run.optimizer(model), which then sees them"
"""The advice to training loops whose sparse gradients no module shows beforehand."""


def build_optimizer(
    name: str,
    values: dict[str, Value],
    model: nn.Module,
    groups: Sequence[GroupValues] = (),
    *,
    spare_vectors: bool = False,
    total_steps: int | None = None,
    network: str | None = None,
) -> torch.optim.Optimizer:
    """Builds one of the catalog's optimizers for a model.

    Args:
        name: Its name in the catalog.
        values: Every hyperparameter in torch's form, as the row's ``decode`` gives them.
        model: The model whose parameters it updates; those that are frozen train once they
            require gradients.
        groups: Parameters that train otherwise than the rest; those of a frozen group do not
            train until the optimizer's ``thaw`` is told so, which a schedule of ours does.
        spare_vectors: Whether parameters with fewer than two dimensions are spared from weight
            decay.
        total_steps: Steps of a full trial, at least 1, for an optimizer that must know them.
        network: The name that its loop gives the model, which patterns of groups then begin with.

    Returns:
        A torch optimizer; a :class:`CompositeOptimizer` where the row names a helper and the model
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
    blocks = split_model(model, groups, spare_vectors=spare_vectors, network=network)
    _check_fit(row, [p for block in blocks for p in block.parameters], model)
    trained = [block for block in blocks if any(p.requires_grad for p in block.parameters)]
    if row.groups and all(block.values.frozen_until for block in trained):
        raise WorkloadError(
            "train.groups freezes every parameter of the model, so that nothing would train: "
            "narrow a group's match, or leave out its frozen_until."
        )
    sparse = {id(p) for p in sparse_parameters(model)}
    parts: list[torch.optim.Optimizer] = []
    frozen: list[FrozenGroup] = []
    # All are selected before any is built: building freezes groups, on which "hidden" depends.
    selections = [(call, _select(call, blocks, model)) for call in row.calls(values, total_steps)]
    for call, own in selections:
        if own and row.groups:
            parts.append(_instantiate(call, own, sparse))
            frozen += _freeze(parts[-1])
        elif own:
            parts.append(
                find_constructor(call.target)([p for _, ps in own for p in ps], **call.arguments)
            )
        if own and not row.grows:
            _refuse_thawing(parts[-1], row.name, model)
    if len(parts) == 1 and not frozen:
        return parts[0]
    return CompositeOptimizer(parts, frozen)


def _select(
    call: Call, blocks: Sequence[Block], model: nn.Module
) -> list[tuple[Block, list[Tensor]]]:
    """Returns the parameters that a call takes, block by block, without empty blocks."""
    selected = [(b, select_parameters(call.parameters, b.parameters, model)) for b in blocks]
    return [(block, parameters) for block, parameters in selected if parameters]


def _check_fit(row: OptimizerRow, parameters: Sequence[Tensor], model: nn.Module) -> None:
    if row.takes == "all" or select_parameters(row.takes, parameters, model):
        return
    if row.takes == "matrices":
        kind, hint = "with two dimensions", ""
    else:
        kind, hint = "whose gradients are sparse", f", or, where functions make them so, {_SHOW}"
    raise WorkloadError(
        f"{row.name} trains parameters {kind}, but the model has none: "
        f"leave {row.name} out of space.optimizers{hint}."
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
    has_kernel = call.package == "torch" and "fused" in accepted
    fusable = has_kernel and all(
        p.device.type in ("cpu", "cuda") and p.is_floating_point() and id(p) not in sparse
        for _, parameters in blocks
        for p in parameters
    )
    faster = {"fused": True} if fusable else {}
    optimizer: torch.optim.Optimizer = constructor(groups, **call.arguments, **faster)
    if fusable:
        _meet_first_gradients(optimizer, call)
    if call.wrapper is not None:
        optimizer = find_constructor(call.wrapper.target)(optimizer, **call.wrapper.arguments)
    return optimizer


def _meet_first_gradients(optimizer: torch.optim.Optimizer, call: Call) -> None:
    """Prepares fused kernels for sparse gradients, which only the first gradients show.

    None takes sparse gradients, and SGD's takes no parameter that joins others in mid-run. Where
    another optimizer has the sparse parameters, it is too late for one more, which is an error.
    """
    handles: dict[Tensor, RemovableHandle] = {}

    def meet(parameter: Tensor) -> None:
        handles.pop(parameter).remove()
        groups = optimizer.param_groups
        if parameter.grad is not None and parameter.grad.is_sparse:
            if call.parameters == "dense":
                raise WorkloadError(
                    f"A parameter of shape {tuple(parameter.shape)} has a sparse gradient, of "
                    f"which nothing told when its optimizer was built: {_SHOW}."
                )
            for group in groups:
                group["fused"] = False
            # A gradient scaler would leave unscaling to the fused kernel.
            optimizer._step_supports_amp_scaling = False  # type: ignore[attr-defined]  # noqa: SLF001
        elif isinstance(optimizer, torch.optim.SGD) and any(g["momentum"] for g in groups):
            # With a buffer of zeros, the first step is the gradient alone, as without a buffer.
            optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))

    for group in optimizer.param_groups:
        for parameter in group["params"]:
            trains = parameter.requires_grad
            # Hooks can only be put on a parameter that requires a gradient.
            parameter.requires_grad_(True)
            handles[parameter] = parameter.register_post_accumulate_grad_hook(meet)
            parameter.requires_grad_(trains)


def find_constructor(target: str) -> Any:
    """Returns the class of an import path.

    Raises:
        SpecError: If its package is not installed.
    """
    module, name = split_target(target)
    try:
        return getattr(importlib.import_module(module), name)
    except ModuleNotFoundError as error:
        if error.name != "pytorch_optimizer":
            raise
        raise SpecError(
            f"{name} is of the package pytorch-optimizer, which is not installed: "
            "pip install 'tuner[optimizers]'."
        ) from error


def _freeze(optimizer: torch.optim.Optimizer) -> list[FrozenGroup]:
    """Takes the groups to be frozen out of an optimizer, and has their parameters not train."""
    frozen = [
        FrozenGroup(optimizer, group, tuple(p for p in group["params"] if p.requires_grad))
        for group in optimizer.param_groups
        if group.get("frozen_until")
    ]
    # In place, since a wrapper around an optimizer shares its list of groups.
    optimizer.param_groups[:] = [g for g in optimizer.param_groups if not g.get("frozen_until")]
    for waiting in frozen:
        for parameter in waiting.waits:
            parameter.requires_grad_(False)
    return frozen


def _refuse_thawing(optimizer: torch.optim.Optimizer, name: str, model: nn.Module) -> None:
    """Makes an optimizer raise when frozen parameters begin to train that it cannot take in."""
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    frozen: list[Tensor] | None = None

    def check(*_: Any) -> None:
        nonlocal frozen
        if frozen is None:
            frozen = [p for p in parameters if not p.requires_grad]
        thawed = {id(p) for p in frozen if p.requires_grad}
        if thawed:
            names = [name for name, p in optimizable(model).items() if id(p) in thawed]
            raise WorkloadError(
                f"{', '.join(names[:5])}{' …' if len(names) > 5 else ''} began to require "
                f"gradients in mid-run, where nothing can join {name}, nor thaw by frozen_until: "
                f"leave {name} out of space.optimizers, or have them require gradients from the "
                "start."
            )

    optimizer.register_step_pre_hook(check)
