"""A worker: takes a trial, trains it, reports, tells how it ended, and takes the next."""

from __future__ import annotations

import math
import os
import platform
import time
import traceback
import uuid
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from optuna.trial import TrialState

import tuner
from tuner.domain.trials import Outcome, TrialRecord, decode, progress_at
from tuner.errors import LeaseLostError, StorageError, WorkloadError
from tuner.search import Proposer, Pruner
from tuner.service.checkpoints import checkpoint_path, study_folder
from tuner.service.interruption import Interruption
from tuner.service.presence import Presence, is_dead
from tuner.store import Database, Lease, Ledger, RecordReader, StudyHandle
from tuner.store.ledger import LEASE_S, WorkerIdentity, is_done
from tuner.store.records import read_record
from tuner.training.checkpoint import load_checkpoint, remove_checkpoint, save_checkpoint
from tuner.training.device import is_out_of_memory
from tuner.training.loop import Ending, Evaluation, Timing, run_trial
from tuner.training.loop import Outcome as TrainingOutcome
from tuner.training.seeds import derive_seed
from tuner.training.trainer import Bench, Trainer, prepare_checked

CHECKPOINT_S = 15.0
"""Training time between checkpoints, in seconds; a shorter trial writes none."""

ALIKE_FAILURES = 5
"""Failures of the first trials, all alike, after which a study stops."""

