"""Displays of a study in training: a live one on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from typing import TextIO

from rich.console import Console
from rich.live import Live
from rich.text import Text

from tuner.domain.printable import printable
from tuner.domain.trials import TrialRecord
from tuner.report.tables import duration
from tuner.service.display.live import ENDED_EARLY, LiveView, tell_ending, tell_used
from tuner.service.pools.pool import Exit, Seat, SeatState
from tuner.service.study_progress import StudyProgress

_TIMED_EVERY_S = 15.0
"""Seconds between two lines that say how long all of it takes."""

_PATIENCE_S = 10.0
"""Seconds for which workers may wait for a place before a line says so."""

_REMINDER_S = 60.0
"""Seconds between two such lines."""


def choose_display(
    out: Console, *, quiet: bool = False, tell_workers: bool = False
) -> Lines | LiveDisplay:
    """Returns a display on a console: a live one if that is a terminal, else plain lines.

    Args:
        out: The console.
        quiet: Whether to show warnings only.
        tell_workers: Whether lines tell which workers come and go.
    """
    roster = Roster() if tell_workers else None
    if quiet:
        return Lines(out, roster, quiet=True)
    if out.is_terminal and not out.is_dumb_terminal:
        return LiveDisplay(out, roster)
    return Lines(out, roster)


class _Warner:
    """Prints lines of text, and keeps those that warn, to repeat them at the end.

    Between :meth:`open` and :meth:`close` it takes Python's own warnings, too.

    Args:
        out: The console that prints them.

    Attributes:
        hears: Whether it takes Python's warnings, which are the whole process's.
    """

    def __init__(self, out: Console) -> None:
        self.hears = True
        self._out = out
        self._warned: dict[str, None] = {}
        self._catching = warnings.catch_warnings()

    def open(self) -> None:
        """Takes Python's warnings from here on, and prints them as lines."""
        if not self.hears:
            return
        self._catching.__enter__()
        warnings.showwarning = self._hear

    def close(self) -> None:
        """Leaves Python's warnings to Python again."""
        if not self.hears:
            return
        self._catching.__exit__(None, None, None)
        self._catching = warnings.catch_warnings()

    def _hear(
        self,
        message: Warning | str,
        category: type[Warning],
        filename: str,
        lineno: int,
        file: TextIO | None = None,
        line: str | None = None,
    ) -> None:
        self.warn(warnings.formatwarning(message, category, filename, lineno, line).strip())

    def say(self, text: str) -> None:
        """Prints a line of text."""
        self._out.print(Text(text), soft_wrap=True)

    def warn(self, text: str) -> None:
        """Prints a line of text, and keeps it for the end."""
        self._warned[text] = None
        _Warner.say(self, text)

    def recall(self) -> None:
        """Prints the warnings again, each once."""
        if self._warned:
            _Warner.say(self, "\nWarnings of this run:")
            for text in self._warned:
                _Warner.say(self, f"- {text}")
        self._warned.clear()


