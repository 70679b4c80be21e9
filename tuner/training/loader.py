"""Going through a data loader epoch after epoch, in an order that a resumed trial repeats."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch

from tuner.errors import SpecError
from tuner.training.seeds import derive_seed


class ResumableLoader:
    """An endless iterator over a loader's batches, from any point on.

    Before each epoch torch's global generator, from which a DataLoader draws its order, is
    seeded by the study's seed and the epoch, and put back afterwards. A loader with a generator
    of its own keeps its own order, which a resumed trial cannot repeat.

    Args:
        loader: Batches, with a length.
        seed: The study's seed.
        taken: Batches taken by earlier attempts.
    """

    def __init__(self, loader: Any, seed: int, taken: int) -> None:
        self._loader = loader
        self._seed = seed
        self._epoch, skipped = divmod(taken, length_of(loader))
        self._batches: Iterator[Any] | None = None
        if skipped:
            self._batches = self._open()
            for _ in range(skipped):
                next(self._batches)

    def __iter__(self) -> ResumableLoader:
        return self

    def __next__(self) -> Any:
        if self._batches is None:
            self._batches = self._open()
        try:
            return next(self._batches)
        except StopIteration:
            self._epoch += 1
            self._batches = self._open()
            return next(self._batches)

    def _open(self) -> Iterator[Any]:
        before = torch.get_rng_state()
        torch.manual_seed(derive_seed(self._seed, "data", self._epoch))
        batches = iter(self._loader)
        # A sampler draws its order when it is first asked.
        first = next(batches)
        torch.set_rng_state(before)
        return _prepend(first, batches)


def length_of(loader: Any) -> int:
    """Returns how many batches a loader has.

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


def _prepend(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest
