"""Watching a study train: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tuner.analysis.summary import best_of
from tuner.cli.options import console
from tuner.domain.trials import Outcome, TrialRecord
from tuner.errors import UnavailableError
from tuner.report.tables import duration
from tuner.service.interruption import Interruption
from tuner.service.pools import Exit, Pool, Seat, SeatState, tend
from tuner.store import Database, RecordReader, Studies, StudyHandle
from tuner.store.workers import read_workers


@dataclass(frozen=True)
class Watched:
    """How a pool ended.

    Attributes:
        failures: The workers that did not end well.
        lost: Whether workers were killed before they had saved their trials.
    """

    failures: list[Exit]
    lost: bool


def watch(
    database: Database,
    study: StudyHandle,
    pool: Pool,
    interruption: Interruption,
    *,
    show_workers: bool = False,
) -> Watched:
    """Runs a pool to its end and shows how the study goes.

    Args:
        database: Where the study is.
        study: The study.
        pool: Workers on the study, not yet started.
        interruption: Tells when to stop early.
        show_workers: Whether to show each worker, too.
    """
    out = console(stderr=True)
    scene = Scene(database, study)
    reader = RecordReader(database, study)
    failures: list[Exit] = []
    display: _Live | _Lines = _Live(out) if out.is_terminal else _Lines(out)
    stopping = lost = away = False
    with display:
        for moment in tend(pool, interruption):
            if moment.stopping and not stopping:
                display.say("Saving the trials in training … Ctrl-C again to lose them instead.")
            stopping, lost = moment.stopping, moment.lost
            for ended in moment.exits:
                if ended.restarted:
                    display.say(f"{ended.message} It has been started again.")
                elif ended.code != 0:
                    failures.append(ended)
            try:
                finished = scene.add(reader.sync())
                if show_workers:
                    scene.seat(pool.seats)
                display.show(scene, finished)
                away = False
            except UnavailableError as error:
                # The workers keep what they have to tell, so this only has nothing to show.
                if not away:
                    display.say(f"{error} Training goes on; reports are kept until it is back.")
                away = True
    return Watched(failures, lost)


class Scene:
    """What there is to show of a study in training.

    Args:
        database: Where the study is.
        study: The study.
    """

    def __init__(self, database: Database, study: StudyHandle) -> None:
        self._database = database
        self.study = study
        self.records: dict[int, TrialRecord] = {}
        self.seated: list[tuple[Seat, list[int]]] = []
        self._began = time.monotonic()
        self._finished_before: int | None = None

    def add(self, records: Iterable[TrialRecord]) -> list[TrialRecord]:
        """Takes in news; returns the trials that finished."""
        news = list(records)
        self.records |= {record.number: record for record in news}
        if len(self.records) > self.study.spec.budget.trials:
            self.study = Studies(self._database).refresh(self.study)
        finished = [record for record in news if record.outcome is not Outcome.RUNNING]
        if self._finished_before is None:
            self._finished_before = len(finished)
            return []
        return finished

    def seat(self, seats: Sequence[Seat]) -> None:
        """Takes in what is known of a pool's workers, and finds the trials they hold."""
        held = {
            (worker.host, worker.pid): worker.trials
            for worker in read_workers(self._database, self.study)
        }
        self.seated = [(seat, list(held.get((seat.host, seat.pid or 0), ()))) for seat in seats]

    @property
    def counts(self) -> Counter[Outcome]:
        """Trials by outcome."""
        return Counter(record.outcome for record in self.records.values())

    @property
    def finished(self) -> int:
        """Trials that are over."""
        return len(self.records) - self.counts[Outcome.RUNNING]

    def best(self) -> str:
        """Returns the best trial in a few words."""
        record = best_of(self.study.spec, list(self.records.values()))
        if record is None:
            return "–"
        return f"{record.value:.4g} ({record.optimizer}, {record.schedule})"

    def time_left_s(self) -> float | None:
        """Returns the seconds the rest should take at the speed so far, or None at the start."""
        done = self.finished - (self._finished_before or 0)
        if done <= 0:
            return None
        rest = self.study.spec.budget.trials - self.finished
        return (time.monotonic() - self._began) / done * rest


class _Lines:
    """One line a finished trial, without control codes."""

    def __init__(self, out: Console) -> None:
        self._out = out

    def __enter__(self) -> _Lines:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def say(self, text: str) -> None:
        self._out.print(text, soft_wrap=True, markup=False, emoji=False)

    def show(self, scene: Scene, finished: list[TrialRecord]) -> None:
        for record in finished:
            value = "" if record.value is None else f" {record.value:.4g}"
            counts = scene.counts
            self.say(
                f"trial {record.number} {record.optimizer}/{record.schedule} "
                f"{record.outcome.value}{value} | "
                f"{scene.finished}/{scene.study.spec.budget.trials} done, "
                f"{counts[Outcome.PRUNED]} pruned, {counts[Outcome.DIVERGED]} diverged, "
                f"{counts[Outcome.FAILED]} failed | best {scene.best()}"
            )


class _Live:
    """A progress bar and a line of counts, redrawn in place."""

    def __init__(self, out: Console) -> None:
        self._live: Live = Live(console=out, refresh_per_second=4)

    def __enter__(self) -> _Live:
        self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._live.stop()

    def say(self, text: str) -> None:
        self._live.console.print(text)

    def show(self, scene: Scene, finished: list[TrialRecord]) -> None:
        self._live.update(_draw(scene))


def _draw(scene: Scene) -> Group:
    counts, total = scene.counts, scene.study.spec.budget.trials
    left = scene.time_left_s()
    line = Table.grid(padding=(0, 1))
    line.add_row(
        Text(scene.study.name, style="bold"),
        ProgressBar(total=total, completed=scene.finished, width=40),
        f"{scene.finished}/{total}",
        "starting …" if left is None else f"{duration(left)} left",
    )
    details = Text.assemble(
        f"{counts[Outcome.RUNNING]} running  ",
        (f"{counts[Outcome.PRUNED]} pruned  ", "yellow"),
        (f"{counts[Outcome.DIVERGED]} diverged  ", "magenta"),
        (f"{counts[Outcome.FAILED]} failed  ", "red" if counts[Outcome.FAILED] else ""),
        (f"best {scene.best()}", "green"),
    )
    return Group(line, details, *([_draw_seats(scene)] if scene.seated else []))


def _draw_seats(scene: Scene) -> Table:
    columns = ("slot", "device", "pid", "state", "trial", "restarts")
    table = Table(*columns, box=None, header_style="dim")
    for seat, trials in scene.seated:
        table.add_row(
            str(seat.slot.index),
            seat.device,
            "–" if seat.pid is None else str(seat.pid),
            Text(seat.state, style="red" if seat.state is SeatState.FAILED else ""),
            ", ".join(map(str, trials)) or "–",
            str(seat.restarts),
        )
    return table
