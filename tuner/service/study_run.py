"""The run of a study: a pool of workers trains it to its end, while a display shows how it goes."""

from __future__ import annotations

import os
import shlex
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Protocol

from tuner.domain.fuse_plan import AUTO
from tuner.domain.imports import ALLOW
from tuner.domain.states import StudyState
from tuner.domain.trials import TrialRecord
from tuner.errors import SpecError, UnavailableError, WorkloadError
from tuner.service.interruption import Interruption
from tuner.service.ownership import claim_folder
from tuner.service.pools.local import LocalPool
from tuner.service.pools.pool import Exit, Pool, Seat, slots_on, tend
from tuner.service.pools.standby import Crew
from tuner.service.pools.worker_process import Job
from tuner.service.study_progress import StudyProgress
from tuner.service.summaries import read_summary
from tuner.store import Database, StudyHandle
from tuner.store.control import read_state
from tuner.store.leases.budget import is_done
from tuner.store.leases.rows import count_unsaved
from tuner.store.leases.workers import read_workers


class Display(AbstractContextManager["Display"], Protocol):
    """Shows a person how a study goes, for as long as the context lasts."""

    def say(self, text: str) -> None:
        """Shows a line of text."""
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
        failures: The workers that did not end well, and were not started again.
    """

    stopped_by: str
    lost: bool
    unsaved: int
    failures: Sequence[Exit]


def run_study(
    database: Database,
    study: StudyHandle,
    display: Display,
    *,
    device: str,
    workers: int,
    fuse: str = AUTO,
    crew: Crew | None = None,
) -> RunEnd | None:
    """Trains a study on worker processes of this machine, unless nothing is left to train.

    Args:
        database: The database that holds the study.
        study: The study.
        display: Shows how it goes.
        device: Where the workers train, as ``--device`` takes it.
        workers: How many processes there are, at least 1.
        fuse: How many trials train as one, as ``--fuse`` takes it.
        crew: As many processes that were started for such workers beforehand.

    Returns:
        How the run ended, or None if nothing was left to train.

    Raises:
        SpecError: If the study is paused or stopped.
        WorkloadError: If the workers have ended and the study is not done.
    """
    summary = read_summary(database, study)
    bounded = summary.used is not None and summary.state is StudyState.RUNNING
    used_up = (summary.exhausted is not None or bounded) and is_done(database, study)
    if summary.finished >= study.spec.budget.trials or used_up:
        return None
    _refuse_halted(database, study)
    job = make_job(database, study, fuse)
    pool = LocalPool(job, slots_on([device], workers), crew=crew)
    return run_pool(pool, database, study, display, fuse)


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
        environment={key: value for key, value in os.environ.items() if key == ALLOW},
    )


def run_pool(
    pool: Pool, database: Database, study: StudyHandle, display: Display, fuse: str
) -> RunEnd:
    """Starts a pool, watches it until its last worker has ended, and tells how that came.

    Ctrl-C and SIGTERM have the workers save their trials and end; a second one kills them.

    Args:
        pool: Workers on the study, not yet started.
        database: The database that holds the study.
        study: The study.
        display: Shows how it goes.
        fuse: How many trials the workers were asked to train as one.

    Raises:
        WorkloadError: If the workers have ended, nobody stopped them, and the study is not done.
    """
    with Interruption() as interruption, display:
        failures, lost = _watch(pool, interruption, StudyProgress(database, study, fuse), display)
    done = is_done(database, study)
    stopped_by = interruption.requested_by
    if not done and not stopped_by and _were_asked_to_leave(database, study, pool):
        stopped_by = "'tuner workers stop'"
    if not done and not stopped_by:
        messages = [failure.message for failure in failures if failure.message]
        raise WorkloadError(
            messages[-1] if messages else "The workers ended before the study was done."
        )
    unsaved = count_unsaved(database, study) if stopped_by and not lost else 0
    return RunEnd(stopped_by, lost, unsaved, failures)


def _watch(
    pool: Pool, interruption: Interruption, progress: StudyProgress, display: Display
) -> tuple[list[Exit], bool]:
    """Runs a pool to its end.

    Returns:
        The workers that failed for good, and whether workers were killed before they had saved.
    """
    failures: list[Exit] = []
    stopping = lost = away = False
    for moment in tend(pool, interruption):
        if moment.stopping and not stopping:
            display.say("Saving the trials in training … Ctrl-C again to lose them instead.")
        stopping, lost = moment.stopping, moment.lost
        for ended in moment.exits:
            if ended.restarted:
                display.say(f"{ended.message} It has been started again.")
            elif ended.code != 0:
                failures.append(ended)
        display.show_workers(pool.seats, moment.exits)
        try:
            for line in progress.announcements():
                display.say(line)
            display.show(progress, progress.update())
            away = False
        except UnavailableError as error:
            # The workers keep their reports meanwhile; only the display has nothing to show.
            if not away:
                display.say(f"{error} Training goes on; reports are kept until it is back.")
            away = True
    return failures, lost


def _refuse_halted(database: Database, study: StudyHandle) -> None:
    """Leaves a study alone that somebody has halted: it may be another one than who runs it."""
    state = read_state(database, study)
    if state is not StudyState.RUNNING:
        raise SpecError(
            f"The study {study.name!r} is {state}. To go on with it: "
            f"tuner study resume {shlex.quote(study.name)}"
        )


def _were_asked_to_leave(database: Database, study: StudyHandle, pool: Pool) -> bool:
    leaving = {(row.host, row.pid) for row in read_workers(database, study) if row.leaving}
    return any((seat.host, seat.pid) in leaving for seat in pool.seats)
