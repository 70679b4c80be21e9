"""The live view of a study: standings, workers and the last endings, as high as the terminal."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tuner.analysis.standings import Standing
from tuner.domain.lengths import tell_length
from tuner.domain.objective import tell_objective, tell_value
from tuner.domain.printable import cut, printable
from tuner.domain.study_section import StudySection
from tuner.domain.trials import Outcome, TrialRecord
from tuner.report.catalog import to_sparkline
from tuner.report.tables import TextTable, duration, tell_training
from tuner.report.terminal import FittedTable
from tuner.report.trial_table import describe_trials
from tuner.report.trial_words import tell_error
from tuner.service.pools.pool import Seat
from tuner.service.study_progress import StudyProgress
from tuner.store.leases.workers import WorkerRow

ENDED_EARLY = {Outcome.PRUNED: "yellow", Outcome.DIVERGED: "magenta", Outcome.FAILED: "red"}
"""How trials end early, and the colour of each."""

_ENDINGS = 5
"""The last endings that are shown where there is room."""

_BAR, _LEAST_BAR = 40, 8
"""Columns of the progress bar at most, and below which it is left out."""

_NARROW = 60
"""Columns below which tables lose some, and take a line that names them."""

_LONGEST_ERROR = 200


class LiveView:
    """Draws a study as it is at the moment, in as many columns and lines as the terminal has.

    Args:
        progress: The study's progress.
        seats: The pool's seats where its workers are this process's, else none.
    """

    def __init__(self, progress: StudyProgress, seats: Sequence[Seat] = ()) -> None:
        self._progress = progress
        self._standings = [
            row
            for row in progress.standings
            # Only the optimizers of the finalists run again.
            if progress.study.spec.confirmation is None or row.counts.total()
        ]
        self._workers = _tell_workers(progress.workers(), seats)
        section = progress.study.spec.study
        self._endings = [_draw_ending(section, r) for r in list(progress.endings)[-_ENDINGS:]]

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Yields head, standings, workers and endings; what is last goes first where it is low."""
        progress, width = self._progress, options.max_width
        head = [self._draw_head(width), _draw_counts(progress), _draw_course(progress, width)]
        above = sum(len(console.render_lines(part, options)) for part in head)
        heights = [len(console.render_lines(text, options)) for text in self._endings]
        standings, workers, lines = _share(
            console.size.height - 1 - above,
            (len(self._standings), len(self._workers.rows), sum(heights)),
            head=3 if width < _NARROW else 2,
        )
        yield from head
        if standings:
            yield Text()
            yield FittedTable(_tell_standings(progress, self._standings[:standings]), compact=True)
            yield from _tell_more(len(self._standings) - standings)
        if workers:
            yield Text()
            yield FittedTable(_first_rows(self._workers, workers), compact=True)
            yield from _tell_more(len(self._workers.rows) - workers)
        while sum(heights) > lines:  # the oldest go first
            heights.pop(0)
        if heights:
            yield Text()
            yield from self._endings[-len(heights) :]

    def _draw_head(self, width: int) -> RenderableType:
        progress = self._progress
        told = [
            f"{progress.finished}/{progress.study.spec.budget.trials}",
            *tell_used(progress),
            *self._tell_time(),
        ]
        name = printable(progress.study.name)
        words = Text.assemble((name, "bold"), "  ", "  ".join(told))
        room = min(_BAR, width - words.cell_len - 2)
        if room < _LEAST_BAR:
            return words
        line = Table.grid(padding=(0, 2))
        bar = ProgressBar(total=1.0, completed=progress.share_done, width=room)
        line.add_row(Text(name, style="bold"), bar, *told)
        return line

    def _tell_time(self) -> list[str]:
        """Returns how long the rest takes; nothing once there is none."""
        progress = self._progress
        if progress.finished >= progress.study.spec.budget.trials:
            return []
        left = progress.time_left_s()
        if left is not None:
            return [f"{duration(left)} left"]
        return ["starting …" if self._workers.rows else "no worker"]


def describe_progress(progress: StudyProgress) -> dict[str, Any]:
    """Returns what the view shows of a study as plain values, None where nothing is known yet."""
    spec, best = progress.study.spec, progress.best_trial
    return {
        "study": progress.study.name,
        "trials": spec.budget.trials,
        "finished": progress.finished,
        "full_trials_used": progress.used,
        "counts": {outcome.value: progress.counts[outcome] for outcome in Outcome},
        "best": None if best is None else describe_trials(spec, [best])[0],
        "optimizers": [
            {
                "optimizer": row.optimizer,
                "best": row.best and row.best.value,
                "trial": row.best and row.best.number,
                **{outcome.value: row.counts[outcome] for outcome in Outcome if outcome.is_over},
            }
            for row in progress.standings
        ],
        "course": list(progress.course(_BAR)),
        "workers": [
            {
                "host": row.host,
                "pid": row.pid,
                "device": row.device,
                "state": row.state.value,
                "trials": list(row.trials),
            }
            for row in progress.workers()
        ],
        "endings": describe_trials(spec, progress.endings),
    }


def tell_ending(section: StudySection, record: TrialRecord) -> str:
    """Returns how a trial ended, in a line: its value, or the exception and its place."""
    told = f"trial {record.number} {record.optimizer}/{record.schedule} {record.outcome.value}"
    if record.value is not None:
        told += f" {tell_value(section, record.value)}"
    length = tell_length(record.attributes) if record.outcome is Outcome.COMPLETE else ""
    if length:
        told += f", {length}"
    return f"{told}{_tell_fault(record)}"


