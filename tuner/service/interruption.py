"""Requests to stop: Ctrl-C, SIGTERM, or the end of the process that started this one."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
from collections.abc import Iterator
from types import FrameType
from typing import Any

from tuner.errors import WorkloadError

GRACE_S = 30.0
"""Time to save work after being asked to stop, in seconds."""

_SIGNALS = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}
_MOMENT_S = 1.0


class Interruption:
    """Turns signals into a flag that training checks between steps.

    Args:
        follow_stdin: Whether the end of standard input asks for a stop, too: it comes when the
            parent process, which holds the other end, has died.
        ends_at_once: Whether a signal that insists raises KeyboardInterrupt, wherever it comes.

    Attributes:
        requested: Whether to stop.
        requested_by: The source of the first request, such as "Ctrl-C"; empty if it has no name.
        requested_at: The time of the first request by the monotonic clock, in seconds, or None.
        insisted: Whether another request came more than a second after the first.
    """

    def __init__(self, *, follow_stdin: bool = False, ends_at_once: bool = False) -> None:
        self.requested = False
        self.requested_by = ""
        self.requested_at: float | None = None
        self.insisted = False
        self._event = threading.Event()
        self._follow_stdin, self._ends_at_once = follow_stdin, ends_at_once
        self._raises = False
        self._former: dict[signal.Signals, Any] = {}

    def request(self, by: str = "") -> None:
        """Asks for a stop.

        Args:
            by: The source of the request, for a person to read.
        """
        now = time.monotonic()
        if self.requested_at is None:
            self.requested_at, self.requested_by = now, by
        # Pressing twice in quick succession is impatience, not a decision to lose work.
        self.insisted = now - self.requested_at > _MOMENT_S
        self.requested = True
        self._event.set()

    def wait(self, seconds: float) -> bool:
        """Waits for some seconds; returns True at once when a stop is asked for, else False."""
        return self._event.wait(seconds)

    @contextlib.contextmanager
    def raising(self) -> Iterator[None]:
        """Makes signals end the block at once, for a time in which there is nothing to save.

        Raises:
            KeyboardInterrupt: If a signal comes, or a stop has been asked for before.
            WorkloadError: If code of the user's raises KeyboardInterrupt itself.
        """
        self._raises = True
        try:
            self._end_if_asked()
            yield
        except KeyboardInterrupt as error:
            if self.requested_at is not None:
                raise
            raise WorkloadError(
                "The workload has raised KeyboardInterrupt, though nobody asked for a stop: "
                "let it raise another exception, such as RuntimeError."
            ) from error
        finally:
            self._raises = False

    def _end_if_asked(self) -> None:
        if self.requested_at is not None:
            raise KeyboardInterrupt

    def __enter__(self) -> Interruption:
        if threading.current_thread() is not threading.main_thread():
            return self  # signals are the main thread's, which goes on with its own work
        _listening.add(self)
        for number in _SIGNALS:
            self._former[number] = signal.signal(number, self._handle)
        if hasattr(signal, "pthread_sigmask"):
            # A parent may have blocked them, which children inherit; Ray's processes do.
            signal.pthread_sigmask(signal.SIG_UNBLOCK, _SIGNALS)
        if self._follow_stdin:
            threading.Thread(target=self._watch_stdin, daemon=True).start()
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former.clear()
        _listening.discard(self)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.request(_SIGNALS[signal.Signals(number)])
        if self._raises or (self._ends_at_once and self.insisted):
            raise KeyboardInterrupt

    def _watch_stdin(self) -> None:
        # Reading the descriptor itself takes no lock that a process at its end would wait for.
        while os.read(sys.stdin.fileno(), 1024):
            pass
        self.request()


@contextlib.contextmanager
def holding_signals() -> Iterator[None]:
    """Holds signals back until the end of a block that imports modules.

    Python runs code of its own in imports, in which it prints a KeyboardInterrupt and forgets it.

    Raises:
        KeyboardInterrupt: At the end of the block, if a signal came within.
    """
    with Interruption() as interruption:
        yield
    if interruption.requested:
        raise KeyboardInterrupt


# A process that a workload forks, such as a loader's worker, would do nothing about SIGTERM but set
# a flag that it never looks at, and its parent could not end it. Ctrl-C reaches it too, and is its
# parent's matter, which still needs it to finish the step.

_listening: set[Interruption] = set()
_masks = threading.local()


def _hold_signals() -> None:
    # One that came before the fork is over would be forgotten by Python.
    _masks.former = signal.pthread_sigmask(signal.SIG_BLOCK, _SIGNALS)


def _let_signals_come() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _masks.former)


def _begin_as_fork() -> None:
    if _listening:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, lambda number, frame: None)
        _listening.clear()
    _let_signals_come()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(
        before=_hold_signals,
        after_in_parent=_let_signals_come,
        after_in_child=_begin_as_fork,
    )
