"""A worker: it starts or takes over a trial, trains it, and goes on with the next.

Once the search of its study is over, it goes on with the study that confirms that one.
"""

from __future__ import annotations

import contextlib
import math
import os
import platform
import time
import uuid
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
import torch

import tuner
from tuner.domain.confirmation import Confirmation
from tuner.domain.fuse_plan import AUTO, COHORTS
from tuner.domain.states import StudyState, announce_pause
from tuner.errors import (
    LeaseLostError,
    RankKilledError,
    StorageError,
    UnavailableError,
    WorkloadError,
)
from tuner.fused.twin import ApartError
from tuner.search import needs_running
from tuner.service.confirmation import announce, find_next
from tuner.service.interruption import Interruption
from tuner.service.liveness import WorkerLock, is_dead
from tuner.service.ownership import claim_folder
from tuner.service.processes import THREADS
from tuner.service.ranks import refuse_ranks
from tuner.service.worker.checkpoints import Checkpoints, sweep
from tuner.service.worker.confirmer import propose_for
from tuner.service.worker.context import WorkerContext
from tuner.service.worker.failures import stop_if_all_fail
from tuner.service.worker.fusing import Fusing
from tuner.service.worker.held_trial import HeldTrial
from tuner.service.worker.ranks.limits import check_ranks
from tuner.service.worker.ranks.rank_lane import RankSetup, start_ranks
from tuner.service.worker.starts import start_alone, start_cohort
from tuner.service.worker.task import Task
from tuner.service.worker.watchdog import Watchdog
from tuner.store import Database, Lease, Ledger, RecordReader, StudyHandle
from tuner.store.connection.retries import PATIENCE_S, Patience
from tuner.store.leases.budget import is_done, read_exhausted
from tuner.store.leases.workers import WorkerIdentity, read_workers
from tuner.store.records import read_record
from tuner.training.forks import ending_forks
from tuner.training.loop import TrainingLoop
from tuner.training.rehearsal import prepare
from tuner.training.seeds import derive_seed
from tuner.training.threads import count_useful_threads

_POLL_S = 0.5
_RENEWING_S = 60.0
_NOTHING_LEFT = "nothing left to do"

Log = Callable[[str], None]


