"""Numbers that a training loop keeps beside its trial."""

from __future__ import annotations

import torch

from tuner.errors import WorkloadError

_LONGEST_NAME = 255


class Logged:
    """What has been logged and not yet been taken; tensors are read when it is."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, str, float | torch.Tensor]] = []

    def add(self, step: int, name: str, value: float | torch.Tensor) -> None:
        """Keeps a number.

        Raises:
            WorkloadError: If it is several, or its name is too long.
        """
        if len(name) > _LONGEST_NAME:
            raise WorkloadError(
                f"run.log was given the name {name[:40]}…: use at most {_LONGEST_NAME} letters."
            )
        if isinstance(value, torch.Tensor) and value.numel() != 1:
            raise WorkloadError(
                f"run.log was given {name} of shape {tuple(value.shape)}: log a single number, "
                "such as its mean or norm."
            )
        kept = value.detach().clone() if isinstance(value, torch.Tensor) else float(value)
        self._kept.append((step, name, kept))

    def take(self) -> list[tuple[int, str, float]]:
        """Returns (step, name, value) of what was kept since the last call.

        This waits for the device.
        """
        kept, self._kept = self._kept, []
        return [(step, name, float(value)) for step, name, value in kept]
