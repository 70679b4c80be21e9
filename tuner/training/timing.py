"""The seconds that a trial spends in training and in evaluation."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field

import torch

from tuner.training.device import wait_for


@dataclass
class Timing:
    """Counts the seconds that a trial has spent, over all attempts.

    Attributes:
        train_s: Seconds in training.
        eval_s: Seconds in evaluation.
    """

    train_s: float = 0.0
    eval_s: float = 0.0
    _device: torch.device | None = field(default=None, repr=False, compare=False)
    _marked_at: float | None = field(default=None, repr=False, compare=False)

    def begin(self, device: torch.device) -> None:
        """Starts counting seconds of training on a device."""
        self._device = device
        self._marked_at = time.perf_counter()

    def mark(self) -> None:
        """Counts the time since the last mark as training."""
        if self._marked_at is not None:
            now = time.perf_counter()
            self.train_s += now - self._marked_at
            self._marked_at = now

    def wait(self) -> None:
        """Waits for the device, and counts the time since the last mark as training."""
        self._wait()
        self.mark()

    def _wait(self) -> None:
        if self._device is not None:
            wait_for(self._device)

    @contextlib.contextmanager
    def evaluation(self) -> Iterator[None]:
        """Counts the block as evaluation, and the device's work queued before it as training."""
        self.wait()
        began = time.perf_counter()
        # Whoever marks within, as when somebody asks how far the trial is, counts nothing.
        counting, self._marked_at = self._marked_at is not None, None
        try:
            yield
        finally:
            self._wait()
            ended = time.perf_counter()
            self.eval_s += ended - began
            if counting:
                self._marked_at = ended

    def state_dict(self) -> dict[str, float]:
        """Returns the seconds spent."""
        return {key: value for key, value in asdict(self).items() if not key.startswith("_")}