@dataclass
class Worker:
    """Works on a study, and then on its confirmation, until nothing is left to do.

    Args:
        database: The database that holds the study.
        study: The study it works on now.
        device: The device to train on.
        interruption: Tells when to stop early.
        started_at: When this process started, by ``time.monotonic``.
        log: Takes one line a trial. If it cannot, for want of room or of a reader, work goes on.
        fuse: ``auto``, ``off``, or the number of trials that train as one.
        loop: The study's training loop if this process has checked the workload beforehand, so
            that its data is on the device.
        passed: The workload, if it was passed as an object; None to import it.
        is_guest: Whether the process is a program's or a notebook's, which must not be ended.
        processes: How many train each trial together.
    """

    database: Database
    study: StudyHandle
    device: torch.device
    interruption: Interruption
    started_at: float
    log: Log = lambda line: None
    fuse: str = AUTO
    loop: TrainingLoop | None = None
    passed: Any = None
    is_guest: bool = False
    processes: int = 1
    _killed: Counter[int] = field(default_factory=Counter, init=False, repr=False)

    def run(self) -> None:
        """Works until nothing is left to do or a stop is asked for.

        Raises:
            KeyboardInterrupt: If a stop is asked for while the workload is prepared.
            SpecError: If the workload cannot be trained as the study says, or this process is one
                of several ranks.
            WorkloadError: If the study's first trials all fail alike, or all diverge alike.
            UnavailableError: If the database stays away for ``PATIENCE_S``, or while a stop is
                asked for.
            StorageError: If the database is gone.
        """
        spec, asked = self.study.spec, self.study
        patience = Patience(
            limit_s=PATIENCE_S,
            wait=self.interruption.wait,
            seed=derive_seed(spec.search.seed, "patience", uuid.uuid4().hex),
            log=self._say,
        )
        with Watchdog(
            self.interruption,
            stall_s=spec.train.stall_s,
            log=self._say,
            end=None if self.is_guest else os._exit,
        ) as watchdog:
            with self.interruption.raising():
                self._go_on(asked, patience)
                # The finalists train as the search has, so this serves both.
                loop = self.loop or prepare(spec, self.device, self.passed)
                check_ranks(loop, self.processes, self.device)
                self._leave_busy_cores()
            while self._serve(loop, watchdog, patience) and self._go_on(asked, patience):
                self.started_at = time.monotonic()  # nothing has to load again

    def _leave_busy_cores(self) -> None:
        """Trains on one thread where more are slower, as others use the cores."""
        most = torch.get_num_threads()
        if self.device.type != "cpu" or THREADS in os.environ:
            return
        if (useful := count_useful_threads()) < most:
            torch.set_num_threads(useful)
            self._say(
                f"Other programs use the cores: trains on {useful} of {most} threads, which is "
                f"faster now. {THREADS}={most} keeps all."
            )

    def _go_on(self, asked: StudyHandle, patience: Patience) -> bool:
        """Takes what is to be trained next, and says what it costs; tells whether there is any."""
        following = patience.run(lambda: find_next(self.database, asked))
        if following is None:
            return False
        if following.spec.confirmation is not None:
            self._say(patience.run(lambda: announce(self.database, following)))
        self.study = following
        return True

    def _serve(self, loop: TrainingLoop, watchdog: Watchdog, patience: Patience) -> bool:
        """Enters the study, works on it, and leaves it; tells whether nothing is left to do."""
        spec = self.study.spec
        identity = WorkerIdentity(
            worker_id=uuid.uuid4().hex,
            host=platform.node(),
            pid=os.getpid(),
            device=str(self.device),
            version=tuner.__version__,
            software=(
                f"Python {platform.python_version()}, torch {torch.__version__}, "
                f"Optuna {optuna.__version__}"
            ),
        )
        ledger = Ledger(self.database, self.study, identity, lease_s=spec.train.stall_s)
        folder = patience.run(lambda: claim_folder(self.database, self.study))
        with WorkerLock(identity.worker_id) as worker_lock:
            seed = patience.run(
                lambda: ledger.register(
                    time.monotonic() - self.started_at,
                    lambda ordinal: derive_seed(spec.search.seed, "worker", ordinal),
                )
            )
            context = WorkerContext(
                ledger=ledger,
                reader=RecordReader(self.database, self.study, follow_running=needs_running(spec)),
                proposer=propose_for(spec, seed),
                patience=patience,
                folder=folder,
                seed=seed,
                interruption=self.interruption,
                watchdog=watchdog,
                worker_lock=worker_lock,
            )
            self._sweep(folder)
            try:
                with ending_forks():
                    reason = self._work(loop, context)
            except WorkloadError as error:
                why = f"error: {str(error).splitlines()[0]}"
                patience.run(lambda: ledger.leave(why))
                raise
            patience.run(lambda: ledger.leave(reason))
            self._sweep(folder)
        return reason == _NOTHING_LEFT

    def _work(self, loop: TrainingLoop, context: WorkerContext) -> str:
        """Works, and returns why it has ended."""
        context.patience.run(context.catch_up)
        futile_before = len(context.futile)
        fusing = self._plan_fusing(loop, context)
        with contextlib.closing(fusing):
            return self._work_on(loop, context, fusing, futile_before)

    def _work_on(
        self, loop: TrainingLoop, context: WorkerContext, fusing: Fusing, futile_before: int
    ) -> str:
        """Works until nothing is left to do or a stop is asked for; returns which."""
        paused = False
        while not self.interruption.requested:
            signals = context.patience.run(context.ledger.signals)
            if signals.leaving:
                return "asked to leave"
            before, paused = paused, signals.state is StudyState.PAUSED
            if paused and not before:
                self._say(announce_pause(self.study.name))
            leases: list[Lease] = []
            refuse_ranks()
            if not paused:
                context.patience.run(context.catch_up)
                stop_if_all_fail(context, futile_before)
                leases = context.patience.run(lambda: self._find_work(context, fusing))
            if leases:
                self._train(loop, context, fusing, leases)
            elif context.patience.run(lambda: is_done(self.database, self.study)):
                exhausted = context.patience.run(lambda: read_exhausted(self.database, self.study))
                if exhausted is not None:
                    self._say(f"The study has ended: {exhausted}")
                return _NOTHING_LEFT
            else:
                # Others still train, or the study is paused: stay, for what may be left behind.
                context.patience.run(context.ledger.touch)
                self.interruption.wait(_POLL_S)
        return "asked to leave" if context.leaving else "interrupted"

    def _plan_fusing(self, loop: TrainingLoop, context: WorkerContext) -> Fusing:
        """Decides how many trials train as one here."""
        fusing = Fusing(self.study.spec, loop, self.fuse, self._say)
        trials = self.study.spec.budget.trials
        confirmation = self.study.spec.confirmation
        # Nothing is learned from one run for the next, so all finalists may train as one.
        size = trials if confirmation is None else COHORTS * _lanes_for(confirmation)
        workers = context.patience.run(lambda: read_workers(self.database, self.study, is_dead))
        alive = sum(row.state.is_alive for row in workers)
        left = math.ceil(max(0, trials - len(context.over)) / max(1, alive))
        with self.interruption.raising():
            context.patience.run(lambda: fusing.plan(self.database, self.study, size, left))
        return fusing

    def _find_work(self, context: WorkerContext, fusing: Fusing) -> list[Lease]:
        # After an outage, or a jump of the clock, every lease has expired, and those who train need
        # a moment to say so. A process that has just started may have started into the end of one.
        # They renew a few times within stall_s.
        renewing_s = _RENEWING_S * max(1.0, self.study.spec.train.stall_s / (3 * 60.0))
        expired = self.database.calm_s > renewing_s
        lanes = fusing.lanes
        found = (
            context.ledger.take_over(is_dead, expired=expired, at_most=lanes)
            or context.promote(lanes, fusing.can_fuse)
            or context.start(lanes, fusing.can_fuse)
            or context.complete(lanes, fusing.can_fuse)
            or context.close()
        )
        if not found:
            context.end_paused()
        return found

    def _train(
        self,
        loop: TrainingLoop,
        context: WorkerContext,
        fusing: Fusing,
        leases: Sequence[Lease],
    ) -> None:
        """Trains the largest group of trials that can train together, and gives back the others."""
        trials = [held for lease in leases if (held := self._hold(context, lease)) is not None]
        if not trials:
            return
        chosen, fused = fusing.choose(trials)
        others = [trial.lease for trial in trials if trial not in chosen]
        if others:
            context.patience.run(lambda: context.ledger.release(others))
        try:
            if fused:
                self._train_cohort(context, fusing, chosen)
            else:
                self._train_alone(loop, context, chosen[:1])
        except LeaseLostError:
            pass  # the task has said so
        finally:
            context.watchdog.rest()
        if any(trial.lost for trial in chosen):
            self._sweep(context.folder)

    def _hold(self, context: WorkerContext, lease: Lease) -> HeldTrial | None:
        record = context.running.get(lease.number)
        if record is None or lease.checkpoint is not None or lease.attempt > 1:
            record = context.patience.run(
                lambda: read_record(self.database, self.study, lease.number)
            )
        if record is None:
            return None
        checkpoints = Checkpoints(context.folder, self.study.uuid, lease)
        return HeldTrial(self.study.spec, lease, record, checkpoints)

    def _train_alone(
        self, loop: TrainingLoop, context: WorkerContext, trials: Sequence[HeldTrial]
    ) -> None:
        """Trains a trial; any error of its loop ends the trial, and the worker goes on."""
        with contextlib.ExitStack() as stack:
            start = start_alone(loop, self.device, context.folder)
            if self.processes > 1:
                setup = RankSetup(self.processes, str(self.device), self._threads, self._say)
                start = start_ranks(setup, context.folder, stack)
            self._train_task(Task(trials[0].spec, context, trials, start, self._say), trials[0])

    def _train_task(self, task: Task, trial: HeldTrial) -> None:
        try:
            task.train()
        except StorageError:
            raise
        except RankKilledError as error:
            self._killed[trial.number] += 1
            if self._killed[trial.number] > 1 and self.interruption.requested_at is None:
                task.fail(error)
            else:
                self._say(f"Trial {trial.number} is released: {str(error).splitlines()[0]}")
                task.abandon()
        except BaseException as error:  # noqa: BLE001 (whatever it is, it is the trial's alone)
            if self.interruption.requested_at is None:
                task.fail(error)
            else:
                task.give_back(error)

    @property
    def _threads(self) -> int | None:
        """Threads of each process of a trial: they share those of this one."""
        return max(1, torch.get_num_threads() // self.processes)

    def _train_cohort(
        self, context: WorkerContext, fusing: Fusing, trials: Sequence[HeldTrial]
    ) -> None:
        """Trains trials as one; an error shows whose it is where they train alone."""
        fusing.use_compiled()
        start = start_cohort(fusing.model, fusing.twin, context.watchdog.rest)
        task = Task(trials[0].spec, context, trials, start, self._say)
        try:
            task.train()
        except StorageError:
            raise
        except BaseException as error:  # noqa: BLE001 (raised again where they train alone)
            if isinstance(error, ApartError):
                # What has been saved was trained wrongly, too.
                for trial in trials:
                    if not trial.lost:
                        trial.checkpoints.clear()
                fusing.retreat(error)
            elif self.interruption.requested_at is None:
                fusing.retreat(error)
            # Else: whoever asked for a stop may have asked a loader's processes too.
            task.abandon()

    def _sweep(self, folder: Path) -> None:
        with contextlib.suppress(UnavailableError):  # whoever comes next does it
            sweep(folder, self.database, self.study)

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.log(line)


def _lanes_for(confirmation: Confirmation) -> int:
    """Returns the lanes in which all finalists train as one: a power of two."""
    return 1 << (len(confirmation.finalists) - 1).bit_length()
