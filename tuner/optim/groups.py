"""A model's parameters, split as its optimizer's parameter groups need them."""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from tuner.domain.catalog.calls import OTHERS, Parameters
from tuner.domain.groups import REST, GroupValues, assign_group, unmatched
from tuner.errors import WorkloadError
from tuner.optim.composite import CompositeOptimizer


@dataclass(frozen=True)
class Block:
    """Parameters that train alike.

    Attributes:
        parameters: Its parameters, as the model holds them.
        values: How they train otherwise than the rest.
        spared: Whether they are spared from weight decay.
    """

    parameters: tuple[Tensor, ...]
    values: GroupValues
    spared: bool = False


def split_model(
    model: nn.Module,
    groups: Sequence[GroupValues],
    *,
    spare_vectors: bool,
    network: str | None = None,
) -> list[Block]:
    """Splits a model's parameters into blocks that train alike, frozen ones included.

    Args:
        model: The model.
        groups: Its parameter groups; the first that matches a parameter takes it.
        spare_vectors: Whether parameters with fewer than two dimensions, such as biases and
            the scales of norms, are spared from weight decay.
        network: The name that its loop gives the model, which patterns then begin with, or None.

    Raises:
        WorkloadError: If the model has no trainable parameter.
    """
    named = optimizable(model, network)
    if not any(p.requires_grad for p in named.values()):
        raise WorkloadError("The model has no trainable parameters: nothing to optimize.")
    matches = [(group.name, group.match) for group in groups]
    blocks: list[Block] = []
    for values in (*groups, GroupValues(REST, "*")):
        own = [p for name, p in named.items() if assign_group(name, matches) == values.name]
        if spare_vectors:
            vectors = tuple(p for p in own if p.ndim < 2)
            own = [p for p in own if p.ndim >= 2]
            blocks.append(Block(vectors, values, spared=True))
        blocks.append(Block(tuple(own), values))
    return [block for block in blocks if block.parameters]


def optimizable(model: nn.Module, network: str | None = None) -> dict[str, Tensor]:
    """Returns the parameters of a model that an optimizer takes, by name, each once.

    Where the model has a name, that is the first part of theirs. The parts that torch.compile and
    DataParallel put into names are left out.

    Frozen ones are among them: torch's optimizers skip parameters without a gradient, so these
    train from the step on when their loop has them require one. Integer ones never can.

    Raises:
        WorkloadError: If the model has lazy modules that no batch has gone through.
    """
    named = _unwrap(model).named_parameters(prefix=network or "")
    if any(is_lazy(p) for p in model.parameters()):
        raise WorkloadError(
            "The model has lazy modules, whose parameters have no shape before their first batch, "
            "and what trains them depends on it: run one batch through the model before "
            "run.optimizer(model)."
        )
    plain = ((name.replace("_orig_mod.", ""), p) for name, p in named)
    return {name: p for name, p in plain if p.is_floating_point() or p.is_complex()}


def _unwrap(model: nn.Module) -> nn.Module:
    model = getattr(model, "_orig_mod", model)
    if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
        return _unwrap(model.module)
    return model


def trainable(model: nn.Module) -> dict[str, Tensor]:
    """Returns a model's parameters that train now, by name, each once."""
    return {name: p for name, p in optimizable(model).items() if p.requires_grad}


def check_groups(names: Iterable[str], groups: Sequence[GroupValues]) -> None:
    """Checks that every group takes a parameter, in whichever of several models.

    Args:
        names: The names of the models' parameters.
        groups: The parameter groups.

    Raises:
        WorkloadError: If a group takes none.
    """
    names = list(dict.fromkeys(names))
    for group in unmatched(names, groups):
        raise WorkloadError(
            f"train.groups {group.name!r}: match = {group.match!r} takes no parameter that is "
            f"left of {', '.join(names[:20])}{' …' if len(names) > 20 else ''}: correct the "
            "match, or leave the group out."
        )


