"""A worker: takes a trial, has it trained, and takes the next."""

from __future__ import annotations

import contextlib
import os
import platform
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import optuna
import torch

import tuner
from tuner.domain.states import StudyState, announce_pause
from tuner.domain.trials import Outcome, TrialRecord
from tuner.errors import LeaseLostError, StorageError, UnavailableError, WorkloadError
from tuner.search import Proposer, needs_running
from tuner.service.checkpoints import Checkpoints, study_folder, sweep
from tuner.service.desk import Desk
from tuner.service.interruption import Interruption
from tuner.service.presence import Presence, is_dead
from tuner.service.task import Task
from tuner.service.watchdog import Watchdog
from tuner.store import Database, Lease, Ledger, RecordReader, StudyHandle
from tuner.store.ledger import WorkerIdentity, is_done
from tuner.store.records import read_record
from tuner.store.retries import PATIENCE_S, Patience
from tuner.training.loop import Train
from tuner.training.prepare import prepare
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
        started_at: When this process started, seconds since 1970.
        log: Takes one line a trial. Where it cannot, for want of room or of a reader, work goes on.
    """

    database: Database
    study: StudyHandle
    device: torch.device
    interruption: Interruption
    started_at: float
    log: Log = lambda line: None
    _folder: Path = field(init=False)

    def run(self) -> None:
        """Works until nothing is left to do or a stop is asked for.

        Raises:
            KeyboardInterrupt: If a stop is asked for while the workload is prepared.
            SpecError: If the workload cannot be trained as the study says.
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

    def _serve(self, train: Train, watchdog: Watchdog) -> None:
        """Enters the study, works on it, and leaves it."""
        spec = self.study.spec
        self._folder = study_folder(self.database.url, self.study)
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
        with Presence(identity.worker_id) as presence:
            seed = patience.run(
                lambda: ledger.register(
                    time.time() - self.started_at,
                    lambda ordinal: derive_seed(spec.search.seed, "worker", ordinal),
                )
            )
            desk = Desk(
                ledger=ledger,
                reader=RecordReader(self.database, self.study, follow_running=needs_running(spec)),
                proposer=Proposer(spec, seed),
                patience=patience,
                seed=seed,
                interruption=self.interruption,
                watchdog=watchdog,
                presence=presence,
            )
            self._sweep()
            reason = self._work(train, desk)
            patience.run(lambda: ledger.leave(reason))
            self._sweep()

    def _work(self, train: Train, desk: Desk) -> str:
        """Works, and returns why it has ended."""
        desk.patience.run(desk.catch_up)
        desk.failures_before = sum(_failure_of(r) is not None for r in desk.records.values())
        paused = False
        while not self.interruption.requested:
            orders = desk.patience.run(desk.ledger.orders)
            if orders.leaving:
                return "asked to leave"
            before, paused = paused, orders.state is StudyState.PAUSED
            if paused and not before:
                self._say(announce_pause(self.study.name))
            lease = None
            if not paused:
                desk.patience.run(desk.catch_up)
                self._stop_if_all_fail(desk)
                lease = desk.patience.run(lambda: self._find_work(desk))
            if lease is not None:
                self._train(train, desk, lease)
            elif desk.patience.run(lambda: is_done(self.database, self.study)):
                return "nothing left to do"
            else:
                # Others still train, or the study is paused: stay, for what may be left behind.
                desk.patience.run(desk.ledger.touch)
                self.interruption.wait(_POLL_S)
        return "asked to leave" if desk.leaving else "interrupted"

    def _find_work(self, desk: Desk) -> Lease | None:
        # After an outage every lease has expired, and those who train need a moment to say so. A
        # process that has just started may have started into the end of one.
        expired = self.database.calm_s > _SETTLING_S
        return desk.ledger.take_over(is_dead, expired=expired) or desk.start()

    def _train(self, train: Train, desk: Desk, lease: Lease) -> None:
        record = desk.patience.run(lambda: read_record(self.database, self.study, lease.number))
        if record is None:
            return
        checkpoints = Checkpoints(self._folder, self.study.uuid, lease)
        task = Task(self.study.spec, desk, lease, record, checkpoints, self._say)
        try:
            try:
                task.close(task.train(train, self.device))
            except (LeaseLostError, StorageError):
                raise
            except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 (recorded)
                task.fail(error)
        except LeaseLostError as error:
            self._say(f"{error} It is left to that worker.")
            self._sweep()
        finally:
            desk.watchdog.rest()

    def _sweep(self) -> None:
        with contextlib.suppress(UnavailableError):  # whoever comes next does it
            sweep(self._folder, self.database, self.study)

    def _say(self, line: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self.log(line)

    def _stop_if_all_fail(self, desk: Desk) -> None:
        failures = [record for record in desk.records.values() if _failure_of(record)]
        if len(failures) < ALIKE_FAILURES or len(failures) == desk.failures_before:
            return
        ended_otherwise = any(
            record.outcome not in (Outcome.FAILED, Outcome.RUNNING)
            for record in desk.records.values()
        )
        if ended_otherwise or len({_failure_of(record) for record in failures}) > 1:
            return
        last = failures[-1].attributes
        raise WorkloadError(
            f"The first {len(failures)} trials all failed alike, so the study has stopped: "
            f"{last.get('error')}\nFix the workload and run the study again; failed trials "
            f"count in its budget.\n\n{last.get('traceback', '')}"
        )


def _failure_of(record: TrialRecord) -> str | None:
    if record.outcome is not Outcome.FAILED:
        return None
    kind = str(record.attributes.get("error", "")).partition(":")[0]
    return f"{kind} at {record.attributes.get('error_at')}"
