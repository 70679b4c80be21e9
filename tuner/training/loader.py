"""The batches of a data loader, epoch after epoch, in an order that a resumed trial repeats."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain, count, islice
from typing import Any

import torch

from tuner.errors import SpecError, WorkloadError
from tuner.training.seeds import derive_seed, seeded


def resume_batches(
    loader: Any, seed: int, taken: int, device: torch.device, epoch_steps: int | None = None
) -> Iterator[Any]:
    """Returns an endless iterator over a loader's batches, from any point on.

    An epoch begins with every source of randomness seeded by the study's seed and the epoch, and
    put back after its first batch: the order a loader draws when it begins is repeated. A sampler
    with ``set_epoch``, such as a DistributedSampler, is told the epoch. A loader
    with a generator of its own, or one that draws its order batch by batch, keeps its own order,
    which a resumed trial cannot repeat.

    Args:
        loader: Batches.
        seed: The study's seed.
        taken: Batches taken by earlier attempts; those of the present epoch are drawn at once.
        device: The device whose generator the loader may draw from, besides the CPU's.
        epoch_steps: The length of a loader that does not know its own.

    Raises:
        SpecError: If the loader has no length, or none at all.
        WorkloadError: If an epoch gives another number of batches than that length; the iterator
            raises it where it comes to that.
    """
    epoch, skipped = divmod(taken, length_of(loader, epoch_steps))
    batches = _batches_from(epoch, loader, seed, device, epoch_steps)
    for _ in range(skipped):
        next(batches)
    return batches


def length_of(loader: Any, epoch_steps: int | None = None) -> int:
    """Returns the number of batches in a loader.

    Args:
        loader: The loader.
        epoch_steps: The number to take where it has no length, as over an iterable dataset.

    Raises:
        SpecError: If it has no length, or none at all.
    """
    try:
        length = len(loader)
    except TypeError:
        if epoch_steps is not None:
            return epoch_steps
        raise SpecError(
            f"run.steps() was given a {type(loader).__name__}, which has no length: say how many "
            "batches it gives an epoch, by budget.epoch_steps in the study file or "
            "run.measure(...) in the loop; or iterate over it yourself within "
            "'for step in run.steps():', with budget.steps."
        ) from None
    if length < 1:
        raise SpecError("run.steps() was given a loader without batches: it needs at least one.")
    return length


def _batches_from(
    epoch: int, loader: Any, seed: int, device: torch.device, epoch_steps: int | None
) -> Iterator[Any]:
    length = length_of(loader, epoch_steps)
    for present in count(epoch):
        _set_epoch(loader, present)
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
                f"{_name_remedy(loader)}, or iterate over it yourself within "
                "'for step in run.steps():', with budget.steps."
            )


def _set_epoch(loader: Any, epoch: int) -> None:
    """Tells a loader or its sampler the epoch, where it draws its order by that."""
    drawing: tuple[Any, Any] = (loader, getattr(loader, "sampler", None))
    for each in drawing:
        if hasattr(each, "set_epoch"):
            each.set_epoch(epoch)


def _name_remedy(loader: Any) -> str:
    """Returns how many batches a loader must give, and what to correct where it gives others."""
    try:
        len(loader)
    except TypeError:
        return (
            "as many batches as budget.epoch_steps or run.measure(...) says. Correct that number, "
            "have an endless stream end after so many"
        )
    return "len(loader) batches. Correct its __iter__ or __len__"