def select_parameters(
    which: Parameters, parameters: Sequence[Tensor], model: nn.Module
) -> list[Tensor]:
    """Returns those of a model's parameters that a call takes.

    Args:
        which: All; the matrices of ``hidden`` layers or the ``outer`` parameters; the
            two-dimensional ones (``matrices``) or the ``others``; those whose gradients are
            ``sparse`` or the ``dense`` ones.
        parameters: Parameters to choose from.
        model: The model they belong to.
    """
    if which == "all":
        return list(parameters)
    part = next((part for part, others in OTHERS.items() if which == others), which)
    match part:
        case "hidden":
            taken = hidden_matrices(model)
        case "matrices":
            taken = _matrices(model)
        case _:
            taken = sparse_parameters(model)
    ids = {id(p) for p in taken}
    return [p for p in parameters if (id(p) in ids) == (which == part)]


def _matrices(model: nn.Module) -> list[Tensor]:
    return [p for p in model.parameters() if p.ndim == 2]


def hidden_matrices(model: nn.Module) -> list[Tensor]:
    """Returns a model's matrices but those of embeddings and of its output layer.

    The output layer is the Linear that the model names last; a matrix that it shares with an
    embedding is left out like both. Where nothing that trains would be left, it is all matrices.
    """
    modules = list(model.modules())
    outer: list[nn.Module] = [m for m in modules if isinstance(m, nn.Embedding | nn.EmbeddingBag)]
    outer += [m for m in modules if isinstance(m, nn.Linear)][-1:]
    apart = {id(p) for module in outer for p in module.parameters()}
    hidden = [p for p in _matrices(model) if id(p) not in apart]
    return hidden if any(p.requires_grad for p in hidden) else _matrices(model)


def sparse_parameters(model: nn.Module) -> list[Tensor]:
    """Returns a model's parameters whose gradients are sparse.

    They are those of sparse embeddings, and whatever has a sparse gradient now.
    """
    embeddings = (m for m in model.modules() if isinstance(m, nn.Embedding | nn.EmbeddingBag))
    seen = [p for p in model.parameters() if p.grad is not None and p.grad.is_sparse]
    return [*(module.weight for module in embeddings if module.sparse), *seen]


def rate_key(group: Container[str]) -> str:
    """Returns the key of a parameter group that schedules scale: ``lr``, or the factor on it.

    An optimizer that tunes its learning rate itself, as YellowFin does, has an ``lr_factor`` in
    every group.

    >>> rate_key({"lr": 0.1}), rate_key({"lr": 0.1, "lr_factor": 1.0})
    ('lr', 'lr_factor')
    """
    return "lr_factor" if "lr_factor" in group else "lr"


def describe_groups(optimizer: torch.optim.Optimizer) -> list[dict[str, Any]]:
    """Returns the effective settings of an optimizer's groups, frozen ones too, as plain values.

    ``parameters`` counts the coordinates that train, now or later. Where the optimizer tunes its
    own learning rate, ``lr`` is the factor on it, and there is no momentum.
    """
    frozen = optimizer.frozen if isinstance(optimizer, CompositeOptimizer) else []
    return [
        {
            "name": group.get("name", REST),
            "parameters": sum(p.numel() for p in parameters if p.requires_grad or waits),
            "lr": float(group.get(f"initial_{rate_key(group)}", group[rate_key(group)])),
            "weight_decay": group.get("weight_decay"),
            "momentum": group.get("initial_momentum", _momentum_of(group)),
            "frozen_until": group.get("frozen_until", 0.0),
        }
        for group, parameters, waits in (
            *((group, group["params"], False) for group in optimizer.param_groups),
            *((waiting.group, waiting.waits, True) for waiting in frozen),
        )
    ]


def _momentum_of(group: Mapping[str, Any]) -> float | None:
    if rate_key(group) != "lr":
        return None
    momentum: float | None = group["betas"][0] if "betas" in group else group.get("momentum")
    return momentum
