"""The run of a study by the process that asks for it, which trains in the thread that asks.

So does a function that lives in a notebook or a script: no other process has it. The program goes
on after the run, with its random numbers as they were.
"""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuner.domain.fuse_plan import AUTO
from tuner.domain.places import make_private
from tuner.errors import SpecError, TunerError, UnavailableError, WorkloadError
from tuner.service.confirmation import find_next
from tuner.service.interruption import Interruption
from tuner.service.ownership import claim_folder
from tuner.service.pools.pool import Seat, SeatState, Slot
from tuner.service.study_run import Display, RunEnd, Watch, has_work, were_asked_to_leave
from tuner.service.worker.worker import Worker
from tuner.store import Database, StudyHandle
from tuner.store.leases.rows import count_unsaved
from tuner.training.device import resolve_device
from tuner.training.loop import TrainingLoop
from tuner.training.seeds import undisturbed

_LOOK_S = 0.25

_training = threading.Lock()
"""Held while a study trains here: two would draw from the same random numbers."""


def run_here(
    database: Database,
    study: StudyHandle,
    display: Display,
    *,
    passed: Any,
    device: str,
    fuse: str = AUTO,
    checked: TrainingLoop | None = None,
    interruption: Interruption | None = None,
) -> RunEnd | None:
    """Trains a study, then its finalists again, in this process and thread.

    Ctrl-C has the trial saved and given back; another one, a second later, ends it at once.

    Args:
        database: The database that holds the study.
        study: The study.
        display: Shows how it goes.
        passed: The workload as an object.
        device: Where to train, as ``--device`` takes it.
        fuse: How many trials train as one, as ``--fuse`` takes it.
        checked: The workload as a training loop, if it has been checked.
        interruption: Tells when to stop early; one of its own without.

    Returns:
        How the run ended, or None if nothing was left to train.

    Raises:
        SpecError: If the study is paused or stopped, or another one trains in this process.
        WorkloadError: If the study's first trials all fail alike, or all diverge alike, or the
            study is not done and nobody stopped the run.
    """
    if not has_work(database, study):
        return None
    place = resolve_device(device)
    seat = Seat(Slot(0, device), SeatState.RUNNING, str(place), platform.node(), os.getpid())
    interruption = interruption or Interruption(ends_at_once=True)
    with _alone(), undisturbed(place), interruption, display:
        watch = Watch(database, study, fuse, display)
        worker = Worker(
            database=database,
            study=study,
            device=place,
            interruption=interruption,
            started_at=time.monotonic(),
            log=_Log(claim_folder(database, study) / "logs" / "worker-0.log"),
            fuse=fuse,
            loop=checked,
            passed=passed,
            is_guest=True,
        )
        with _shown(watch, display, seat):
            try:
                worker.run()
            except (KeyboardInterrupt, UnavailableError):
                if not interruption.requested:
                    raise
    stopped_by = interruption.requested_by
    is_command = study.spec.study.command is not None
    if interruption.requested:
        unsaved = count_unsaved(database, study)
        return RunEnd(stopped_by, lost=False, unsaved=unsaved, is_command=is_command, failures=())
    if find_next(database, study) is not None:
        if not were_asked_to_leave(database, study, [seat]):
            raise WorkloadError("The worker ended before the study was done.")
        stopped_by = "'tuner workers stop'"
    return RunEnd(stopped_by, lost=False, unsaved=0, is_command=is_command, failures=())


@contextlib.contextmanager
def _alone() -> Iterator[None]:
    """Refuses to train beside another study in this process.

    Raises:
        SpecError: If one trains here.
    """
    if not _training.acquire(blocking=False):
        raise SpecError(
            "Another study trains in this process, and both would draw from the same random "
            "numbers: wait() for its end first, or run this one with workers=2 or more, which are "
            "processes of their own."
        )
    try:
        yield
    finally:
        _training.release()


@contextlib.contextmanager
def _shown(watch: Watch, display: Display, seat: Seat) -> Iterator[None]:
    """Shows how the study goes while the block trains it."""
    over = threading.Event()

    def look() -> None:
        with contextlib.suppress(TunerError):  # what is wrong ends the worker, which says so
            display.show_workers([seat], [])
            watch.look("Training goes on; reports are kept until it is back.")

    def keep_looking() -> None:
        while not over.wait(_LOOK_S):
            look()

    thread = threading.Thread(target=keep_looking, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()
        look()


class _Log:
    """Appends lines to a file of this user's alone.

    Args:
        path: The file.
    """

    def __init__(self, path: Path) -> None:
        make_private(path.parent)
        self._path = path

    def __call__(self, line: str) -> None:
        """Appends a line."""
        with self._path.open("a", encoding="utf-8") as log:
            log.write(f"{line}\n")
