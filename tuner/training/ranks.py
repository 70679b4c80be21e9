"""The ranks of a trial: its place among the processes that train it together, and its share."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch import nn
from torch.utils.data import DataLoader, DistributedSampler

from tuner.errors import SpecError, WorkloadError


@dataclass(frozen=True)
class Ranks:
    """A process's place among those that train a trial together.

    Attributes:
        rank: Its number, from 0.
        size: How many there are.
    """

    rank: int = 0
    size: int = 1

    def share_of(self, batch_size: int) -> int:
        """Returns the examples of a step that one rank takes.

        Raises:
            SpecError: If the ranks cannot take equally many.
        """
        if batch_size % self.size:
            raise SpecError(
                f"train.batch_size = {batch_size}: {self.size} processes cannot share it equally: "
                f"make it a multiple of {self.size}, or change --processes."
            )
        return batch_size // self.size

    def share(self, loader: Any) -> Any:
        """Returns the batches that this rank takes of a loader's.

        Each rank takes every n-th one, so that n of them, one a rank, are the examples that one
        process would have in a batch n times as large; what does not go round is left out. A loader
        over a DistributedSampler, or one that Accelerate has prepared, is shared out already.

        Args:
            loader: Batches, the same on all ranks.

        Raises:
            WorkloadError: If Accelerate has prepared it without knowing of the other ranks.
        """
        if self.size == 1 or self._is_shared(loader):
            return loader
        if isinstance(loader, DataLoader) and loader.batch_sampler is not None:
            return self._share_sampler(loader)
        return _EveryNth(loader, self)

    def _is_shared(self, loader: Any) -> bool:
        """Tells whether a loader gives each rank batches of its own."""
        if isinstance(getattr(loader, "sampler", None), DistributedSampler):
            return True
        # Who has not loaded it has prepared nothing.
        accelerate = sys.modules.get("accelerate.data_loader")
        if accelerate is None or not isinstance(loader, accelerate.DataLoaderStateMixin):
            return False
        known = int(accelerate.PartialState().num_processes)
        if known != self.size:
            raise WorkloadError(
                f"{self.size} processes train this trial, but Accelerate knows of {known}: on a "
                "CPU, make it Accelerator(cpu=True), and make it within train(run)."
            )
        return True

    def _share_sampler(self, loader: DataLoader[Any]) -> DataLoader[Any]:
        """Returns a loader that does not load what other ranks take."""
        workers = loader.num_workers
        return DataLoader(
            loader.dataset,
            batch_sampler=_EveryNth(loader.batch_sampler, self),
            num_workers=workers,
            collate_fn=loader.collate_fn,
            pin_memory=loader.pin_memory,
            timeout=loader.timeout,
            worker_init_fn=loader.worker_init_fn,
            multiprocessing_context=loader.multiprocessing_context,
            generator=loader.generator,
            prefetch_factor=loader.prefetch_factor if workers else None,
            persistent_workers=loader.persistent_workers,
        )


def is_sharded(model: nn.Module) -> bool:
    """Tells whether ranks hold parts of a model's parameters each, as with FSDP."""
    # Who has not loaded these modules, which takes seconds, has sharded nothing.
    fsdp, tensor = (sys.modules.get(f"torch.distributed.{name}") for name in ("fsdp", "tensor"))
    wrapped = fsdp is not None and any(
        isinstance(module, fsdp.FullyShardedDataParallel) for module in model.modules()
    )
    return wrapped or (
        tensor is not None
        and any(isinstance(parameter, tensor.DTensor) for parameter in model.parameters())
    )


class _EveryNth:
    """Iterates over every n-th batch, from the rank's on, in whole rounds.

    Args:
        batches: All batches, with a length.
        ranks: The rank, and how many there are.
    """

    def __init__(self, batches: Any, ranks: Ranks) -> None:
        self._batches, self._ranks = batches, ranks

    def __len__(self) -> int:
        return len(self._batches) // self._ranks.size

    def __iter__(self) -> Iterator[Any]:
        ranks = self._ranks
        return islice(islice(self._batches, ranks.rank, None, ranks.size), len(self))
