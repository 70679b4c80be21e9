"""A watchdog that ends a process that hangs, in a step or after it was asked to stop.

A thread of its own watches, since one that hangs cannot. It ends the process as a crash would: the
operating system frees the worker's lock, and the trial is taken over from its last checkpoint.
"""

from __future__ import annotations

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable

from tuner.errors import WorkloadError
from tuner.service.interruption import GRACE_S, Interruption

HUNG = 75
"""The exit code of a process that was ended because it hung; starting it again is worth it."""

_LOOK_S = 1.0

Log = Callable[[str], None]


class Watchdog:
    """Ends the process when training stalls, or when a stop is ignored for a grace time.

    Before it ends a stalled process, it logs a remedy.

    Args:
        interruption: Tells since when a stop is asked for.
        stall_s: Seconds without a step after which training counts as hung.
        grace_s: Seconds from the request of a stop to its end.
        log: Takes the lines said before the end.
        end: Ends the process with an exit code, at once; None leaves that to whoever owns it, and
            nothing is watched.
    """

    def __init__(
        self,
        interruption: Interruption,
        *,
        stall_s: float,
        grace_s: float = GRACE_S,
        log: Log = lambda line: None,
        end: Callable[[int], object] | None = os._exit,
    ) -> None:
        self._interruption = interruption
        self._stall_s = stall_s
        self._grace_s = grace_s
        self._log = log
        self._end = end
        self._fed_at: float | None = None
        self._warned = False
        self._pid = os.getpid()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def feed(self) -> None:
        """Records a sign of life; from the first call on they have to keep coming.

        Raises:
            WorkloadError: If a process says so that this one has forked.
        """
        if os.getpid() != self._pid:
            raise WorkloadError(
                f"Process {os.getpid()}, forked by the workload, uses the run of process "
                f"{self._pid}, whose trial it is. Let only that one step the optimizer of the run, "
                "report and log; have the other send it what it finds, by a pipe or a queue."
            )
        self._fed_at = time.monotonic()

    def rest(self) -> None:
        """Stops watching for stalls, while nothing trains."""
        self._fed_at = None
        self._warned = False

    def __enter__(self) -> Watchdog:
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        if self._end is None:
            return
        while not self._over.wait(min(_LOOK_S, self._stall_s / 4, self._grace_s / 4)):
            now = time.monotonic()
            warning = self.warn(now)
            if warning is not None:
                self._log(warning)
            verdict = self.judge(now)
            if verdict is None:
                continue
            self._log(verdict)
            # Where it hangs is all that whoever reads the log can go by.
            faulthandler.dump_traceback(file=sys.__stderr__ or sys.stderr)
            self._end(HUNG)
            return

    def warn(self, now: float) -> str | None:
        """Returns a warning, once a trial, when half of the time has passed without a feed.

        Args:
            now: Seconds of the monotonic clock.
        """
        fed_at = self._fed_at
        if self._warned or fed_at is None or now - fed_at <= self._stall_s / 2:
            return None
        self._warned = True
        return (
            f"No step for {self._stall_s / 2:g} s. After {self._stall_s:g} s (train.stall_s) "
            "training counts as hung, and its process is ended. In a long evaluation call "
            "run.alive() now and then, or raise train.stall_s."
        )

    def judge(self, now: float) -> str | None:
        """Returns why the process has to end, None if it need not.

        Args:
            now: Seconds of the monotonic clock.
        """
        asked_at = self._interruption.requested_at
        if asked_at is not None and now - asked_at > self._grace_s:
            return f"Asked to stop {self._grace_s:g} s ago, and it has not: ending the process."
        fed_at = self._fed_at
        if fed_at is not None and now - fed_at > self._stall_s:
            return (
                f"No step for {self._stall_s:g} s (train.stall_s), so training hangs: ending the "
                "process. The trial is taken over from its last checkpoint, if it has one."
            )
        return None