_POLL_S = 0.5
_STATES = {
    Ending.COMPLETE: TrialState.COMPLETE,
    Ending.PRUNED: TrialState.PRUNED,
    Ending.DIVERGED: TrialState.PRUNED,
}

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
        log: Takes one line a trial.
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
            SpecError: If the workload cannot be trained as the study says.
            WorkloadError: If the study's first trials all fail alike.
            StorageError: If the database is gone.
        """
        spec = self.study.spec
        bench = prepare_checked(spec, self.device)
        self._folder = study_folder(self.database.url, self.study)
        identity = WorkerIdentity(
            worker_id=uuid.uuid4().hex,
            host=platform.node(),
            pid=os.getpid(),
            device=str(self.device),
            version=tuner.__version__,
        )
        ledger = Ledger(self.database, self.study, identity)
        with Presence(identity.worker_id):
            seed = ledger.register(
                time.time() - self.started_at,
                lambda ordinal: derive_seed(spec.search.seed, "worker", ordinal),
            )
            desk = _Desk(
                ledger=ledger,
                reader=RecordReader(self.database, self.study),
                proposer=Proposer(spec, seed),
            )
            self._work(bench, desk)
            ledger.touch()

    def _work(self, bench: Bench, desk: _Desk) -> None:
        desk.catch_up()
        desk.failures_before = sum(_failure_of(r) is not None for r in desk.records.values())
        while not self.interruption.requested:
            desk.catch_up()
            self._stop_if_all_fail(desk)
            lease = desk.ledger.take_over(is_dead) or desk.start()
            if lease is not None:
                self._train(bench, desk, lease)
            elif is_done(self.database, self.study):
                return
            else:
                # Others still train: stay, to take over what they may leave behind.
                desk.ledger.touch()
                self.interruption.wait(_POLL_S)

    def _train(self, bench: Bench, desk: _Desk, lease: Lease) -> None:
        record = read_record(self.database, self.study, lease.number)
        if record is None:
            return
        task = _Task(self, desk, lease, record, checkpoint_path(self._folder, lease.number))
        try:
            try:
                trainer = task.prepare(bench)
                outcome = run_trial(trainer, self.study.spec.study.metric, task, task.timing)
            except (LeaseLostError, StorageError):
                raise
            except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001 (recorded)
                task.fail(error)
            else:
                task.close(outcome)
        except LeaseLostError as error:
            self.log(f"{error} It is left to that worker.")

    def _stop_if_all_fail(self, desk: _Desk) -> None:
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


@dataclass
class _Desk:
    """What a worker knows of its study: the ledger, the past, and what to try next."""

    ledger: Ledger
    reader: RecordReader
    proposer: Proposer
    records: dict[int, TrialRecord] = field(default_factory=dict)
    failures_before: int = 0

    def __post_init__(self) -> None:
        self.defaults = self.proposer.defaults()

    def catch_up(self) -> None:
        """Takes in what has started or finished since the last call."""
        news = self.reader.sync()
        self.proposer.history.add(news)
        self.records |= {record.number: record for record in news}

    def start(self) -> Lease | None:
        """Starts a new trial, if the budget has one left."""
        return self.ledger.start(self.defaults, self.proposer.propose())


class _Task:
    """One trial on a worker: the loop reports to it."""

    def __init__(
        self, worker: Worker, desk: _Desk, lease: Lease, record: TrialRecord, checkpoint: Path
    ) -> None:
        self._worker = worker
        self._desk = desk
        self._lease = lease
        self._record = record
        self._checkpoint = checkpoint
        self._spec = worker.study.spec
        self._pruner = Pruner(self._spec, desk.proposer.history)
        self._evaluations: dict[int, float] = {}
        self._stopped_by: str | None = None
        self._trainer: Trainer | None = None
        self._saved_at = self._renewed_at = time.monotonic()
        self.timing = Timing()

    def prepare(self, bench: Bench) -> Trainer:
        """Builds the trial, at its checkpoint if there is a good one."""
        # All trials of a search share one seed, so that they differ in what is searched alone.
        config = decode(self._spec, self._record.proposal)
        self._trainer = Trainer(bench, self._spec, config, self._spec.search.seed)
        try:
            state = load_checkpoint(self._checkpoint)
            if state is not None:
                self._resume(self._trainer, state)
        except (StorageError, WorkloadError) as error:
            self._worker.log(f"Trial {self._lease.number} starts over: {error}")
            remove_checkpoint(self._checkpoint)
            self._trainer = Trainer(bench, self._spec, config, self._spec.search.seed)
        return self._trainer

    def _resume(self, trainer: Trainer, state: dict[str, Any]) -> None:
        trainer.load_state_dict(state)
        self.timing = Timing(**state["timing"])
        seen = {self._progress(index) for index in range(1, trainer.evaluated + 1)}
        self._evaluations = {p: v for p, v in self._record.evaluations.items() if p in seen}
        self._worker.log(f"Trial {self._lease.number} continues at step {trainer.step_number}")

    def advance(self, step: int) -> bool:
        """Renews the lease and saves now and then; False when a stop is asked for."""
        if self._worker.interruption.requested:
            return False
        now = time.monotonic()
        if now - self._renewed_at > LEASE_S / 4:
            self._desk.ledger.renew(self._lease, step)
            self._renewed_at = now
        if now - self._saved_at > CHECKPOINT_S:
            self._save()
        return True

    def report(self, evaluation: Evaluation) -> bool:
        """Records an evaluation; False when the trial is to stop."""
        value = evaluation.metrics[self._spec.study.metric]
        progress = self._progress(evaluation.index)
        self._evaluations[progress] = value
        self._desk.ledger.report(self._lease, evaluation.step, progress, value)
        self._renewed_at = time.monotonic()
        if self._trainer is None or evaluation.step == self._trainer.total_steps:
            return True
        if self._desk.ledger.is_out_of_time():
            self._stopped_by = "wall_time"
            return False
        self._desk.catch_up()
        return not self._pruner.should_prune(self._record, self._evaluations)

    def close(self, outcome: TrainingOutcome) -> None:
        """Tells how the trial ended, or gives it back."""
        if outcome.ending is Ending.INTERRUPTED:
            self._desk.ledger.renew(self._lease, self._step)
            self._save()
            self._desk.ledger.release(self._lease)
            self._worker.log(f"Trial {self._lease.number} saved and released")
            return
        attributes: dict[str, Any] = {"metrics": _finite(outcome.metrics)}
        if outcome.diverged_step is not None:
            attributes["diverged_step"] = outcome.diverged_step
        if self._stopped_by is not None:
            attributes["stopped_by"] = self._stopped_by
        value = self._evaluations[max(self._evaluations)] if self._evaluations else None
        self._finish(_STATES[outcome.ending], value, attributes)
        shown = f"{self._spec.study.metric} {value:.6g}" if value is not None else "no evaluation"
        self._worker.log(f"Trial {self._lease.number} {outcome.ending}: {shown}")

    def fail(self, error: BaseException) -> None:
        """Records what the workload raised."""
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        text = f"{type(error).__name__}: {error}"
        if is_out_of_memory(error):
            text = f"Out of memory ({text}). Use a smaller batch or model, or a larger device."
        attributes = {
            "error": text[:2000],
            "error_at": place,
            "traceback": "".join(traceback.format_exception(error))[-20_000:],
        }
        self._finish(TrialState.FAIL, None, attributes)
        self._worker.log(f"Trial {self._lease.number} failed: {text.splitlines()[0]}")

    def _finish(self, state: TrialState, value: float | None, attributes: dict[str, Any]) -> None:
        attributes |= {
            "steps": self._step,
            "train_s": round(self.timing.train_s, 6),
            "eval_s": round(self.timing.eval_s, 6),
            "seed": self._spec.search.seed,
        }
        self._desk.ledger.finish(self._lease, state, value, attributes)
        remove_checkpoint(self._checkpoint)

    def _save(self) -> None:
        if self._trainer is not None:
            state = self._trainer.state_dict()
            timing = {"train_s": self.timing.train_s, "eval_s": self.timing.eval_s}
            save_checkpoint(self._checkpoint, {**state, "timing": timing})
            self._saved_at = time.monotonic()

    @property
    def _step(self) -> int:
        return 0 if self._trainer is None else self._trainer.step_number

    def _progress(self, index: int) -> int:
        total = 0 if self._trainer is None else self._trainer.total_steps
        return progress_at(self._spec, index, total)


def _failure_of(record: TrialRecord) -> str | None:
    if record.outcome is not Outcome.FAILED:
        return None
    kind = str(record.attributes.get("error", "")).partition(":")[0]
    return f"{kind} at {record.attributes.get('error_at')}"


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}
