"""Numbers that a workload gives by name: the metrics it reports, and the numbers it logs."""

from __future__ import annotations

import math
from typing import Any

import torch

from tuner.domain.names import LONGEST_NAME, is_keepable
from tuner.errors import WorkloadError


def check_name(call: str, name: str) -> None:
    """Checks that a database can keep the name of a number.

    Args:
        call: The function that was given the name, such as ``run.log``.
        name: The name.

    Raises:
        WorkloadError: If it is empty, too long, or no text in UTF-8.
    """
    if not is_keepable(name):
        raise WorkloadError(
            f"{call} was given {str(name)[:40]!r} as a name: use 1 to {LONGEST_NAME} characters, "
            "such as train_loss."
        )


def to_float(value: Any, name: str) -> float:
    """Returns a number as Python's, waiting for the device where it is a tensor's.

    Args:
        value: The workload's value.
        name: Its name.

    Raises:
        WorkloadError: If it is no single number.
    """
    given = f"of type {type(value).__name__}"
    shape = getattr(value, "shape", None)
    try:
        if shape is None and not isinstance(value, str | bytes):
            return float(value)
        if shape is not None and math.prod(shape) == 1:
            return float(value.item())
        given = given if shape is None else f"of shape {tuple(shape)}"
    except (TypeError, ValueError, OverflowError):
        pass  # it is none
    raise WorkloadError(
        f"{name} is {given}, but it has to be a single number: give its mean, such as "
        f"{name}.mean()."
    )


class Logged:
    """Keeps logged numbers until they are taken; tensors are read only then."""

    def __init__(self) -> None:
        self._kept: list[tuple[int, str, float | torch.Tensor]] = []

    def add(self, step: int, name: str, value: float | torch.Tensor) -> None:
        """Keeps a number.

        Args:
            step: The step it belongs to.
            name: Its name.
            value: A number, or a tensor that holds a single one.

        Raises:
            WorkloadError: If it is no single number, or no database can keep its name.
        """
        check_name("run.log", name)
        if isinstance(value, torch.Tensor) and value.numel() == 1 and not value.is_complex():
            self._kept.append((step, name, value.detach().clone()))
        else:
            self._kept.append((step, name, to_float(value, name)))

    def take(self) -> list[tuple[int, str, float]]:
        """Returns the numbers kept since the last call, as (step, name, value).

        This waits for the device.
        """
        kept, self._kept = self._kept, []
        return [(step, name, float(value)) for step, name, value in kept]
