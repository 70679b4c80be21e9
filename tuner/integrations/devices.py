"""The device of a trial, compared with the one that a trainer has chosen for itself."""

from __future__ import annotations

import torch

from tuner.errors import WorkloadError


def check_device(trainer: str, chosen: torch.device, device: torch.device, remedy: str) -> None:
    """Checks that a trainer trains where its worker was told to.

    Args:
        trainer: The trainer, for the message.
        chosen: The device that it has chosen.
        device: The trial's device.
        remedy: How to make it choose the trial's.

    Raises:
        WorkloadError: If it trains elsewhere.
    """
    if (chosen.type, chosen.index or 0) != (device.type, device.index or 0):
        raise WorkloadError(
            f"The {trainer} trains on {chosen}, but this trial's device is {device}: {remedy}."
        )
