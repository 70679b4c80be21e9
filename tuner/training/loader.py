"""The batches of a data loader, epoch after epoch, in an order that a resumed trial repeats."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count, islice
from typing import Any

import torch

from tuner.errors import SpecError, WorkloadError
from tuner.training.seeds import derive_seed, seeded


def resume_batches(loader: Any, seed: int, taken: int, device: torch.device) -> Iterator[Any]:
    """Returns an endless iterator over a loader's batches, from any point on.

    An epoch begins with every source of randomness seeded by the study's seed and the epoch, and
    put back after its first batch: the order a loader draws when it begins is repeated. A loader
    with a generator of its own, or one that draws its order batch by batch, keeps its own order,
    which a resumed trial cannot repeat.

    Args:
        loader: Batches, with a length.
        seed: The study's seed.
        taken: Batches taken by earlier attempts; those of the present epoch are drawn at once.
        device: The device whose generator the loader may draw from, besides the CPU's.

    Raises:
        SpecError: If the loader has no length, or none at all.
        WorkloadError: If an epoch gives another number of batches than the loader's length; the
            iterator raises it where it comes to that.
    """
    epoch, skipped = divmod(taken, length_of(loader))
    batches = _batches_from(epoch, loader, seed, device)
    for _ in range(skipped):
        next(batches)
    return batches


def length_of(loader: Any) -> int:
    """Returns the number of batches in a loader.

    Raises:
        SpecError: If it has no length, or none at all.
    """
    try:
        length = len(loader)
    except TypeError:
        raise SpecError(
            f"run.steps() was given a {type(loader).__name__}, which has no length: iterate over "
            "it yourself within 'for step in run.steps():', with budget.steps."
        ) from None
    if length < 1:
        raise SpecError("run.steps() was given a loader without batches: it needs at least one.")
    return length


def _batches_from(epoch: int, loader: Any, seed: int, device: torch.device) -> Iterator[Any]:
    length = length_of(loader)
    for present in count(epoch):
        with seeded(derive_seed(seed, "data", present), device):
            batches = iter(loader)
            # A sampler draws its order when it is first asked.
            first = list(islice(batches, 1))
        given = 0
        for given, batch in enumerate(chain(first, batches), 1):
            if given > length:
                break
            yield batch
        if given != length:
            amount = f"{given} batches" if given < length else "more"
            raise WorkloadError(
                f"run.steps() was given a {type(loader).__name__} of length {length}, which gave "
                f"{amount} in epoch {present + 1}: every iter(loader) must begin anew and give "
                "len(loader) batches. Correct its __iter__ or __len__, or iterate over it "
                "yourself within 'for step in run.steps():', with budget.steps."
            )
