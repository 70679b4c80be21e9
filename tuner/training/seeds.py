"""Seeds of a trial's random draws, derived from the study's seed by purpose and count."""

from __future__ import annotations

import contextlib
import hashlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


def derive_seed(seed: int, *path: str | int) -> int:
    """Returns a seed for one purpose, independent of the seeds for every other.

    Args:
        seed: The seed to derive from.
        path: Its purpose and count, such as ``("data", 3)``.

    Returns:
        A seed between 0 and 2**63 - 1.

    >>> derive_seed(0, "data", 1) == derive_seed(0, "data", 1) != derive_seed(0, "data", 2)
    True
    """
    text = "/".join(str(part) for part in (seed, *path))
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def split_seed(seed: int) -> int:
    """Returns the seed to split the data by, of trials that train with a seed.

    All trials of a search share one, as they share its seed; where finalists run again, those of
    each fresh seed do.

    Args:
        seed: The study's seed, or a fresh one.

    Returns:
        A seed between 0 and 2**32 - 1, as NumPy's RandomState and scikit-learn take it.
    """
    return derive_seed(seed, "split") % 2**32


class BatchOrder:
    """Draws the examples of each step, from a new seeded permutation each epoch.

    The order depends on the seed and the step alone, so a resumed trial sees what it would have
    seen. The last, smaller batch of an epoch is left out. A batch of all examples has them in
    their own order, since there is nothing to choose.

    Args:
        examples: Size of the training set.
        batch_size: Examples a step, at most ``examples``.
        seed: The study's seed.
        device: The device of the indices.
    """

    def __init__(self, examples: int, batch_size: int, seed: int, device: torch.device) -> None:
        self.batch_size = batch_size
        self.steps_per_epoch = examples // batch_size
        self._examples = examples
        self._seed = seed
        self._device = device
        self._epoch = -1
        self._batches: tuple[torch.Tensor, ...] = ()
        self._all = torch.arange(examples, device=device) if batch_size == examples else None

    def __call__(self, step: int) -> torch.Tensor:
        """Returns the indices of a step's examples, int64 of shape (batch_size,)."""
        if self._all is not None:
            return self._all
        epoch, position = divmod(step, self.steps_per_epoch)
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(derive_seed(self._seed, "data", epoch))
            order = torch.randperm(self._examples, generator=generator).to(self._device)
            self._batches = order.split(self.batch_size)
            self._epoch = epoch
        return self._batches[position]


def seed_all(seed: int) -> None:
    """Seeds every source of randomness that training code draws from."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    seed_torch(seed)


def seed_torch(seed: int) -> None:
    """Seeds torch's generators, of all devices."""
    if torch.accelerator.is_available():
        torch.manual_seed(seed)
    else:
        # Torch's own takes down the stack for accelerators that may turn up, for 0.2 ms.
        torch.default_generator.manual_seed(seed)


@contextlib.contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """Seeds every source of randomness within the block, and restores all of them after it.

    Args:
        seed: The seed.
        device: The device whose generator is restored, besides those of the CPU.
    """
    with undisturbed(device):
        seed_all(seed)
        yield


@contextlib.contextmanager
def undisturbed(device: torch.device) -> Iterator[None]:
    """Restores every source of randomness after the block.

    Args:
        device: The device whose generator is restored, besides those of the CPU.
    """
    before = random_state(device)
    try:
        yield
    finally:
        restore_random_state(before, device)


def random_state(device: torch.device) -> dict[str, Any]:
    """Returns the state of every source of randomness as plain data and tensors."""
    cuda = device.type == "cuda"
    name, keys, *rest = np.random.get_state()
    return {
        "torch": torch.get_rng_state(),
        "device": torch.cuda.get_rng_state(device) if cuda else None,
        "numpy": (name, torch.from_numpy(np.asarray(keys, dtype=np.int64)), *rest),
        "python": random.getstate(),
    }


def restore_random_state(state: dict[str, Any], device: torch.device) -> None:
    """Restores every source of randomness from a :func:`random_state`.

    Raises:
        Exception: Any kind, if the state is of something else.
    """
    torch.set_rng_state(state["torch"].cpu())
    if state["device"] is not None and device.type == "cuda":
        torch.cuda.set_rng_state(state["device"].cpu(), device)
    name, keys, position, *rest = state["numpy"]
    if not 0 <= position <= len(keys):
        # NumPy itself reads on beyond its table.
        raise ValueError(f"NumPy's position {position} is not within its {len(keys)} keys")
    np.random.set_state((name, keys.cpu().numpy().astype(np.uint32), position, *rest))
    version, internal, gauss = state["python"]
    random.setstate((version, tuple(internal), gauss))
