"""Displays of a study in training: a live one on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tuner.cli.options import console
from tuner.domain.lengths import tell_length
from tuner.domain.objective import tell_value
from tuner.domain.printable import printable
from tuner.domain.trials import Outcome, TrialRecord
from tuner.report.tables import duration, tell_training
from tuner.service.pools.pool import Exit, Seat, SeatState
from tuner.service.study_progress import StudyProgress
from tuner.service.study_run import Display

_ENDED_EARLY = {Outcome.PRUNED: "yellow", Outcome.DIVERGED: "magenta", Outcome.FAILED: "red"}
"""How trials end early, and the colour of each."""

_TIMED_EVERY_S = 15.0
"""Seconds between two lines that say how long all of it takes."""

_PATIENCE_S = 10.0
"""Seconds for which workers may wait for a place before a line says so."""

_REMINDER_S = 60.0
"""Seconds between two such lines."""


def open_display(*, show_workers: bool = False) -> Display:
    """Returns a display on standard error: a live one if that is a terminal, else plain lines.

    Args:
        show_workers: Whether to show each worker, too.
    """
    out = console(stderr=True)
    roster = Roster() if show_workers else None
    return LiveDisplay(out, roster) if out.is_terminal else Lines(out, roster)


class Lines:
    """Prints one line a finished trial, without control codes.

    Args:
        out: The console that prints them.
        roster: Remembers the workers seen; without it, no line tells of workers.
    """

    def __init__(self, out: Console, roster: Roster | None = None) -> None:
        self._out = out
        self._roster = roster
        self._timed_at_s = 0.0

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def say(self, text: str) -> None:
        """Prints a line of text."""
        self._out.print(Text(text), soft_wrap=True)

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
        section = progress.study.spec.study
        value = "" if record.value is None else f" {tell_value(section, record.value)}"
        ended = progress.counts
        counts = ", ".join(
            [
                f"{progress.finished}/{progress.study.spec.budget.trials} done",
                *_tell_training(progress),
                *(f"{ended[way]} {way.value}" for way in _ENDED_EARLY if ended[way]),
            ]
        )
        complete = record.outcome is Outcome.COMPLETE
        length = tell_length(record.attributes) if complete else ""
        ending = f"{record.outcome.value}{value}{length and f', {length}'}"
        line = (
            f"trial {record.number} {record.optimizer}/{record.schedule} {ending} | "
            f"{counts} | best {progress.best()}{self._time(progress)}"
        )
        self.say(printable(line))

    def _time(self, progress: StudyProgress) -> str:
        elapsed_s, left_s = progress.elapsed_s, progress.time_left_s()
        if not left_s or elapsed_s - self._timed_at_s < _TIMED_EVERY_S:
            return ""
        self._timed_at_s = elapsed_s
        return f" | {duration(elapsed_s)}, about {duration(left_s)} left"


class LiveDisplay:
    """Redraws in place: a progress bar, a line of counts, and a table of workers if asked for.

    Args:
        out: The console, a terminal.
        roster: Remembers the workers seen; without it, workers are not shown.
    """

    def __init__(self, out: Console, roster: Roster | None = None) -> None:
        self._live: Live = Live(console=out, refresh_per_second=4)
        self._roster = roster
        self._seats: Sequence[Seat] = ()

    def __enter__(self) -> LiveDisplay:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        """Prints a line of text above."""
        self._live.console.print(Text(text))

    def show_workers(self, seats: Sequence[Seat], exits: Sequence[Exit]) -> None:
        """Keeps the workers for the table, and prints a line if there is no room for them."""
        if self._roster is None:
            return
        self._seats = seats
        lack = self._roster.lack_of_room(seats, time.monotonic())
        if lack is not None:
            self.say(lack)

    def show(self, progress: StudyProgress, finished: Iterable[TrialRecord]) -> None:
        """Draws the progress of the study, and the table of workers."""
        for _ in finished:
            pass  # it is counted in what is drawn
        drawn = _draw(progress)
        if self._seats:
            drawn.renderables.append(_draw_seats(self._seats, progress.read_workers_trials()))
        self._live.update(drawn)


def _draw(progress: StudyProgress) -> Group:
    counts, total = progress.counts, progress.study.spec.budget.trials
    left = progress.time_left_s()
    line = Table.grid(padding=(0, 1))
    line.add_row(
        Text(progress.study.name, style="bold"),
        ProgressBar(total=1.0, completed=progress.share_done, width=40),
        f"{progress.finished}/{total}",
        *_tell_training(progress),
        "starting …" if left is None else f"{duration(left)} left",
    )
    details = Text.assemble(
        f"{counts[Outcome.RUNNING]} running  ",
        *(f"{counts[o]} {o.value}  " for o in (Outcome.WAITING, Outcome.PAUSED) if counts[o]),
        *((f"{counts[o]} {o.value}  ", style) for o, style in _ENDED_EARLY.items() if counts[o]),
        (f"best {progress.best()}", "green"),
    )
    return Group(line, details)


def _tell_training(progress: StudyProgress) -> list[str]:
    """Returns what is used of a budget in full trials; nothing without such a budget."""
    limit = progress.study.spec.budget.full_trials
    return [] if limit is None else [f"{tell_training(progress.used, limit)} full trials"]


def _draw_seats(seats: Sequence[Seat], trials: Mapping[tuple[str, int], tuple[int, ...]]) -> Table:
    columns = ("slot", "device", "pid", "state", "trial", "restarts")
    table = Table(*columns, box=None, header_style="dim")
    for seat in seats:
        held = trials.get((seat.host, seat.pid or 0), ())
        table.add_row(
            str(seat.slot.index),
            seat.device,
            "–" if seat.pid is None else str(seat.pid),
            Text(seat.state, style="red" if seat.state is SeatState.FAILED else ""),
            ", ".join(map(str, held)) or "–",
            str(seat.restarts),
        )
    return table


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
