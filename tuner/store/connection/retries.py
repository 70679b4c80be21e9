"""Waiting for a database that is away: trying again, less and less often, up to a limit.

Pauses double and are drawn at random below that ("full jitter"), so that many workers do not come
back to a database all at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from tuner.errors import UnavailableError

T = TypeVar("T")

Wait = Callable[[float], object]
"""Waits for so many seconds; true where a stop is asked for, as ``threading.Event.wait``."""

Clock = Callable[[], float]
"""Seconds that only grow."""

Log = Callable[[str], object]
"""Takes a line of text."""

PATIENCE_S = 1200.0
"""How long a worker waits for a database that is away, in seconds."""

_FIRST_S = 0.5
_LONGEST_S = 30.0


class Backoff:
    """Pauses between attempts, in seconds: each drawn below a bound that doubles.

    Args:
        seed: Of the draws; give each worker its own.
        first_s: The first bound.
        longest_s: The largest bound.
    """

    def __init__(
        self, seed: int, *, first_s: float = _FIRST_S, longest_s: float = _LONGEST_S
    ) -> None:
        self._random = random.Random(seed)  # noqa: S311 (no secret)
        self._first_s = first_s
        self._longest_s = longest_s
        self._bound_s = first_s

    def draw_s(self) -> float:
        """Returns the next pause."""
        bound = self._bound_s
        self._bound_s = min(2 * bound, self._longest_s)
        return self._random.uniform(0.0, bound)

    def reset(self) -> None:
        """Starts over with short pauses: an attempt has succeeded."""
        self._bound_s = self._first_s


class Patience:
    """Runs an operation again while the database is away.

    ::

        patience = Patience(limit_s=600, wait=interruption.wait, seed=seed)
        lease = patience.run(lambda: ledger.start(defaults, proposal))

    Where a connection is lost while it commits, the operation may have happened, so it has to be
    one that may run twice, as those of :class:`~tuner.store.Ledger` are: the
    second ``finish`` of a trial raises LeaseLostError and changes nothing, and a start that was not
    heard of is taken by the next ``take_over``.

    Args:
        limit_s: Seconds after which the last error is raised.
        wait: Waits between attempts. Once it returns true, for a stop is asked for, the
            operation is tried a last time.
        seed: Of the pauses; give each worker its own.
        clock: What seconds are counted by.
        log: Is told once what an operation waits for, if that is more than a moment.
    """

    def __init__(
        self,
        *,
        limit_s: float,
        wait: Wait,
        seed: int,
        clock: Clock = time.monotonic,
        log: Log = lambda line: None,
    ) -> None:
        self._limit_s = limit_s
        self._wait = wait
        self._clock = clock
        self._log = log
        self._backoff = Backoff(seed)

    def run(self, operation: Callable[[], T]) -> T:
        """Runs an operation until it raises something else than UnavailableError, or nothing.

        Returns:
            What the operation returns.

        Raises:
            UnavailableError: If the database was away for longer than the limit, or a stop was
                asked for while it was.
        """
        self._backoff.reset()
        give_up_at = self._clock() + self._limit_s
        failures = 0
        while True:
            try:
                return operation()
            except UnavailableError as error:
                left_s = give_up_at - self._clock()
                if left_s <= 0:
                    raise UnavailableError(
                        f"{error} It was tried for {self._limit_s:g} s."
                    ) from error
                failures += 1
                if failures == 2:  # once may be a conflict between transactions
                    self._log(f"{error} It is tried again for {left_s:.0f} s.")
            if self._wait(min(self._backoff.draw_s(), left_s)):
                return operation()
