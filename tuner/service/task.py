"""One trial on a worker: what its training loop reports to."""

from __future__ import annotations

import math
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from optuna.trial import TrialState

from tuner.domain.dimensions import Dimension, Value
from tuner.domain.optimizers import OPTIMIZERS
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialRecord, decode, progress_at
from tuner.errors import StorageError, UnavailableError, WorkloadError
from tuner.search import Proposer, Pruner
from tuner.service.interruption import Interruption
from tuner.store import Lease, Ledger, RecordReader
from tuner.store.ledger import LEASE_S
from tuner.store.outbox import Outbox
from tuner.store.retries import Patience
from tuner.training.checkpoint import load_checkpoint, remove_checkpoint, save_checkpoint
from tuner.training.device import is_out_of_memory
from tuner.training.loop import Ending, Outcome
from tuner.training.reporting import Evaluation, StaleCheckpointError
from tuner.training.run import Run

CHECKPOINT_S = 15.0
"""Training time between checkpoints, in seconds; a shorter trial writes none."""

_STATES = {
    Ending.COMPLETE: TrialState.COMPLETE,
    Ending.PRUNED: TrialState.PRUNED,
    Ending.DIVERGED: TrialState.PRUNED,
}


@dataclass
class Desk:
    """What a worker knows of its study: the ledger, the past, and what to try next."""

    ledger: Ledger
    reader: RecordReader
    proposer: Proposer
    patience: Patience
    seed: int
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


