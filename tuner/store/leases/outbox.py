"""An outbox for writes about trials: kept in order while the database is away."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable

from tuner.errors import UnavailableError
from tuner.store.connection.retries import Backoff, Clock, Patience

Operation = Callable[[], object]
"""A write that closes over all its values; it may run twice (see Patience)."""


class Outbox:
    """Delivers writes in order; it keeps them while the database is away, and training goes on.

    ::

        outbox = Outbox(seed=seed)
        outbox.put(lambda: ledger.report(step, reports))  # at every evaluation
        outbox.flush(patience)  # before the trials end
        patience.run(lambda: ledger.finish(endings))

    An error other than UnavailableError passes through at once, and the write that raised it is
    dropped, for it would only raise again. After a LeaseLostError the outbox is of no more use:
    another worker has the trial, and the next one gets an outbox of its own.

    Args:
        seed: The seed of the pauses between attempts; give each worker its own.
        clock: Returns seconds that only grow.
    """

    def __init__(self, *, seed: int, clock: Clock = time.monotonic) -> None:
        self._pending: deque[Operation] = deque()
        self._backoff = Backoff(seed)
        self._clock = clock
        self._quiet_until = float("-inf")

    def __len__(self) -> int:
        """Returns the number of operations that have not been delivered."""
        return len(self._pending)

    def put(self, operation: Operation) -> bool:
        """Adds an operation, and delivers all pending ones, unless the database was just away.

        It never waits longer than one attempt takes.

        Args:
            operation: The write to run after all that were put before it.

        Returns:
            Whether nothing is pending any more.

        Raises:
            LeaseLostError: If the trial belongs to another worker by now.
        """
        self._pending.append(operation)
        return self.deliver()

    def deliver(self) -> bool:
        """Delivers all pending operations, unless the database was just away; see :meth:`put`."""
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
        """Delivers all pending operations, and waits for the database if it is away.

        Args:
            patience: Waits for each operation, up to its limit.

        Raises:
            UnavailableError: If the database stays away; undelivered operations stay pending.
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
