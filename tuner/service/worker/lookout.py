"""The lookout of a worker: it reads pause and stop requests from the database while training."""

from __future__ import annotations

import time

from tuner.domain.states import StudyState
from tuner.service.worker.context import WorkerContext

LOOK_S = 5.0
"""Seconds between two looks, between reports."""

LOOK_AT_REPORTS_S = 1.0
"""Seconds between two looks at reports, where the database is asked anyway."""


class Lookout:
    """Reads whether the worker is asked to pause, stop or leave, while it trains a trial.

    Args:
        context: The worker's access to its study.

    Attributes:
        stopped_by: What has ended the study, ``stop`` or ``wall_time``, or None.
    """

    def __init__(self, context: WorkerContext) -> None:
        self._context = context
        self._paused = False
        self._looked_at = time.monotonic()
        self.stopped_by: str | None = None

    @property
    def halts(self) -> bool:
        """Whether training is to stop where it is."""
        return self._context.interruption.requested or self._paused or self.stopped_by is not None

    def look(self, every_s: float) -> None:
        """Asks the database, unless it was asked just now.

        Args:
            every_s: Seconds that the last answer counts.

        Raises:
            UnavailableError: If the database is away.
        """
        if time.monotonic() - self._looked_at <= every_s:
            return
        self._looked_at = time.monotonic()
        signals = self._context.ledger.signals()
        if signals.leaving:
            self._context.leaving = True
            self._context.interruption.request()
        self._paused = signals.state is StudyState.PAUSED
        if signals.state is StudyState.STOPPED:
            self.stopped_by = "stop"
        elif signals.out_of_time:
            self.stopped_by = "wall_time"
