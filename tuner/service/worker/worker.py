"""A worker: it starts or takes over a trial, trains it, and goes on with the next."""

from __future__ import annotations

import contextlib
import math
import os
import platform
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import torch

import tuner
from tuner.domain.fuse_plan import AUTO
from tuner.domain.states import StudyState, announce_pause
from tuner.domain.trials import TrialRecord
from tuner.errors import LeaseLostError, StorageError, UnavailableError, WorkloadError
from tuner.fused.twin import ApartError
from tuner.search import Proposer, needs_running
from tuner.service.interruption import Interruption
from tuner.service.liveness import WorkerLock, is_dead
from tuner.service.ownership import claim_folder
from tuner.service.ranks import refuse_ranks
from tuner.service.worker.checkpoints import Checkpoints, sweep
from tuner.service.worker.cohort_task import CohortTask
from tuner.service.worker.context import WorkerContext
from tuner.service.worker.fusing import Fusing
from tuner.service.worker.held_trial import LaneTask
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

ALIKE_FAILURES = 5
"""Failures of the first trials, all alike, after which a study stops."""

_POLL_S = 0.5
_SETTLING_S = 60.0

Log = Callable[[str], None]


@dataclass
class Worker:
    """Works on a study until its budget is used up and nothing is left running.

    Args:
        database: Where the study is.
        study: The study.
        device: Where to train.
        interruption: Tells when to stop early.
        started_at: When this process started, by ``time.monotonic``.
        log: Takes one line a trial. Where it cannot, for want of room or of a reader, work goes on.
        fuse: How many trials train as one: ``auto``, ``off``, or how many.
    """

    database: Database
    study: StudyHandle
    device: torch.device
    interruption: Interruption
    started_at: float
    log: Log = lambda line: None
    fuse: str = AUTO
    _folder: Path = field(init=False)
    _fusing: Fusing = field(init=False)

    def run(self) -> None:
        """Works until nothing is left to do or a stop is asked for.

        Raises:
            KeyboardInterrupt: If a stop is asked for while the workload is prepared.
            SpecError: If the workload cannot be trained as the study says, or this process is one
                of several ranks.
            WorkloadError: If the study's first trials all fail alike.
            UnavailableError: If the database stays away for ``PATIENCE_S``, or while a stop is
                asked for.
            StorageError: If the database is gone.
        """
        stall_s = self.study.spec.train.stall_s
        with Watchdog(self.interruption, stall_s=stall_s, log=self._say) as watchdog:
            with self.interruption.raising():
                train = prepare(self.study.spec, self.device)
            self._serve(train, watchdog)

    def _serve(self, train: TrainingLoop, watchdog: Watchdog) -> None:
        """Enters the study, works on it, and leaves it."""
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
        patience = Patience(
            limit_s=PATIENCE_S,
            wait=self.interruption.wait,
            seed=derive_seed(spec.search.seed, "patience", identity.worker_id),
            log=self._say,
        )
        self._folder = patience.run(lambda: claim_folder(self.database, self.study))
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
                proposer=Proposer(spec, seed),
                patience=patience,
                seed=seed,
                interruption=self.interruption,
                watchdog=watchdog,
                worker_lock=worker_lock,
            )
            self._sweep()
            with ending_forks():
                reason = self._work(train, context)
            patience.run(lambda: ledger.leave(reason))
            self._sweep()

    def _work(self, train: TrainingLoop, context: WorkerContext) -> str:
        """Works, and returns why it has ended."""
        context.patience.run(context.catch_up)
        context.failures_before = len(context.failed)
        self._fusing = self._settle(train, context)
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
                self._stop_if_all_fail(context)
                leases = context.patience.run(lambda: self._find_work(context))
            if leases:
                self._train(train, context, leases)
            elif context.patience.run(lambda: is_done(self.database, self.study)):
                exhausted = context.patience.run(lambda: read_exhausted(self.database, self.study))
                if exhausted is not None:
                    self._say(f"Nothing is left to try: {exhausted}")
                return "nothing left to do"
            else:
                # Others still train, or the study is paused: stay, for what may be left behind.
                context.patience.run(context.ledger.touch)
                self.interruption.wait(_POLL_S)
        return "asked to leave" if context.leaving else "interrupted"

    def _settle(self, train: TrainingLoop, context: WorkerContext) -> Fusing:
        """Finds out how many trials train as one here."""
        fusing = Fusing(self.study.spec, train, self.fuse, self._say)
        trials = self.study.spec.budget.trials
        workers = context.patience.run(lambda: read_workers(self.database, self.study, is_dead))
        alive = sum(row.state.present for row in workers)
        left = math.ceil(max(0, trials - len(context.over)) / max(1, alive))
        with self.interruption.raising():
            context.patience.run(lambda: fusing.settle(self.database, self.study, trials, left))
        return fusing

    def _find_work(self, context: WorkerContext) -> list[Lease]:
        # After an outage, or a jump of the clock, every lease has expired, and those who train need
        # a moment to say so. A process that has just started may have started into the end of one.
        # They renew a few times within stall_s.
        settling_s = _SETTLING_S * max(1.0, self.study.spec.train.stall_s / (3 * 60.0))
        expired = self.database.calm_s > settling_s
        lanes = self._fusing.lanes
        left_behind = context.ledger.take_over(is_dead, expired=expired, at_most=lanes)
        return left_behind or context.start(lanes, self._fusing.can_fuse)

    def _train(self, train: TrainingLoop, context: WorkerContext, leases: Sequence[Lease]) -> None:
        """Trains of some trials those that can train together, and gives back the others."""
        tasks = [task for lease in leases if (task := self._lane_task(context, lease)) is not None]
        if not tasks:
            return
        chosen, fused = self._fusing.choose(tasks)
        others = [task.lease for task in tasks if task not in chosen]
        if others:
            context.patience.run(lambda: context.ledger.release(others))
        try:
            if fused:
                self._train_cohort(context, chosen)
            else:
                self._train_alone(train, context, chosen[0])
        except LeaseLostError as error:
            self._say(f"{error} It is left to that worker.")
            self._sweep()
        finally:
            context.watchdog.rest()

    def _lane_task(self, context: WorkerContext, lease: Lease) -> LaneTask | None:
        record = context.running.get(lease.number)
        if record is None or lease.checkpoint is not None or lease.attempt > 1:
            record = context.patience.run(
                lambda: read_record(self.database, self.study, lease.number)
            )
        if record is None:
            return None
        checkpoints = Checkpoints(self._folder, self.study.uuid, lease)
        return LaneTask(self.study.spec, lease, record, checkpoints)

    def _train_alone(self, train: TrainingLoop, context: WorkerContext, one: LaneTask) -> None:
        task = Task(self.study.spec, context, one.lease, one.record, one.checkpoints, self._say)
        try:
            outcome = task.train(train, self.device)
            refuse_ranks()  # a loop may have made itself one
            task.close(outcome)
        except (LeaseLostError, StorageError):
            raise
        except BaseException as error:  # noqa: BLE001 (whatever it is, it is the trial's alone)
            if self.interruption.requested_at is None:
                task.fail(error)
            else:
                task.give_back(error)

    def _train_cohort(self, context: WorkerContext, tasks: list[LaneTask]) -> None:
        """Trains trials as one; what the workload raises shows whose it is where they train alone.

        What is raised between a checkpoint and the evaluation that follows is put down to the
        checkpoint first.
        """
        cohort = CohortTask(
            self.study.spec, context, self._fusing.model, tasks, self._say, self._fusing.twin
        )
        try:
            cohort.train()
        except (LeaseLostError, StorageError):
            raise
        except ApartError as error:
            # What has been saved was trained wrongly, too.
            for task in tasks:
                if not task.lost:
                    task.checkpoints.clear()
            self._fusing.retreat(error)
            cohort.abandon()
        except BaseException as error:  # noqa: BLE001 (raised again where they train alone)
            if self.interruption.requested_at is not None:
                cohort.abandon()  # whoever asked for that may have asked a loader's processes too
            elif cohort.resumed and not cohort.evaluated:
                for task in tasks:
                    task.start_over(error)
                self._train_cohort(context, [task for task in tasks if not task.lost])
            else:
                self._fusing.retreat(error)
                cohort.abandon()

    def _sweep(self) -> None:
        with contextlib.suppress(UnavailableError):  # whoever comes next does it
            sweep(self._folder, self.database, self.study)

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.log(line)

    def _stop_if_all_fail(self, context: WorkerContext) -> None:
        failures = list(context.failed.values())
        if (
            len(failures) < max(ALIKE_FAILURES, len(context.over))
            or len(failures) == context.failures_before
        ):
            return
        if len({_failure_of(record) for record in failures}) > 1:
            return
        last = failures[-1].attributes
        raise WorkloadError(
            f"The first {len(failures)} trials all failed alike, so the study has stopped: "
            f"{last.get('error')}\nFix the workload and run the study again; failed trials "
            f"count in its budget.\n\n{last.get('traceback', '')}"
        )


def _failure_of(record: TrialRecord) -> str:
    """Returns what a failed trial has in common with one that failed alike."""
    kind = str(record.attributes.get("error", "")).partition(":")[0]
    return f"{kind} at {record.attributes.get('error_at')}"
