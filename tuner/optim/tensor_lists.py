"""Arithmetic over lists of tensors with factors that stay on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def densify(gradient: Tensor) -> Tensor:
    """Returns a gradient as a dense tensor of at least float32."""
    if gradient.dtype is torch.float32 and gradient.layout is torch.strided:
        return gradient
    dense = gradient.to_dense() if gradient.layout is not torch.strided else gradient
    return dense.to(torch.promote_types(dense.dtype, torch.float32))


def add_scaled(
    targets: list[Tensor], sources: list[Tensor], factor: Tensor, *, sign: int = 1
) -> None:
    """Adds to each target a source times a scalar and a sign, in place.

    On the CPU that is one pass over memory. Elsewhere a scalar tensor would cost a kernel for every
    pair, so scaled copies are added, a few kernels in all.
    """
    factors = {dtype: factor.to(dtype) for dtype in {source.dtype for source in sources}}
    if factor.device.type == "cpu":
        scalars = [factors[source.dtype] for source in sources]
        torch._foreach_addcmul_(targets, sources, scalars, value=sign)
        return
    for dtype, scalar in factors.items():
        alike = [i for i, source in enumerate(sources) if source.dtype == dtype]
        scaled = torch._foreach_mul([sources[i] for i in alike], scalar)  # noqa: SLF001
        torch._foreach_add_([targets[i] for i in alike], scaled, alpha=sign)


def total_norm(tensors: list[Tensor]) -> Tensor:
    """Returns the Euclidean norm of all tensors together, in float64."""
    norms = torch.stack(torch._foreach_norm(tensors))  # noqa: SLF001 (as torch.nn.utils does)
    total: Tensor = torch.linalg.vector_norm(norms, dtype=torch.float64)
    return total


def share_of_nonzero(tensors: Sequence[Tensor]) -> Tensor:
    """Returns the share of all coordinates that are not zero, in float64."""
    counts = torch.stack([tensor.count_nonzero() for tensor in tensors])
    return counts.sum().double() / sum(tensor.numel() for tensor in tensors)
