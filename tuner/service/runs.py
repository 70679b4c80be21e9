"""The runs of a study that a program has: here or in processes, in the background or not."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass

from tuner.domain.fuse_plan import AUTO, parse_fuse
from tuner.domain.passed import write_call
from tuner.domain.vouching import Typed, vouching
from tuner.errors import SpecError
from tuner.service.background import BackgroundRun
from tuner.service.display.notebook import show_here
from tuner.service.interruption import Interruption
from tuner.service.opening import tell
from tuner.service.own_worker import run_here
from tuner.service.passing import Workload, pack, refuse_loading
from tuner.service.pools.standby import Crew
from tuner.service.ranks import refuse_ranks
from tuner.service.study_run import RunEnd, run_study
from tuner.store import Database, StudyHandle
from tuner.training.loop import TrainingLoop

_MOST_WORKERS = 64

_TERMINATED = 143
"""The exit code of a program that was asked to end by SIGTERM, and saved before it did."""


@dataclass(frozen=True)
class Plan:
    """How a study is to be trained.

    Attributes:
        workers: Worker processes, from 1 to 64.
        device: Where they train, as ``--device`` takes it.
        fuse: How many trials train as one, as ``--fuse`` takes it.
        quiet: Whether to show nothing but warnings.
        background: Whether to go on as soon as it has begun.

    Raises:
        SpecError: If a value is out of its range.
    """

    workers: int = 1
    device: str = "auto"
    fuse: str | int = AUTO
    quiet: bool = False
    background: bool = False

    def __post_init__(self) -> None:
        if type(self.workers) is not int or not 1 <= self.workers <= _MOST_WORKERS:
            raise SpecError(
                f"workers = {self.workers!r}: give a number of processes from 1 to {_MOST_WORKERS}."
            )
        parse_fuse(str(self.fuse))


class Runs:
    """Trains a study for a program, one run at a time.

    Args:
        database: The database that holds the study.
        workload: What it trains, as the program gave it; None where only the study names it.
        typed: The code, or the command, that the program has named.
    """

    def __init__(self, database: Database, workload: Workload | None, typed: Typed) -> None:
        self._database = database
        self._target = None if workload is None else workload.target
        self._typed = Typed() if self._target is not None else typed
        self._behind: BackgroundRun | None = None

    @property
    def is_running(self) -> bool:
        """Whether a run in the background has not ended yet."""
        return self._behind is not None and self._behind.is_alive

    def refuse_second(self, name: str) -> None:
        """Refuses to do something with a study that runs in the background.

        Args:
            name: The study's name.

        Raises:
            SpecError: If it does.
        """
        if self.is_running:
            raise SpecError(
                f"{name!r} runs in the background here: wait() for its end, or interrupt() it."
            )

    def wait(self, timeout: float | None) -> bool:
        """Waits for the end of a run in the background; tells whether it has ended.

        Raises:
            BaseException: The error that ended it, once.
        """
        return True if self._behind is None else self._behind.wait(timeout)

    def interrupt(self) -> None:
        """Asks a run in the background to save its trials and end; does not wait."""
        if self._behind is not None:
            self._behind.interrupt()

    def train(
        self,
        study: StudyHandle,
        plan: Plan,
        *,
        asked: str,
        checked: TrainingLoop | None = None,
        crew: Crew | None = None,
    ) -> None:
        """Trains a study to its end, then its finalists again.

        Args:
            study: The study, or the one that confirms it.
            plan: How.
            asked: The name of the study that was asked for.
            checked: The workload as a training loop, if it has been tried in this process.
            crew: Processes that were started beforehand; they end with the run.

        Raises:
            KeyboardInterrupt: If Ctrl-C has stopped it, once trials in training are saved.
            SystemExit: If SIGTERM has.
        """
        interruption = Interruption(ends_at_once=True)

        def run() -> RunEnd | None:
            with crew or contextlib.nullcontext(), vouching(self._typed):
                return self._run(study, plan, interruption, checked, crew)

        def conclude(end: RunEnd | None) -> None:
            again = write_call(asked, study.spec.passed)
            tell(() if end is None else end.announcements(again), quiet=False)

        refuse_loading()
        refuse_ranks()
        self.refuse_second(asked)
        if plan.background:
            self._behind = BackgroundRun(run, conclude, interruption)
            return
        end = run()
        conclude(end)
        if end is not None and end.stopped_by == "SIGTERM":
            raise SystemExit(_TERMINATED)
        if interruption.requested:
            raise KeyboardInterrupt

    def _run(
        self,
        study: StudyHandle,
        plan: Plan,
        interruption: Interruption,
        checked: TrainingLoop | None,
        crew: Crew | None,
    ) -> RunEnd | None:
        display = show_here(quiet=plan.quiet)
        display.hears = not plan.background  # the program may hear them itself meanwhile
        try:
            if self._target is not None and plan.workers == 1:
                return run_here(
                    self._database,
                    study,
                    display,
                    passed=self._target,
                    device=plan.device,
                    fuse=str(plan.fuse),
                    checked=checked,
                    interruption=interruption,
                )
            return run_study(
                self._database,
                study,
                display,
                device=plan.device,
                workers=plan.workers,
                fuse=str(plan.fuse),
                crew=crew,
                code="" if self._target is None else pack(self._target),
                interruption=interruption,
            )
        finally:
            display.recall()
