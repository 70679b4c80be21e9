"""The run of a study: a pool of workers trains it to its end, while a display shows how it goes."""

from __future__ import annotations

import contextlib
import os
import shlex
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Protocol

from tuner.domain.allowed_commands import ALLOW_COMMAND
from tuner.domain.fuse_plan import AUTO, OFF
from tuner.domain.imports import ALLOW
from tuner.domain.passed import refuse_passed
from tuner.domain.states import StudyState
from tuner.domain.trials import TrialRecord
from tuner.errors import DeniedError, SpecError, UnavailableError, WorkloadError
from tuner.service.confirmation import announce, find_current, find_next, prepare_confirmation
from tuner.service.interruption import Interruption
from tuner.service.ownership import claim_folder
from tuner.service.pools.local import LocalPool
from tuner.service.pools.pool import Exit, Pool, Seat, slots_on, tend
from tuner.service.pools.standby import Crew
from tuner.service.pools.worker_process import Job
from tuner.service.ranks import PROCESSES
from tuner.service.study_end import is_at_end
from tuner.service.study_progress import StudyProgress
from tuner.store import Database, Studies, StudyHandle
from tuner.store.control import read_state
from tuner.store.leases.budget import read_exhausted
from tuner.store.leases.rows import count_unsaved
from tuner.store.leases.workers import read_workers

_TOLD = (ALLOW, ALLOW_COMMAND, PROCESSES)
"""The variables of the environment that tell workers, on whichever machine, what they may do."""


class Display(AbstractContextManager["Display"], Protocol):
    """Shows a person how a study goes, for as long as the context lasts."""

    def say(self, text: str) -> None:
        """Shows a line of text."""
        ...

    def warn(self, text: str) -> None:
        """Shows a line of text that a person should see at the end, too."""
        ...

    def show_workers(self, seats: Sequence[Seat], exits: Sequence[Exit]) -> None:
        """Shows a pool's workers.

        Args:
            seats: The pool's seats as they are now.
            exits: The workers that have ended since the last call.
        """
        ...

    def show(self, progress: StudyProgress, finished: Iterable[TrialRecord]) -> None:
        """Shows the progress of a study.

        Args:
            progress: The study's progress; it counts each finished trial as that is iterated over.
            finished: The trials that have finished since the last call.
        """
        ...


@dataclass(frozen=True)
class RunEnd:
    """How a run ended.

    Attributes:
        stopped_by: The cause of an early stop, such as "Ctrl-C"; empty if nobody stopped it.
        lost: Whether workers were killed before they had saved their trials.
        unsaved: Trials of a stopped run that have to start over, since they cannot be saved.
        is_command: Whether a command trains them.
        failures: The workers that did not end well, and were not started again.
    """

    stopped_by: str
    lost: bool
    unsaved: int
    is_command: bool
    failures: Sequence[Exit]

    def announcements(self, again: str) -> Iterator[str]:
        """Yields lines that tell a person of a stop, and of workers that have died.

        Args:
            again: What goes on with the study, for a person to type.
        """
        if self.stopped_by:
            fate = "lost since their last checkpoints" if self.lost else "saved"
            if self.unsaved:
                how = "process.resumable = true" if self.is_command else "run.steps()"
                fate += f", but for {self.unsaved} that will start over: without {how} none can be"
            yield f"Stopped by {self.stopped_by}; unfinished trials are {fate}. Continue: {again}"
            return
        for failure in self.failures:
            yield f"Worker {failure.index} died (exit code {failure.code})."


def run_study(
    database: Database,
    study: StudyHandle,
    display: Display,
    *,
    device: str,
    workers: int,
    fuse: str = AUTO,
    crew: Crew | None = None,
    code: str = "",
    interruption: Interruption | None = None,
) -> RunEnd | None:
    """Trains a study, then its finalists again, on worker processes of this machine.

    Args:
        database: The database that holds the study.
        study: The study.
        display: Shows how it goes.
        device: Where the workers train, as ``--device`` takes it.
        workers: How many processes there are, at least 1.
        fuse: How many trials train as one, as ``--fuse`` takes it.
        crew: As many processes that were started for such workers beforehand.
        code: The workload, packed, if it was passed as an object.
        interruption: Tells when to stop early; one of its own without.

    Returns:
        How the run ended, or None if nothing was left to train.

    Raises:
        SpecError: If the study is paused or stopped, or waits for another one's search.
        WorkloadError: If the workers have ended and the study is not done.
    """
    if not has_work(database, study):
        return None
    if not code:
        refuse_passed(study.spec.passed, study.name)
    job = replace(make_job(database, study, fuse), code=code)
    pool = LocalPool(job, slots_on([device], workers), crew=crew)
    return run_pool(pool, database, study, display, fuse, interruption)


def has_work(database: Database, study: StudyHandle) -> bool:
    """Tells whether anything is left to train of a study, or of the one that confirms it.

    Args:
        database: The database that holds the study.
        study: The study.

    Raises:
        SpecError: If the study is paused or stopped, or waits for another one's search.
    """
    with contextlib.suppress(DeniedError):  # then it is not confirmed by itself
        prepare_confirmation(database, study)
    following = find_next(database, study)
    if following is None:
        if _has_budget(database, study):
            _refuse_halted(database, study)
        return False
    if following.uuid == study.uuid or read_state(database, study) is StudyState.PAUSED:
        _refuse_halted(database, study)
    _refuse_halted(database, following)
    return True


def make_job(database: Database, study: StudyHandle, fuse: str = AUTO) -> Job:
    """Returns the job that starts each worker of a pool; its logs go to the study's own folder.

    Raises:
        UnavailableError: If the database is away.
    """
    return Job(
        study=study.name,
        url=database.url,
        logs=claim_folder(database, study) / "logs",
        fuse=fuse,
        environment={key: os.environ[key] for key in _TOLD if key in os.environ},
    )


def run_pool(
    pool: Pool,
    database: Database,
    study: StudyHandle,
    display: Display,
    fuse: str,
    interruption: Interruption | None = None,
) -> RunEnd:
    """Starts a pool, watches it until its last worker has ended, and tells how that came.

    Once the search is over, its workers go on with the study that confirms it, and so does this.

    Ctrl-C and SIGTERM have the workers save their trials and end; a second one kills them.

    Args:
        pool: Workers on the study, not yet started.
        database: The database that holds the study.
        study: The study.
        display: Shows how it goes.
        fuse: How many trials the workers were asked to train as one.
        interruption: Tells when to stop early; one of its own without.

    Raises:
        WorkloadError: If the workers have ended, nobody stopped them, and the study is not done.
    """
    interruption = interruption or Interruption()
    with interruption, display:
        watch = Watch(database, study, fuse, display)
        failures, lost = _watch(pool, interruption, watch, display)
    done = find_next(database, study) is None
    stopped_by = interruption.requested_by
    if not done and not stopped_by and were_asked_to_leave(database, study, pool.seats):
        stopped_by = "'tuner workers stop'"
    if not done and not stopped_by:
        messages = [failure.message for failure in failures if failure.message]
        raise WorkloadError(
            messages[-1] if messages else "The workers ended before the study was done."
        )
    unsaved = count_unsaved(database, study) if stopped_by and not lost else 0
    return RunEnd(stopped_by, lost, unsaved, study.spec.study.command is not None, failures)


def watch_study(database: Database, study: StudyHandle, display: Display) -> bool:
    """Shows how a study goes that others train, and how its finalists do, and changes nothing.

    Args:
        database: The database that holds the study.
        study: The study.
        display: Shows it.

    Returns:
        Whether the study is over; False if the watch was ended before, by Ctrl-C or SIGTERM.

    Raises:
        NotFoundError: If the study is deleted meanwhile.
    """
    with Interruption() as interruption, display:
        watch = Watch(database, study, OFF, display)
        while not interruption.requested:
            watch.look("The watch goes on once it is back.")
            if watch.is_over():
                return True
            watch.tell_idle()
            interruption.wait(_WATCHED_EVERY_S)
    return False


_WATCHED_EVERY_S = 0.5


