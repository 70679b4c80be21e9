"""Watching a study train: a live display on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction

from rich.console import Console, Group
from rich.live import Live
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tuner.analysis.summary import best_of
from tuner.cli.options import console
from tuner.cli.roster import Roster
from tuner.domain.fuse_plan import OFF
from tuner.domain.lengths import length_of, ranked_length, tell_length
from tuner.domain.printable import printable
from tuner.domain.states import StudyState, announce_pause
from tuner.domain.trials import Outcome, TrialRecord
from tuner.errors import UnavailableError
from tuner.report.tables import duration
from tuner.service.interruption import Interruption
from tuner.service.liveness import is_dead
from tuner.service.pools.pool import Exit, Pool, Seat, SeatState, tend
from tuner.store import Database, RecordReader, Studies, StudyHandle
from tuner.store.control import read_state
from tuner.store.leases.rows import read_held
from tuner.store.leases.workers import read_workers
from tuner.store.plans import find_plan

_ENDED_EARLY = {Outcome.PRUNED: "yellow", Outcome.DIVERGED: "magenta", Outcome.FAILED: "red"}
"""How trials end early, and the colour of each."""

_TIMED_EVERY_S = 15.0
"""Seconds between two lines that say how long all of it takes."""


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
    fuse: str = OFF,
    show_workers: bool = False,
) -> Watched:
    """Runs a pool to its end and shows how the study goes.

    Args:
        database: Where the study is.
        study: The study.
        pool: Workers on the study, not yet started.
        interruption: Tells when to stop early.
        fuse: How many trials its workers were asked to train as one.
        show_workers: Whether to show each worker, too.
    """
    out = console(stderr=True)
    scene = Scene(database, study, fuse)
    reader = RecordReader(database, study, evaluations=False)
    roster = Roster()
    failures: list[Exit] = []
    display: _Live | Lines = _Live(out) if out.is_terminal else Lines(out)
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
            if show_workers:
                for line in roster.changes(pool.seats, moment.exits):
                    display.note(line)
                lack = roster.lack_of_room(pool.seats, time.monotonic())
                if lack is not None:
                    display.say(lack)
            try:
                for line in scene.tidings():
                    display.say(line)
                news = reader.sync()
                scene.look()
                if show_workers:
                    scene.seat(pool.seats)
                display.show(scene, scene.take(news))
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
        fuse: How many trials its workers were asked to train as one.
        clock: Returns seconds.
    """

    def __init__(
        self,
        database: Database,
        study: StudyHandle,
        fuse: str = OFF,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._database = database
        self.study = study
        self.outcomes: dict[int, Outcome] = {}
        self.seated: list[tuple[Seat, list[int]]] = []
        self._counts: Counter[Outcome] = Counter()
        self._running: set[int] = set()
        # The best complete trial of each length, and how many there are of it.
        self._best: dict[Fraction, TrialRecord] = {}
        self._lengths: Counter[Fraction] = Counter()
        self._fuse, self._plan, self._paused = fuse, "", False
        self._held: frozenset[int] = frozenset()
        self._clock = clock
        self._began = clock()
        self._finished_before: int | None = None

    def take(self, news: Sequence[TrialRecord]) -> Iterator[TrialRecord]:
        """Takes in news one by one; yields each trial that finished as soon as it is counted."""
        if self._finished_before is None:
            for record in news:
                self._count(record)
            self._finished_before = self.finished
            news = ()
        if len(self.outcomes.keys() | {r.number for r in news}) > self.study.spec.budget.trials:
            self.study = Studies(self._database).refresh(self.study)
        for record in news:
            self._count(record)
            if record.outcome is not Outcome.RUNNING:
                yield record

    def _count(self, record: TrialRecord) -> None:
        before = self.outcomes.get(record.number)
        if before is not None:
            self._counts[before] -= 1
        self.outcomes[record.number] = record.outcome
        self._counts[record.outcome] += 1
        if record.outcome is Outcome.RUNNING:
            self._running.add(record.number)
        else:
            self._running.discard(record.number)
        if record.outcome is Outcome.COMPLETE and record.value is not None:
            self._rank(record)

    def _rank(self, record: TrialRecord) -> None:
        length = length_of(record.attributes)
        self._lengths[length] += 1
        alike = [record, *([self._best[length]] if length in self._best else [])]
        best = best_of(self.study.spec, alike)
        if best is not None:
            self._best[length] = best

    def tidings(self) -> Iterator[str]:
        """Yields what is to be said once: how trials train, and that the study pauses."""
        if not self._plan and self._fuse != OFF:
            plan = find_plan(self._database, self.study, self._fuse)
            if plan is not None:
                self._plan = str(plan)
                yield f"{plan}."
        before = self._paused
        self._paused = read_state(self._database, self.study) is StudyState.PAUSED
        if self._paused and not before:
            yield announce_pause(self.study.name)

    def look(self) -> None:
        """Finds out which trials somebody trains."""
        self._held = read_held(self._database, self.study, is_dead)

    def seat(self, seats: Sequence[Seat]) -> None:
        """Takes in what is known of a pool's workers, and finds the trials they hold."""
        held = {
            (worker.host, worker.pid): worker.trials
            for worker in read_workers(self._database, self.study)
        }
        self.seated = [(seat, list(held.get((seat.host, seat.pid or 0), ()))) for seat in seats]

    @property
    def counts(self) -> Counter[Outcome]:
        """Trials by outcome; those that nobody trains are waiting."""
        waiting = len(self._running - self._held)
        shown = Counter({Outcome.RUNNING: -waiting, Outcome.WAITING: waiting})
        shown.update(self._counts)
        return shown

    @property
    def finished(self) -> int:
        """Trials that are over."""
        return len(self.outcomes) - len(self._running)

    def best(self) -> str:
        """Returns the best trial in a few words."""
        best = self._best.get(ranked_length(self._lengths))
        if best is None:
            return "–"
        return f"{best.value:.4g} ({best.optimizer}, {best.schedule})"

    @property
    def elapsed_s(self) -> float:
        """Seconds since the watch began."""
        return self._clock() - self._began

    def time_left_s(self) -> float | None:
        """Returns the seconds the rest should take at the speed so far, or None at the start."""
        done = self.finished - (self._finished_before or 0)
        if done <= 0:
            return None
        rest = self.study.spec.budget.trials - self.finished
        return self.elapsed_s / done * rest


class Lines:
    """One line a finished trial, without control codes."""

    def __init__(self, out: Console) -> None:
        self._out = out
        self._timed_at_s = 0.0

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def say(self, text: str) -> None:
        """Says anything else."""
        self._out.print(Text(text), soft_wrap=True)

    def note(self, text: str) -> None:
        """Says what a live display shows anyway."""
        self.say(text)

    def show(self, scene: Scene, finished: Iterable[TrialRecord]) -> None:
        """Says how trials ended, and now and then how long all of it takes."""
        for record in finished:
            self._tell(scene, record)

    def _tell(self, scene: Scene, record: TrialRecord) -> None:
        value = "" if record.value is None else f" {record.value:.4g}"
        ended = scene.counts
        counts = ", ".join(
            [
                f"{scene.finished}/{scene.study.spec.budget.trials} done",
                *(f"{ended[way]} {way.value}" for way in _ENDED_EARLY if ended[way]),
            ]
        )
        complete = record.outcome is Outcome.COMPLETE
        length = tell_length(record.attributes) if complete else ""
        ending = f"{record.outcome.value}{value}{length and f', {length}'}"
        line = (
            f"trial {record.number} {record.optimizer}/{record.schedule} {ending} | "
            f"{counts} | best {scene.best()}{self._time(scene)}"
        )
        self.say(printable(line))

    def _time(self, scene: Scene) -> str:
        elapsed_s, left_s = scene.elapsed_s, scene.time_left_s()
        if not left_s or elapsed_s - self._timed_at_s < _TIMED_EVERY_S:
            return ""
        self._timed_at_s = elapsed_s
        return f" | {duration(elapsed_s)}, about {duration(left_s)} left"


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
        self._live.console.print(Text(text))

    def note(self, text: str) -> None:
        pass  # the table of workers shows it

    def show(self, scene: Scene, finished: Iterable[TrialRecord]) -> None:
        for _ in finished:
            pass  # it is counted in what is drawn
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
        f"{counts[Outcome.WAITING]} waiting  " if counts[Outcome.WAITING] else "",
        *((f"{counts[o]} {o.value}  ", style) for o, style in _ENDED_EARLY.items() if counts[o]),
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
