"""One trial in training on a worker: it takes the loop's reports and records them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from typing import Any

import torch
from optuna.trial import TrialState

from tuner.domain.catalog.dimensions import Dimension, Value
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.lengths import tell_length
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialRecord, decode
from tuner.errors import LeaseLostError, StorageError, UnavailableError, WorkloadError
from tuner.service.worker.checkpoints import Checkpoints
from tuner.service.worker.context import WorkerContext
from tuner.service.worker.endings import (
    NOTHING_SAVED,
    STATES,
    ending_attributes,
    error_attributes,
    explain_no_step,
    explain_restart,
    tell_ending,
    training_attributes,
)
from tuner.service.worker.lookout import LOOK_AT_REPORTS_S, LOOK_S, Lookout
from tuner.service.worker.reports import Report, Reports
from tuner.store import Lease, TrialEnding, TrialReport
from tuner.store.leases.outbox import Outbox
from tuner.training.loop import Ending, TrainingLoop, TrialResult, run_trial
from tuner.training.reporting import Evaluation, StaleCheckpointError
from tuner.training.run import Run


class Task:
    """One trial in training: reports, saves and ends it.

    While the database is away its reports are kept, with each checkpoint too, nobody is judged,
    and training goes on.

    Args:
        spec: The study, resolved.
        context: The worker's access to its study.
        lease: The right to the trial.
        record: The trial as the database knows it.
        checkpoints: What its holders have saved.
        log: Takes a line of text.
    """

    def __init__(
        self,
        spec: StudySpec,
        context: WorkerContext,
        lease: Lease,
        record: TrialRecord,
        checkpoints: Checkpoints,
        log: Callable[[str], None],
    ) -> None:
        self._spec = spec
        self._context = context
        self._lease = lease
        self._record = record
        self._checkpoints = checkpoints
        self._log = log
        self._config = decode(spec, record.proposal)
        self._outbox = Outbox(seed=context.seed + lease.number)
        self._reports = Reports(spec, record)
        self._lookout = Lookout(context)
        self._announced = False
        self._continued_at: int | None = None
        self._run: Run | None = None
        self._saved_at = self._renewed_at = time.monotonic()

    def train(self, train: TrainingLoop, device: torch.device) -> TrialResult:
        """Trains the trial from its checkpoint, or from the start if that cannot be used.

        An error between a checkpoint and the next evaluation is blamed on the checkpoint first,
        and the trial starts over: if the loop is at fault, the error comes again.
        """
        self._context.watchdog.feed()
        outcome = self._train_on(train, device)
        if outcome is None:
            self._reports.forget()
            outcome = run_trial(train, self._new_run(device, None))
        return outcome

    def _train_on(self, train: TrainingLoop, device: torch.device) -> TrialResult | None:
        """Trains from the checkpoint; None if there is none that can be used."""
        try:
            state = self._checkpoints.load()
        except (StorageError, StaleCheckpointError) as error:
            self._start_over(explain_restart(error))
            return None
        if state is None:
            if self._lease.begun:
                self._start_over(NOTHING_SAVED)
            return None
        run, evaluated = None, 0
        try:
            run = self._continue(device, state)
            evaluated = run.evaluated
            return run_trial(train, run)
        except StorageError:
            raise
        except Exception as error:
            asked_to_stop = self._context.interruption.requested_at is not None
            if asked_to_stop or (run is not None and run.evaluated > evaluated):
                raise
            self._start_over(explain_restart(error))
            return None

    def _start_over(self, reason: str) -> None:
        self._continued_at = None
        self._log(f"Trial {self._lease.number} starts over: {reason}")
        self._tell("started_over", reason)

    def _continue(self, device: torch.device, state: dict[str, Any]) -> Run:
        run = self._new_run(device, state)
        for report in self._reports.resume(
            state.get("unsent"), run.taken, run.evaluated, run.total_steps
        ):
            self._send(report)
        self._continued_at = run.taken
        return run

    def _tell_continued(self) -> None:
        """Says, once the loop has taken what the checkpoint gave back, that it goes on from it."""
        step, self._continued_at = self._continued_at, None
        if step is not None:
            self._log(f"Trial {self._lease.number} continues at step {step}")
            self._tell("continued", f"at step {step}")

    def _tell(self, kind: str, detail: str) -> None:
        self._outbox.put(lambda: _raise(self._context.ledger.tell([self._lease], kind, detail)))

    def _new_run(self, device: torch.device, state: dict[str, Any] | None) -> Run:
        # All trials of a search share one seed, so that they differ in what is searched alone.
        self._run = Run(self._spec, self._config, device=device, reporter=self, state=state)
        return self._run

    # What the run tells.

    def report(self, evaluation: Evaluation) -> bool:
        """Records an evaluation; False when the trial is to stop."""
        run = self._present
        self._context.watchdog.feed()
        self._tell_continued()
        report = self._reports.measure(evaluation, run.total_steps, run.take_logged())
        delivered = self._send(report)
        self._renewed_at = time.monotonic()
        if not delivered:
            self._log(f"Trial {self._lease.number}: the database is away; training goes on")
            return True
        return evaluation.step >= run.total_steps or self._goes_on()

    def _send(self, report: Report) -> bool:
        """Puts a report on its way; returns whether everything has arrived."""
        self._reports.send(report)
        return self._outbox.put(lambda: self._deliver(report))

    def _deliver(self, report: Report) -> None:
        told = TrialReport(self._lease, report.progress, report.value, report.logged)
        _raise(self._context.ledger.report(report.step, [told]))
        self._reports.unsent.remove(report)

    def _goes_on(self) -> bool:
        try:
            self._lookout.look(LOOK_AT_REPORTS_S)
            self._context.catch_up()
        except UnavailableError:
            return True
        if self._lookout.stopped_by is not None:
            return False
        return not self._context.pruner.should_prune(
            self._record, self._reports.evaluations, self._present.total_steps
        )

    def advance(self, step: int) -> bool:
        """Renews the lease, looks around and saves now and then; False when it is to stop."""
        self._context.watchdog.feed()
        self._tell_continued()
        now = time.monotonic()
        if now - self._renewed_at > self._spec.train.stall_s / 4:
            self._renewed_at = now
            self._outbox.put(lambda: _raise(self._context.ledger.renew([self._lease], step)))
        elif self._outbox:
            self._outbox.deliver()
        with contextlib.suppress(UnavailableError):
            self._lookout.look(LOOK_S)
        if self._lookout.halts:
            return False
        if now - self._saved_at > self._spec.train.checkpoint_s:
            self.save()
        return True

    def suggest(self, name: str, axis: Dimension) -> Value:
        """Returns a value for a hyperparameter of the workload's own, and records it."""
        if self._record.own_axes.get(name) == axis:
            # A rerun, or a trial that starts over, trains with what is on record.
            return self._record.proposal.params[name]
        value, distribution = self._context.proposer.suggest(name, axis)
        self._outbox.put(
            lambda: self._context.ledger.add_parameters(
                self._lease, {name: value}, {name: distribution}
            )
        )
        return value

    def warn(self, text: str) -> None:
        """Logs a sentence about the loop, once a worker."""
        if text not in self._context.warned:
            self._context.warned.add(text)
            self._log(f"Trial {self._lease.number}: {text}")

    def save(self) -> None:
        """Writes a checkpoint; if that fails, training goes on without."""
        self._save()

    def _save(self) -> bool:
        """Writes a checkpoint, and returns whether there was one to write and a place for it."""
        if self._run is None or not self._run.resumable:
            return False
        self._saved_at = time.monotonic()
        self._tell_logged()
        try:
            self._checkpoints.save(self._run.state_dict() | {"unsent": self._reports.state()})
        except StorageError as error:
            self._log(f"Trial {self._lease.number}: {error}")
            return False
        if not self._announced:
            self._announced = True
            step = self._run.taken
            self._outbox.put(lambda: self._announce(step))
        return True

    def _announce(self, step: int) -> None:
        _raise(self._context.ledger.saved([self._lease], step))
        self._checkpoints.settle()

    # How it ends.

    def close(self, outcome: TrialResult) -> None:
        """Records how the trial ended, or releases it."""
        stopped_by = self._lookout.stopped_by
        if outcome.ending is Ending.INTERRUPTED and stopped_by is None:
            self._give_back(saved=self._save())
            return
        complete = outcome.ending is Ending.COMPLETE
        value = self._reports.value if outcome.value is None else outcome.value
        if value is None and complete:
            metric = self._spec.study.metric
            self.fail(WorkloadError(f"The training loop neither reported nor returned {metric}."))
            return
        if complete and not self._present.stepped:
            self.fail(WorkloadError(explain_no_step(self._present.has_optimizer)))
            return
        attributes = ending_attributes(outcome, self._reports.metrics, stopped_by)
        self._finish(STATES[outcome.ending], value, attributes)
        line = tell_ending(self._lease.number, outcome, self._spec.study.metric, value, stopped_by)
        length = tell_length(attributes) if complete else ""
        self._log(f"{line}; {length}" if length else line)

    def fail(self, error: BaseException) -> None:
        """Records what the workload raised."""
        attributes = error_attributes(error)
        self._finish(TrialState.FAIL, None, attributes)
        self._log(f"Trial {self._lease.number} failed: {attributes['error'].splitlines()[0]}")

    def give_back(self, error: BaseException) -> None:
        """Releases the trial as it was last saved, although its loop has raised.

        For errors of a loop whose worker has been asked to stop: whoever asked has often asked
        every process, those that load its batches too.
        """
        number, what = self._lease.number, error_attributes(error)["error"].splitlines()[0]
        self._log(f"Trial {number}, while the worker was asked to stop, raised {what}")
        self._give_back(saved=False)

    def _give_back(self, *, saved: bool) -> None:
        trial = f"Trial {self._lease.number}"
        self._context.watchdog.rest()
        step = 0 if self._run is None else self._run.taken
        try:
            self._outbox.flush(self._context.patience)
            ledger = self._context.ledger
            self._context.patience.run(lambda: _raise(ledger.renew([self._lease], step)))
            self._context.patience.run(lambda: ledger.release([self._lease]))
        except UnavailableError as error:
            self._context.worker_lock.keep_file()
            self._log(f"{trial} {'saved' if saved else 'left'}, to be taken over later: {error}")
        else:
            self._log(f"{trial} saved and released" if saved else f"{trial} {self._tell_unsaved()}")

    def _tell_unsaved(self) -> str:
        if self._announced or self._lease.checkpoint is not None:
            return "released, to go on from its last checkpoint"
        return "released, to start over: only what goes over run.steps() can be saved"

    def _finish(self, state: TrialState, value: float | None, attributes: dict[str, Any]) -> None:
        self._context.watchdog.rest()  # the database may be away for longer than a step may take
        run = self._run
        if run is None:
            attributes["seed"] = self._spec.search.seed
        else:
            attributes |= self._describe_costs(run)
            self._tell_logged()
        self._outbox.flush(self._context.patience)
        ending = TrialEnding(self._lease, state, value, attributes)
        self._context.patience.run(lambda: _raise(self._context.ledger.finish([ending])))
        self._checkpoints.clear()

    def _tell_logged(self) -> None:
        logged = self._present.take_logged()
        if logged:
            self._send(Report(self._present.taken, None, None, logged))

    @property
    def _present(self) -> Run:
        if self._run is None:
            raise RuntimeError("The trial has not begun.")
        return self._run

    def _describe_costs(self, run: Run) -> dict[str, Any]:
        costs = training_attributes(
            self._spec,
            self._config,
            taken=run.trained,
            total_steps=run.length,
            epoch_steps=run.epoch_steps,
            line=run.average_line,
            describe_groups=run.describe_groups,
        )
        costs |= run.describe_loop()
        costs["train_s"] = round(run.timing.train_s, 6)
        costs["eval_s"] = round(run.timing.eval_s, 6)
        if OPTIMIZERS[self._config.optimizer].closure:
            costs["optimizer_steps"] = run.turns
        return costs


def _raise(lost: Mapping[int, LeaseLostError]) -> None:
    for error in lost.values():
        raise error