class Task:
    """One trial in training: reports, saves and ends it.

    While the database is away its reports are kept, nobody is judged, and training goes on.

    Args:
        spec: The study, resolved.
        desk: What the worker knows of its study.
        lease: The right to the trial.
        record: The trial as the database knows it.
        checkpoint: Where it is saved.
        interruption: Tells when to stop.
        log: Takes a line of text.
    """

    def __init__(
        self,
        spec: StudySpec,
        desk: Desk,
        lease: Lease,
        record: TrialRecord,
        checkpoint: Path,
        interruption: Interruption,
        log: Callable[[str], None],
    ) -> None:
        self._spec = spec
        self._desk = desk
        self._lease = lease
        self._record = record
        self._checkpoint = checkpoint
        self._interruption = interruption
        self._log = log
        self._config = decode(spec, record.proposal)
        self._pruner = Pruner(spec, desk.proposer.history)
        self._outbox = Outbox(seed=desk.seed + lease.number)
        self._evaluations: dict[int, float] = {}
        self._metrics: dict[str, float] = {}
        self._stopped_by: str | None = None
        self._run: Run | None = None
        self._saved_at = self._renewed_at = time.monotonic()

    def begin(self, device: torch.device) -> Run:
        """Returns the trial's run, at its checkpoint if there is a good one."""
        try:
            state = load_checkpoint(self._checkpoint)
            run = self._new_run(device, state)
        except (StorageError, StaleCheckpointError) as error:
            return self.begin_again(device, error)
        if state is not None:
            seen = {self._progress(run, index) for index in range(1, run.evaluated + 1)}
            self._evaluations = {p: v for p, v in self._record.evaluations.items() if p in seen}
            self._log(f"Trial {self._lease.number} continues at step {run.taken}")
        return run

    def begin_again(self, device: torch.device, error: Exception) -> Run:
        """Returns a run from the start, for a checkpoint that cannot be used."""
        self._log(f"Trial {self._lease.number} starts over: {error}")
        remove_checkpoint(self._checkpoint)
        self._evaluations = {}
        return self._new_run(device, None)

    def _new_run(self, device: torch.device, state: dict[str, Any] | None) -> Run:
        # All trials of a search share one seed, so that they differ in what is searched alone.
        self._run = Run(self._spec, self._config, device=device, reporter=self, state=state)
        return self._run

    # What the run tells.

    def report(self, evaluation: Evaluation) -> bool:
        """Records an evaluation; False when the trial is to stop."""
        run = self._present
        value = evaluation.metrics[self._spec.study.metric]
        progress = self._progress(run, evaluation.index)
        self._evaluations[progress] = value
        self._metrics = evaluation.metrics
        step = evaluation.step
        logged = [(step, name, measured) for name, measured in evaluation.metrics.items()]
        logged += run.take_logged()
        delivered = self._outbox.put(
            lambda: self._desk.ledger.report(self._lease, step, progress, value, logged)
        )
        self._renewed_at = time.monotonic()
        if not delivered:
            self._log(f"Trial {self._lease.number}: the database is away; training goes on")
            return True
        return step >= run.total_steps or self._goes_on()

    def _goes_on(self) -> bool:
        try:
            if self._desk.ledger.is_out_of_time():
                self._stopped_by = "wall_time"
                return False
            self._desk.catch_up()
        except UnavailableError:
            return True
        return not self._pruner.should_prune(self._record, self._evaluations)

    def advance(self, step: int) -> bool:
        """Renews the lease and saves now and then; False when a stop is asked for."""
        if self._interruption.requested:
            return False
        now = time.monotonic()
        if now - self._renewed_at > LEASE_S / 4:
            self._renewed_at = now
            self._outbox.put(lambda: self._desk.ledger.renew(self._lease, step))
        elif self._outbox:
            self._outbox.deliver()
        if now - self._saved_at > CHECKPOINT_S:
            self.save()
        return True

    def suggest(self, name: str, axis: Dimension) -> Value:
        """Returns a value for a hyperparameter of the workload's own, and records it."""
        value, distribution = self._desk.proposer.suggest(name, axis)
        self._outbox.put(
            lambda: self._desk.ledger.add_parameters(
                self._lease, {name: value}, {name: distribution}
            )
        )
        return value

    def save(self) -> None:
        """Writes a checkpoint; a disk that refuses it costs safety, not the trial."""
        if self._run is None or not self._run.resumable:
            return
        self._saved_at = time.monotonic()
        self._tell_logged()
        try:
            save_checkpoint(self._checkpoint, self._run.state_dict())
        except StorageError as error:
            self._log(f"Trial {self._lease.number}: {error}")

    # How it ends.

    def close(self, outcome: Outcome) -> None:
        """Tells how the trial ended, or gives it back."""
        if outcome.ending is Ending.INTERRUPTED:
            self._give_back()
            return
        value = outcome.value
        if value is None and self._evaluations:
            value = self._evaluations[max(self._evaluations)]
        if value is None and outcome.ending is Ending.COMPLETE:
            metric = self._spec.study.metric
            self.fail(WorkloadError(f"The training loop neither reported nor returned {metric}."))
            return
        attributes: dict[str, Any] = {"metrics": _finite(self._metrics)}
        if outcome.diverged_step is not None:
            attributes["diverged_step"] = outcome.diverged_step
        if self._stopped_by is not None:
            attributes["stopped_by"] = self._stopped_by
        self._finish(_STATES[outcome.ending], value, attributes)
        shown = f"{self._spec.study.metric} {value:.6g}" if value is not None else "no evaluation"
        self._log(f"Trial {self._lease.number} {outcome.ending}: {shown}")

    def fail(self, error: BaseException) -> None:
        """Records what the workload raised."""
        frames = traceback.extract_tb(error.__traceback__)
        place = f"{frames[-1].filename}:{frames[-1].lineno}" if frames else ""
        text = _describe(error)
        if is_out_of_memory(error):
            text = f"Out of memory ({text}). Use a smaller batch or model, or a larger device."
        attributes = {
            "error": text[:2000],
            "error_at": place,
            "traceback": "".join(traceback.format_exception(error))[-20_000:],
        }
        self._finish(TrialState.FAIL, None, attributes)
        self._log(f"Trial {self._lease.number} failed: {text.splitlines()[0]}")

    def _give_back(self) -> None:
        self.save()
        step = self._present.taken
        try:
            self._outbox.flush(self._desk.patience)
            self._desk.patience.run(lambda: self._desk.ledger.renew(self._lease, step))
            self._desk.patience.run(lambda: self._desk.ledger.release(self._lease))
        except UnavailableError as error:
            self._log(f"Trial {self._lease.number} saved, to be taken over later: {error}")
        else:
            self._log(f"Trial {self._lease.number} saved and released")

    def _finish(self, state: TrialState, value: float | None, attributes: dict[str, Any]) -> None:
        run = self._run
        attributes["seed"] = self._spec.search.seed
        if run is not None:
            attributes |= _costs(run, self._config.optimizer)
            self._tell_logged()
        self._outbox.flush(self._desk.patience)
        self._desk.patience.run(
            lambda: self._desk.ledger.finish(self._lease, state, value, attributes)
        )
        remove_checkpoint(self._checkpoint)

    def _tell_logged(self) -> None:
        step, logged = self._present.taken, self._present.take_logged()
        if logged:
            self._outbox.put(lambda: self._desk.ledger.log(self._lease, step, logged))

    @property
    def _present(self) -> Run:
        if self._run is None:
            raise RuntimeError("The trial has not begun.")
        return self._run

    def _progress(self, run: Run, index: int) -> int:
        return progress_at(self._spec, index, run.total_steps if self._spec.budget.steps else 0)


def _costs(run: Run, optimizer: str) -> dict[str, Any]:
    """Returns what a trial cost, and what its report needs to know."""
    costs: dict[str, Any] = {
        "steps": run.taken,
        "train_s": round(run.timing.train_s, 6),
        "eval_s": round(run.timing.eval_s, 6),
    }
    if run.length not in (None, run.taken):
        costs["total_steps"] = run.length
    if OPTIMIZERS[optimizer].closure:
        costs["optimizer_steps"] = run.turns
    if run.config.groups or run.train.no_decay_on_biases_and_norms:
        costs["groups"] = run.describe_groups()
    if run.train.schedule_by == "epoch" and run.epoch_steps is not None:
        costs["epoch_steps"] = run.epoch_steps
    return costs


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def _describe(error: BaseException) -> str:
    kind = type(error).__name__
    try:
        return f"{kind}: {error}"
    except Exception as second:  # noqa: BLE001 (an exception of the user's may break when shown)
        return f"{kind}: its message cannot be read, since that raises {type(second).__name__}"
