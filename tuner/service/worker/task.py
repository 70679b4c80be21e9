"""The task of a worker: it trains a group of trials, reports them, saves them and ends them."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Collection, Iterable, Sequence
from typing import Any

from tuner.domain.catalog.dimensions import Dimension, Value
from tuner.domain.spec import StudySpec
from tuner.errors import LeaseLostError, StorageError, UnavailableError
from tuner.fused.twin import ApartError
from tuner.search import Verdict
from tuner.service.worker.context import LOOK_AT_REPORTS_S, LOOK_S, WorkerContext
from tuner.service.worker.endings import NOTHING_SAVED, error_attributes
from tuner.service.worker.held_trial import HeldTrial
from tuner.service.worker.lanes import Lanes
from tuner.service.worker.messages import Messages, count_trials, explain_unsaved, name_trials
from tuner.service.worker.reports import Report
from tuner.service.worker.starts import Start
from tuner.training.loop import Ending, TrialResult
from tuner.training.reporting import Evaluation


class Task:
    """A group of trials that train as one, each under its own lease; a trial alone is a group too.

    While the database is away reports are kept, with each checkpoint too, nobody is judged, and
    training goes on. A trial that turns out to be another worker's is left to it; the others go
    on. Once all of a group are others', the call that finds this out raises
    :class:`~tuner.errors.LeaseLostError`.

    Args:
        spec: The study, resolved.
        context: The worker's access to its study.
        trials: The trials, which can train together.
        start: Starts their training.
        log: Takes a line of text.
    """

    def __init__(
        self,
        spec: StudySpec,
        context: WorkerContext,
        trials: Sequence[HeldTrial],
        start: Start,
        log: Callable[[str], None],
    ) -> None:
        self._context, self._start, self._log = context, start, log
        self._stall_s, self._checkpoint_s = spec.train.stall_s, spec.train.checkpoint_s
        self._seed = spec.search.seed
        self._messages = Messages(context, trials, log)
        self._lanes: Lanes | None = None  # while they have not been started, which may fail
        self._results: dict[int, TrialResult] = {}
        self._ended: set[int] = set()
        # To be paused once the step is over, and those that have left their loop that way.
        self._pausing: set[int] = set()
        self._left: set[int] = set()
        self._evaluated, self._continued_at = False, 0
        self._saved_at = self._renewed_at = time.monotonic()
        context.forget_requests()

    def train(self) -> None:
        """Trains the trials from where they stand, and records how they ended or gives them back.

        An error between a checkpoint and the next evaluation is blamed on the checkpoint first,
        and the trials start over: if the workload is at fault, the error comes again.

        Raises:
            LeaseLostError: If all of them belong to other workers by now.
            Exception: An error of the workload; the trials that have not ended are still held.
        """
        self._context.watchdog.feed()
        results = self._train_or_start_over()
        self._context.watchdog.rest()  # the database may be away for longer than a step may take
        for lane, result in enumerate(results):
            if result.ending is not Ending.INTERRUPTED or self._context.stopped_by is not None:
                self._results.setdefault(lane, result)
        self._end_trials()
        self._pause_trials()
        if self._training:
            self._give_back(saved=self.save())
        else:
            self._messages.flush()

    def _train_or_start_over(self) -> list[TrialResult]:
        try:
            return self._train_from_checkpoints()
        except (StorageError, ApartError):
            raise
        except Exception as error:
            resumed = any(trial.state is not None for trial in self._trials)
            asked_to_stop = self._context.interruption.requested_at is not None
            if asked_to_stop or self._evaluated or not resumed:
                raise
            self._messages.trials = [trial for trial in self._trials if not trial.lost]
            for trial in self._trials:
                trial.start_over(error)
        return self._train_from_checkpoints()

    def _train_from_checkpoints(self) -> list[TrialResult]:
        lanes = self._lanes = self._start(self._trials, self)
        if self._end_unaffordable(lanes):
            return self._train_from_checkpoints()
        self._continued_at = lanes.taken
        unsent = [trial.resume(lanes) for trial in self._trials]
        for reason in sorted({trial.restart for trial in self._trials if trial.restart}):
            those = [trial for trial in self._trials if trial.restart == reason]
            self._log(f"{name_trials(those, 'starts', 'start')} over: {reason}")
            self._messages.tell(those, "started_over", reason)
        for lane, reports in enumerate(unsent):
            for report in reports:
                self._messages.report([(self._trials[lane], report)], report.step)
        return lanes.train()

    def _end_unaffordable(self, lanes: Lanes) -> bool:
        """Charges trials for what they have lost; tells whether the budget had no room for some.

        Raises:
            LeaseLostError: If none of them is left.
        """
        kept = {
            trial.lease: 0 if trial.state is None else lanes.evaluated
            for trial in self._trials
            if trial.lease.begun and not trial.charged
        }
        for trial in self._trials:
            trial.charged = True
        if not kept:
            return False
        self._context.watchdog.rest()
        ended = self._context.patience.run(lambda: self._context.ledger.charge_lost(kept))
        self._context.watchdog.feed()
        if ended:
            those = [trial for trial in self._trials if trial.number in ended]
            self._log(
                f"{name_trials(those, 'ends', 'end')}: the budget has no room for what was lost "
                "and would have to be trained again"
            )
        self._messages.trials = [trial for trial in self._trials if trial.number not in ended]
        if not self._trials:
            raise LeaseLostError(f"Trial {ended[0]} has ended.")
        return bool(ended)

    def _tell_continued(self) -> None:
        """Logs, once a step has been trained, that the trials go on from their checkpoints."""
        step, self._continued_at = self._continued_at, 0
        if step:
            self._log(f"{name_trials(self._trials, 'continues', 'continue as one')} at step {step}")
            self._messages.tell(self._trials, "continued", f"at step {step}")

    # As the reporter of the trials.

    def report(self, evaluations: Sequence[Evaluation | None]) -> Sequence[bool]:
        """Records an evaluation of every trial; returns which of the trials go on."""
        lanes = self._begun
        self._context.watchdog.feed()
        self._tell_continued()
        self._evaluated = True
        found = {lane: each for lane, each in enumerate(evaluations) if each is not None}
        reports = {
            lane: self._trials[lane].measure(lanes, lane, evaluation)
            for lane, evaluation in found.items()
        }
        step = next(evaluation.step for evaluation in found.values())
        told = [(self._trials[lane], report) for lane, report in reports.items()]
        delivered = self._messages.report(told, step)
        self._renewed_at = time.monotonic()
        if not delivered:
            who = count_trials([trial for trial, _ in told])
            self._log(f"{who}: the database is away; training goes on")
        if step < lanes.total_steps:
            for lane in reports:
                if self._trials[lane].has_reached():
                    self._results.setdefault(lane, lanes.complete(lane))
            if delivered:
                self._judge(reports, lanes.total_steps)
        training = self._training
        if training:  # else the loop has yet to return
            self._end_trials()
        return [lane in reports and lane in training for lane in range(len(self._trials))]

    def diverged(self, lane: int, step: int) -> None:
        """Ends a trial that has diverged."""
        self._results[lane] = TrialResult(Ending.DIVERGED, diverged_step=step)

    def _judge(self, reported: Iterable[int], total_steps: int) -> None:
        try:
            self._context.look(LOOK_AT_REPORTS_S)
            self._context.catch_up()
        except UnavailableError:
            return
        # One that has left may train elsewhere by now, and counts as others there do.
        stay = [lane for lane in range(len(self._trials)) if lane not in self._left]
        compared = [self._trials[lane].compared(self._results.get(lane)) for lane in stay]
        judged = self._context.pruner.judge(compared, total_steps)
        verdicts = dict(zip(stay, judged, strict=True))
        for lane in reported:
            # Where a checkpoint could not be gone on from, another pause would be for nothing, and
            # could go on for ever.
            in_vain = self._trials[lane].restart not in (None, NOTHING_SAVED)
            if verdicts[lane] is Verdict.STOP or (verdicts[lane] is Verdict.PAUSE and in_vain):
                self._results.setdefault(lane, TrialResult(Ending.PRUNED))
            elif verdicts[lane] is Verdict.PAUSE:
                self._pausing.add(lane)

    def advance(self, step: int) -> bool:
        """Renews the leases, pauses and saves trials, looks around; False when all are to stop."""
        self._context.watchdog.feed()
        self._tell_continued()
        now = time.monotonic()
        if now - self._renewed_at > self._stall_s / 4:
            self._renewed_at = now
            self._messages.renew([self._trials[lane] for lane in self._held], step)
        else:
            self._messages.deliver()
        with contextlib.suppress(UnavailableError):
            self._context.look(LOOK_S)
        if self._pausing and self._context.stopped_by is None and self._begun.resumable:
            self._pause_trials()
        if self._context.halts or self._pausing.issuperset(self._held):
            return False
        if now - self._saved_at > self._checkpoint_s:
            self.save()
        return True

    def left(self) -> Collection[int]:
        """Returns the lanes whose trials have been paused, or pruned since they cannot be saved."""
        return self._left

    def _pause_trials(self) -> None:
        """Saves trials that are to be paused and gives them up; prunes those it cannot save."""
        lanes, those = self._begun, [lane for lane in self._training if lane in self._pausing]
        self._pausing.clear()
        if not those:
            return
        self._left.update(those)
        self._send_logged(lanes, those)
        paused = []
        for lane in those:
            trial = self._trials[lane]
            if lanes.resumable and self._write(lanes, lane):
                paused.append((trial, *trial.pause(lanes.describe(lane))))
                self._ended.add(lane)
            else:
                self._log(
                    f"{count_trials([trial])} cannot be saved, so it is pruned instead of paused"
                )
                self._results[lane] = TrialResult(Ending.PRUNED)
        self._messages.pause(paused, lanes.taken)
        self._end_trials()

    def suggest(self, name: str, axis: Dimension) -> Value:
        """Returns a value for a hyperparameter of the workload's own, and records it."""
        trial = self._trials[0]
        if trial.record.own_axes.get(name) == axis:
            # A rerun, or a trial that starts over, trains with what is on record.
            return trial.record.proposal.params[name]
        value, distribution = self._context.proposer.suggest(name, axis, trial.record.proposal)
        self._messages.suggest(trial, name, value, distribution)
        return value

    def warn(self, text: str) -> None:
        """Logs a sentence about the loop, once a worker."""
        self._messages.warn(text)

    def save(self) -> bool:
        """Writes a checkpoint of every trial in training; if that fails, training goes on without.

        Returns:
            Whether all could be written.
        """
        lanes = self._lanes
        if lanes is None or not lanes.resumable:
            return False
        self._saved_at = time.monotonic()
        self._send_logged(lanes, self._training)
        training, saved = self._training, list[HeldTrial]()
        for lane in training:
            if not self._write(lanes, lane):
                break
            saved.append(self._trials[lane])
        fresh = [trial for trial in saved if not trial.announced]
        if fresh:
            self._messages.announce(fresh, lanes.taken)
        return len(saved) == len(training)

    def _write(self, lanes: Lanes, lane: int) -> bool:
        """Writes a checkpoint of a trial; returns whether it could be written."""
        try:
            self._trials[lane].save(lanes, lane)
        except StorageError as error:
            self._log(f"Trial {self._trials[lane].number}: {error}")
            return False
        return True

    # Writing about the trials.

    @property
    def _begun(self) -> Lanes:
        if self._lanes is None:
            raise RuntimeError("The trials have not been started.")
        return self._lanes

    @property
    def _held(self) -> list[int]:
        """The lanes of this worker's trials whose ends have not been told."""
        lanes = enumerate(self._trials)
        return [lane for lane, trial in lanes if lane not in self._ended and not trial.lost]

    @property
    def _training(self) -> list[int]:
        """The lanes of this worker's trials that have come to no end."""
        return [lane for lane in self._held if lane not in self._results]

    @property
    def _trials(self) -> list[HeldTrial]:
        return self._messages.trials

    def _send_logged(self, lanes: Lanes, those: Iterable[int]) -> None:
        """Puts the numbers on their way that lanes have logged since their last evaluation."""
        logged = {lane: lanes.take_logged(lane) for lane in those}
        reports = [
            (self._trials[lane], Report(lanes.taken, None, None, points))
            for lane, points in logged.items()
            if points
        ]
        if reports:
            self._messages.report(reports, lanes.taken)

    def _end_trials(self) -> None:
        """Records the ends of those trials that have come to one."""
        lanes = self._begun
        over = [lane for lane in self._held if lane in self._results]
        self._send_logged(lanes, over)
        endings = []
        for lane in over:
            trial, result = self._trials[lane], self._results[lane]
            by = self._context.stopped_by if result.ending is Ending.INTERRUPTED else None
            endings.append((trial, *trial.end(lanes.describe(lane), result, by)))
        self._ended.update(over)
        self._messages.finish(endings)

    # Giving the trials up.

    def fail(self, error: BaseException) -> None:
        """Records an error of the workload as the end of a trial that trains alone."""
        self._context.watchdog.rest()
        [trial] = self._trials
        if self._left:
            # It has been given up already, and its loop has raised on its way out.
            what = error_attributes(error)["error"].splitlines()[0]
            self._log(f"Trial {trial.number}, as it paused, raised {what}")
            self._messages.flush()
            return
        if self._lanes is None:
            trained: dict[str, Any] = {"seed": self._seed}
        else:
            trained = self._lanes.describe(0)
            self._send_logged(self._lanes, [0])
        self._messages.finish([(trial, *trial.fail(trained, error))])
        self._messages.flush()

    def give_back(self, error: BaseException) -> None:
        """Releases the trial as it was last saved, although its loop has raised.

        It is for errors of a loop whose worker has been asked to stop: the processes that load
        the loop's batches have often been asked too, and raise.
        """
        what = error_attributes(error)["error"].splitlines()[0]
        who = count_trials(self._trials)
        self._log(f"{who}, while the worker was asked to stop, raised {what}")
        self._give_back(saved=False)

    def abandon(self) -> None:
        """Releases the trials as they were last saved, after something has been raised."""
        self._context.watchdog.rest()
        self._messages.release([self._trials[lane] for lane in self._held])

    def _give_back(self, *, saved: bool) -> None:
        """Releases the trials for the next worker that asks."""
        self._context.watchdog.rest()
        step = 0 if self._lanes is None else self._lanes.taken
        try:
            self._messages.release([self._trials[lane] for lane in self._held], step)
        except UnavailableError as error:
            self._context.worker_lock.keep_file()
            how = "saved" if saved else "left"
            self._log(f"{self._count_held()} {how}, to be taken over later: {error}")
        else:
            how = (
                "saved and released"
                if saved
                else explain_unsaved([self._trials[lane] for lane in self._held])
            )
            self._log(f"{self._count_held()} {how}")

    def _count_held(self) -> str:
        return count_trials([self._trials[lane] for lane in self._held])