def _tell_fault(record: TrialRecord) -> str:
    """Returns the exception of a failed trial, and the line of code that it comes from."""
    error = tell_error(record)
    if record.outcome is not Outcome.FAILED or not error:
        return ""
    place = Path(str(record.attributes.get("error_at", "")))
    if place.is_relative_to(Path.cwd()):
        place = place.relative_to(Path.cwd())
    at = f" at {place}" if place.name else ""
    return f"{at}: {cut(error, _LONGEST_ERROR)}"


def tell_used(progress: StudyProgress) -> list[str]:
    """Returns what is used of a budget in full trials; nothing without such a budget."""
    limit = progress.study.spec.budget.full_trials
    return [] if limit is None else [f"{tell_training(progress.used, limit)} full trials"]


def _draw_counts(progress: StudyProgress) -> Text:
    counts = progress.counts
    going = (Outcome.RUNNING, *(o for o in (Outcome.WAITING, Outcome.PAUSED) if counts[o]))
    return Text("  ").join(
        [
            *(Text(f"{counts[outcome]} {outcome.value}") for outcome in going),
            *(Text(f"{counts[o]} {o.value}", s) for o, s in ENDED_EARLY.items() if counts[o]),
            Text(f"{progress.steps_per_s:,.0f} steps a second"),
        ]
    )


def _draw_course(progress: StudyProgress, width: int) -> Text:
    best = Text(f"best {progress.best()}", "green")
    course = progress.course(min(_BAR, width - best.cell_len - 2))
    if len(course) < 2:
        return best
    return Text.assemble(best, f"  {to_sparkline(_scale(course))}")


def _scale(course: Sequence[float]) -> list[float]:
    """Returns values between 0 and 1, by their logarithms where all are positive."""
    shown = [math.log(value) for value in course] if min(course) > 0 else list(course)
    low, high = min(shown), max(shown)
    return [(value - low) / (high - low) if high > low else 0.0 for value in shown]


def _tell_standings(progress: StudyProgress, standings: Sequence[Standing]) -> TextTable:
    section = progress.study.spec.study
    shown = [Outcome.COMPLETE, Outcome.PRUNED, Outcome.DIVERGED]
    shown += [Outcome.FAILED] if progress.counts[Outcome.FAILED] else []
    return TextTable(
        "Standings",
        ("optimizer", tell_objective(section), *(outcome.value for outcome in shown), "trial"),
        tuple(
            (
                row.optimizer,
                tell_value(section, None if row.best is None else row.best.value),
                *(str(row.counts[outcome]) for outcome in shown),
                "–" if row.best is None else str(row.best.number),
            )
            for row in standings
        ),
        lit=0 if standings and standings[0].best is not None else None,
    )


def _tell_workers(rows: Sequence[WorkerRow], seats: Sequence[Seat]) -> TextTable:
    """Returns the table of workers: those of the pool by their seats, then those of others."""
    by_process = {(row.host, row.pid): row for row in rows}
    restarted = any(seat.restarts for seat in seats)
    told = []
    for seat in seats:
        row = by_process.pop((seat.host, seat.pid or 0), None)
        process = "–" if seat.pid is None else f"{seat.host} {seat.pid}"
        state = row.state.value if row and seat.state.value == "running" else seat.state.value
        trials, device = (row.trials, row.device) if row else ((), seat.device)
        told.append((process, state, *_tell_lanes(trials), device, str(seat.restarts)))
    told += [
        (f"{row.host} {row.pid}", row.state.value, *_tell_lanes(row.trials), row.device, "–")
        for row in by_process.values()
    ]
    columns = ("worker", "state", "lanes", "trials", "device", "restarts")
    shown = len(columns) if restarted else len(columns) - 1
    return TextTable("Workers", columns[:shown], tuple(line[:shown] for line in told))


def _tell_lanes(trials: Sequence[int]) -> tuple[str, str]:
    if not trials:
        return "–", "–"
    first, last = trials[0], trials[-1]
    joined = len(trials) > 2 and last - first == len(trials) - 1
    return str(len(trials)), f"{first}–{last}" if joined else ", ".join(map(str, trials))


def _first_rows(table: TextTable, count: int) -> TextTable:
    return TextTable(table.title, table.columns, table.rows[:count], table.lit)


def _tell_more(count: int) -> RenderResult:
    if count > 0:
        yield Text(f"{count} more, since the terminal is low", "dim")


def _draw_ending(section: StudySection, record: TrialRecord) -> Text:
    style = ENDED_EARLY.get(record.outcome, "")
    return Text(printable(tell_ending(section, record)), style, overflow="fold")


def _share(room: int, wanted: tuple[int, int, int], head: int) -> list[int]:
    """Returns how many standings, workers and lines of endings are shown in so many lines.

    Args:
        room: The lines there are.
        wanted: How many of each there are; of endings, their lines.
        head: Lines that a table takes beside its rows; one that is cut takes another.
    """
    heads = (head, head, 1)
    shown = list(wanted)
    for place, least in ((2, 1), (1, 1), (0, 3), (2, 0), (1, 0), (0, 1)):
        lines = (
            kept + above + (kept < all_) if kept else 0
            for kept, all_, above in zip(shown, wanted, heads, strict=True)
        )
        over = sum(lines) - room
        if over > 0:
            shown[place] = max(min(least, shown[place]), shown[place] - over - 1)
    return shown