class Watch:
    """Shows how a study goes, and then how the one goes that confirms it.

    Args:
        database: The database that holds both.
        study: The study.
        fuse: How many trials the workers were asked to train as one.
        display: Shows it.
    """

    def __init__(self, database: Database, study: StudyHandle, fuse: str, display: Display) -> None:
        self._database, self._study = database, study
        self._fuse, self._display = fuse, display
        self._away = self._idle = False
        self._progress = self._begin(find_current(database, study), from_start=False)

    def look(self, if_away: str) -> None:
        """Shows what is new.

        Args:
            if_away: What to say besides where the database is away, once until it is back.
        """
        try:
            self._look()
            self._away = False
        except UnavailableError as error:
            if not self._away:
                self._display.warn(f"{error} {if_away}")
            self._away = True

    def _look(self) -> None:
        for line in self._progress.announcements():
            self._display.say(line)
        self._display.show(self._progress, self._progress.update())
        if self._progress.is_idle:
            current = find_current(self._database, self._study)
            if current.uuid != self._progress.study.uuid:
                self._progress = self._begin(current, from_start=True)

    def is_over(self) -> bool:
        """Tells whether nothing is left to train, and nobody works on the study any more."""
        try:
            return self._progress.is_idle and is_at_end(self._database, self._study)
        except UnavailableError:
            return False

    def tell_idle(self) -> None:
        """Says, once until somebody comes, that nobody works on the study."""
        with contextlib.suppress(UnavailableError):
            idle = not self._progress.workers()
            if idle and not self._idle:
                name = self._progress.study.name
                self._display.say(
                    f"Nobody works on {name!r}. Train it: tuner study run {shlex.quote(name)}"
                )
            self._idle = idle

    def _begin(self, study: StudyHandle, *, from_start: bool) -> StudyProgress:
        if study.spec.confirmation is not None and not is_at_end(self._database, self._study):
            self._display.say(announce(self._database, study))
        return StudyProgress(self._database, study, self._fuse, from_start=from_start)


def _watch(
    pool: Pool, interruption: Interruption, watch: Watch, display: Display
) -> tuple[list[Exit], bool]:
    """Runs a pool to its end.

    Returns:
        The workers that failed for good, and whether workers were killed before they had saved.
    """
    failures: list[Exit] = []
    stopping = lost = False
    for moment in tend(pool, interruption):
        if moment.stopping and not stopping:
            display.say("Saving the trials in training … Ctrl-C again to lose them instead.")
        stopping, lost = moment.stopping, moment.lost
        for ended in moment.exits:
            for warning in ended.warnings:
                display.warn(warning)
            if ended.restarted:
                display.warn(f"{ended.message} It has been started again.")
            elif ended.code != 0:
                failures.append(ended)
        display.show_workers(pool.seats, moment.exits)
        # The workers keep their reports meanwhile; only the display has nothing to show.
        watch.look("Training goes on; reports are kept until it is back.")
    return failures, lost


def _refuse_halted(database: Database, study: StudyHandle) -> None:
    """Leaves a study alone that somebody has halted: it may be another one than who runs it."""
    state = read_state(database, study)
    if state is not StudyState.RUNNING:
        raise SpecError(
            f"The study {study.name!r} is {state}. To go on with it: "
            f"tuner study resume {shlex.quote(study.name)}"
        )


def _has_budget(database: Database, study: StudyHandle) -> bool:
    """Tells whether a study that is over could have gone on, had nobody halted it."""
    started = Studies(database).count_trials(study)
    return started < study.spec.budget.trials and read_exhausted(database, study) is None


def were_asked_to_leave(database: Database, study: StudyHandle, seats: Sequence[Seat]) -> bool:
    """Tells whether the worker of one of some seats has been asked to leave.

    Args:
        database: The database that holds the study.
        study: The study that they work on, or whose finalists they train.
        seats: The seats of a pool.
    """
    rows = [*read_workers(database, study), *read_workers(database, find_current(database, study))]
    leaving = {(row.host, row.pid) for row in rows if row.leaving}
    return any((seat.host, seat.pid) in leaving for seat in seats)