class Lines(_Warner):
    """Prints one line a finished trial, without control codes.

    Args:
        out: The console that prints them.
        roster: Remembers the workers seen; without it, no line tells of workers.
        quiet: Whether to print warnings only.
    """

    def __init__(self, out: Console, roster: Roster | None = None, *, quiet: bool = False) -> None:
        super().__init__(out)
        self._roster = roster
        self._quiet = quiet
        self._timed_at_s = 0.0

    def __enter__(self) -> Lines:
        self.open()
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def say(self, text: str) -> None:
        """Prints a line of text."""
        if not self._quiet:
            super().say(text)

    def show_workers(self, seats: Sequence[Seat], exits: Sequence[Exit]) -> None:
        """Prints a line for each worker that came or went, and one if there is no room."""
        if self._roster is None:
            return
        for line in self._roster.changes(seats, exits):
            self.say(line)
        lack = self._roster.lack_of_room(seats, time.monotonic())
        if lack is not None:
            self.say(lack)

    def show(self, progress: StudyProgress, finished: Iterable[TrialRecord]) -> None:
        """Prints how trials ended, and now and then how long all of it takes."""
        for record in finished:
            self._tell(progress, record)

    def _tell(self, progress: StudyProgress, record: TrialRecord) -> None:
        ended = progress.counts
        counts = ", ".join(
            [
                f"{progress.finished}/{progress.study.spec.budget.trials} done",
                *tell_used(progress),
                *(f"{ended[way]} {way.value}" for way in ENDED_EARLY if ended[way]),
            ]
        )
        ending = tell_ending(progress.study.spec.study, record)
        self.say(printable(f"{ending} | {counts} | best {progress.best()}{self._time(progress)}"))

    def _time(self, progress: StudyProgress) -> str:
        elapsed_s, left_s = progress.elapsed_s, progress.time_left_s()
        if not left_s or elapsed_s - self._timed_at_s < _TIMED_EVERY_S:
            return ""
        self._timed_at_s = elapsed_s
        return f" | {duration(elapsed_s)}, about {duration(left_s)} left"


class LiveDisplay(_Warner):
    """Redraws in place: how far the study is, its standings, its workers and the last endings.

    Args:
        out: The console, a terminal.
        roster: Remembers whether workers lack room; without it, no line says so.
    """

    def __init__(self, out: Console, roster: Roster | None = None) -> None:
        super().__init__(out)
        self._live: Live = Live(console=out, refresh_per_second=4)
        self._roster = roster
        self._seats: Sequence[Seat] = ()

    def __enter__(self) -> LiveDisplay:
        self.open()
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()
        self.close()

    def show_workers(self, seats: Sequence[Seat], exits: Sequence[Exit]) -> None:
        """Keeps the workers for the table, and prints a line if there is no room for them."""
        self._seats = seats
        lack = self._roster and self._roster.lack_of_room(seats, time.monotonic())
        if lack:
            self.say(lack)

    def show(self, progress: StudyProgress, finished: Iterable[TrialRecord]) -> None:
        """Draws the study as it is now."""
        for _ in finished:
            pass  # it is counted in what is drawn
        self._live.update(LiveView(progress, self._seats))


class Roster:
    """Remembers a pool's workers, and returns lines about those that have come or gone since."""

    def __init__(self) -> None:
        self._pids: dict[int, int] = {}
        self._waiting_since: float | None = None
        self._said_at = float("-inf")

    def changes(self, seats: Sequence[Seat], exits: Sequence[Exit]) -> Iterator[str]:
        """Yields a line for each worker that has ended for good or started.

        Args:
            seats: The pool's seats as they are now.
            exits: The workers that have ended since the last call.
        """
        for ended in exits:
            if ended.gave_up:
                reason, *_ = ended.message.splitlines()
                yield f"worker {ended.index} gave up: {reason}"
            elif ended.died and not ended.restarted:
                yield ended.message
            elif not ended.died and ended.index in self._pids:
                yield f"worker {ended.index} ended"
        for seat in seats:
            index, pid = seat.slot.index, seat.pid
            if pid is not None and self._pids.get(index) != pid:
                again = " again" if index in self._pids else ""
                self._pids[index] = pid
                yield f"worker {index} started{again}: {seat.device} of {seat.host}, process {pid}"

    def lack_of_room(self, seats: Sequence[Seat], now_s: float) -> str | None:
        """Returns a line now and then while workers wait for a place, else None.

        Args:
            seats: The pool's seats as they are now.
            now_s: Seconds, by a clock that only goes forward.
        """
        waiting = sum(seat.state is SeatState.WAITING for seat in seats)
        if not waiting:
            self._waiting_since = None
            return None
        if self._waiting_since is None:
            self._waiting_since = now_s
        if now_s - self._waiting_since < _PATIENCE_S or now_s - self._said_at < _REMINDER_S:
            return None
        self._said_at = now_s
        return f"waiting for room: {len(seats) - waiting} of {len(seats)} workers placed"
