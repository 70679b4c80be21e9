"""What a trial has to tell the database, kept in order while the database is away."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from tuner.errors import UnavailableError
from tuner.store.connection.retries import Backoff, Clock, Patience

Operation = Callable[[], object]
"""Writes once: closes over all it writes, and may run twice (see Patience)."""


class Outbox:
    """The reports of one trial on their way, so that training goes on without the database.

    ::

        outbox = Outbox(seed=seed)
        outbox.put(lambda: ledger.report(lease, step, progress, value))  # at every evaluation
        outbox.flush(patience)  # before the trial's end is told
        patience.run(lambda: ledger.finish(lease, state, value, attributes))

    An error other than UnavailableError passes through at once, and what raised it is dropped, for
    it would only raise again. After a LeaseLostError the outbox is of no more use: another worker
    has the trial, and the next one gets an outbox of its own.

    Args:
        seed: Of the pauses between attempts; give each worker its own.
        clock: What seconds are counted by.
    """

    def __init__(self, *, seed: int, clock: Clock = time.monotonic) -> None:
        self._pending: deque[Operation] = deque()
        self._backoff = Backoff(seed)
        self._clock = clock
        self._quiet_until = float("-inf")

    def __len__(self) -> int:
        """How many operations have not been delivered."""
        return len(self._pending)

    def put(self, operation: Operation) -> bool:
        """Adds an operation, and delivers what is pending, unless the database was just away.

        It never waits longer than one attempt takes.

        Args:
            operation: What is to happen after everything put before it.

        Returns:
            Whether nothing is pending any more.

        Raises:
            LeaseLostError: If the trial belongs to another worker by now.
        """
        self._pending.append(operation)
        return self.deliver()

    def deliver(self) -> bool:
        """Delivers what is pending, unless the database was just away; see :meth:`put`."""
        if self._clock() < self._quiet_until:
            return False
        try:
            while self._pending:
                self._deliver_first()
        except UnavailableError:
            self._quiet_until = self._clock() + self._backoff.draw_s()
            return False
        self._backoff.reset()
        return True

    def flush(self, patience: Patience) -> None:
        """Delivers everything, waiting for the database as long as it takes.

        Args:
            patience: How long to wait for each operation.

        Raises:
            UnavailableError: If the database stays away; what is pending stays pending.
            LeaseLostError: If the trial belongs to another worker by now.
        """
        while self._pending:
            patience.run(self._deliver_first)
        self._backoff.reset()
        self._quiet_until = float("-inf")

    def _deliver_first(self) -> None:
        operation = self._pending.popleft()
        try:
            operation()
        except UnavailableError:
            self._pending.appendleft(operation)
            raise
