"""Numbers that a training loop keeps beside its trial."""

from __future__ import annotations

import torch

from tuner.training.numbers import check_name, to_float


class Logged:
    """What has been logged and not yet been taken; tensors are read when it is."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, str, float | torch.Tensor]] = []

    def add(self, step: int, name: str, value: float | torch.Tensor) -> None:
        """Keeps a number.

        Raises:
            WorkloadError: If it is no single number, or no database can keep its name.
        """
        check_name("run.log", name)
        if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex():
            self._kept.append((step, name, value.detach().clone()))
        else:
            self._kept.append((step, name, to_float(value, name)))

    def take(self) -> list[tuple[int, str, float]]:
        """Returns (step, name, value) of what was kept since the last call.

        This waits for the device.
        """
        kept, self._kept = self._kept, []
        return [(step, name, float(value)) for step, name, value in kept]
