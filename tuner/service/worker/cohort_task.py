"""A cohort in training: reports, checkpoints and ends its trials in the database."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping, Sequence

from tuner.domain.spec import StudySpec
from tuner.errors import LeaseLostError, StorageError, UnavailableError
from tuner.fused.cohort import Cohort
from tuner.fused.lane import LaneStart
from tuner.fused.model import FusedModel
from tuner.fused.twin import Twin
from tuner.service.worker.context import WorkerContext
from tuner.service.worker.endings import tell_ending
from tuner.service.worker.held_trial import LaneTask
from tuner.service.worker.lookout import LOOK_AT_REPORTS_S, LOOK_S, Lookout
from tuner.service.worker.reports import Report
from tuner.store.leases.outbox import Outbox
from tuner.training.loop import Ending, TrialResult
from tuner.training.reporting import Evaluation

Lost = Mapping[int, LeaseLostError]


class CohortTask:
    """Trials that train as one: reports, saves and ends them, each under its own lease.

    While the database is away their reports are kept, with each checkpoint too, nobody is judged,
    and training goes on. A trial that turns out to be another worker's is left to it; the others
    go on.

    Args:
        spec: The study, resolved.
        context: The worker's access to its study.
        model: The study's model, fused.
        tasks: The trials, which can train together.
        log: Takes a line of text.
        twin: Compares one of them with the same trial alone, or None.

    Attributes:
        resumed: Whether they go on from checkpoints.
        evaluated: Whether they have been evaluated since.
    """

    def __init__(
        self,
        spec: StudySpec,
        context: WorkerContext,
        model: FusedModel,
        tasks: Sequence[LaneTask],
        log: Callable[[str], None],
        twin: Twin | None = None,
    ) -> None:
        self._spec, self._context, self._tasks, self._log = spec, context, tasks, log
        self._metric = spec.study.metric
        self._lookout = Lookout(context)
        self._outbox = Outbox(seed=context.seed + tasks[0].number)
        self._outcomes: dict[int, TrialResult] = {}
        self._ended: set[int] = set()
        self.evaluated, self.resumed = False, any(task.state is not None for task in tasks)
        self._saved_at = self._renewed_at = time.monotonic()
        # Compiling takes longer than a step may.
        model.compiler.before = context.watchdog.rest
        starts = [LaneStart(task.config, task.state) for task in tasks]
        self._cohort = Cohort(model, starts, self, twin=twin)
        # Of what is charged already, in seconds and steps.
        self._charged = (self._cohort.timing.train_s, self._cohort.timing.eval_s)
        self._charged_steps = self._continued_at = self._cohort.taken

    def train(self) -> None:
        """Trains the trials from where they stand, and records how they ended or releases them.

        Raises:
            Exception: Whatever the workload raises; then nothing is told, and they are still held.
        """
        self._context.watchdog.feed()
        self._resume()
        outcomes = self._cohort.train()
        self._context.watchdog.rest()  # the database may be away for longer than a step may take
        self._charge()
        self._outcomes |= dict(enumerate(outcomes))
        stopped = self._lookout.stopped_by is not None
        self._tell_endings(give_back=not stopped)
        if not stopped and TrialResult(Ending.INTERRUPTED) in outcomes:
            self._give_back()
        self._outbox.flush(self._context.patience)

    def abandon(self) -> None:
        """Releases the trials as they were last saved, after something has been raised."""
        self._context.watchdog.rest()
        self._outbox.flush(self._context.patience)
        leases = [task.lease for task in self._held]
        self._context.patience.run(lambda: self._context.ledger.release(leases))

    def _resume(self) -> None:
        unsent = {lane: task.begin(self._cohort) for lane, task in enumerate(self._tasks)}
        for reason in sorted({task.restart for task in self._tasks if task.restart is not None}):
            those = [task for task in self._tasks if task.restart == reason]
            self._log(f"{_name(those, 'starts', 'start')} over: {reason}")
            self._tell(those, "started_over", reason)
        for lane, reports in unsent.items():
            for report in reports:
                self._send({lane: report}, report.step)

    def _tell_continued(self) -> None:
        """Says, once it has trained from its checkpoints, that it goes on from them."""
        step, self._continued_at = self._continued_at, 0
        if step:
            who = _name(self._tasks, "continues", "continue as one")
            self._log(f"{who} at step {step}")
            self._tell(self._tasks, "continued", f"at step {step}")

    def _tell(self, tasks: Sequence[LaneTask], kind: str, detail: str) -> None:
        def deliver() -> None:
            leases = [task.lease for task in tasks if not task.lost]
            self._lose(self._context.ledger.tell(leases, kind, detail))

        self._outbox.put(deliver)

    # What the cohort tells.

    def report(self, evaluations: Sequence[Evaluation | None]) -> Sequence[bool]:
        """Records an evaluation of every lane; returns which of them go on."""
        self._context.watchdog.feed()
        self._tell_continued()
        self._charge()
        self.evaluated = True
        cohort = self._cohort
        reports = {
            lane: self._tasks[lane].report(cohort, lane, evaluation)
            for lane, evaluation in enumerate(evaluations)
            if evaluation is not None
        }
        delivered = self._send(reports, cohort.taken)
        self._renewed_at = time.monotonic()
        if not delivered:
            self._log(f"{len(reports)} trials: the database is away; training goes on")
        elif cohort.taken < cohort.total_steps:
            self._judge(reports)
        self._tell_endings(give_back=True)
        return [
            lane in reports and lane not in self._outcomes and not task.lost
            for lane, task in enumerate(self._tasks)
        ]

    def diverged(self, lane: int, step: int) -> None:
        """Ends a lane that has diverged."""
        self._outcomes[lane] = TrialResult(Ending.DIVERGED, diverged_step=step)

    def _judge(self, reports: Mapping[int, Report]) -> None:
        try:
            self._lookout.look(LOOK_AT_REPORTS_S)
            self._context.catch_up()
        except UnavailableError:
            return
        lanes = [task.judged(self._outcomes.get(i)) for i, task in enumerate(self._tasks)]
        stops = self._context.pruner.judge(lanes, self._cohort.total_steps)
        for lane in reports:
            if stops[lane] and lane not in self._outcomes:
                self._outcomes[lane] = TrialResult(Ending.PRUNED)

    def advance(self, step: int) -> bool:
        """Renews the leases, looks around and saves now and then; False when all are to stop."""
        self._context.watchdog.feed()
        self._tell_continued()
        now = time.monotonic()
        if now - self._renewed_at > self._spec.train.stall_s / 4:
            self._renewed_at = now
            leases = [task.lease for task in self._held]
            self._outbox.put(lambda: self._lose(self._context.ledger.renew(leases, step)))
        elif self._outbox:
            self._outbox.deliver()
        with contextlib.suppress(UnavailableError):
            self._lookout.look(LOOK_S)
        if self._lookout.halts or not any(map(self._holds, range(len(self._tasks)))):
            return False
        if now - self._saved_at > self._spec.train.checkpoint_s:
            self.save()
        return True

    def save(self) -> None:
        """Writes a checkpoint of every lane; if that fails, training goes on without."""
        if not self._cohort.resumable:
            return
        self._saved_at = time.monotonic()
        self._charge()
        cohort, fresh = self._cohort, []
        for lane, task in enumerate(self._tasks):
            if not self._holds(lane):
                continue
            try:
                task.checkpoints.save(task.state_dict(cohort, lane))
            except StorageError as error:
                self._log(f"Trial {task.number}: {error}")
                return
            if not task.announced:
                task.announced = True
                fresh.append(task)
        if fresh:
            step = cohort.taken
            self._outbox.put(lambda: self._announce(fresh, step))

    def _announce(self, tasks: Sequence[LaneTask], step: int) -> None:
        self._lose(self._context.ledger.saved([task.lease for task in tasks], step))
        for task in tasks:
            if not task.lost:
                task.checkpoints.settle()

    # What is told.

    @property
    def _held(self) -> list[LaneTask]:
        """The trials in training that are this worker's."""
        return [task for lane, task in enumerate(self._tasks) if self._holds(lane)]

    def _holds(self, lane: int) -> bool:
        return lane not in self._outcomes and not self._tasks[lane].lost

    def _send(self, reports: Mapping[int, Report], step: int) -> bool:
        """Puts reports on their way; returns whether everything has arrived."""
        told = [
            (self._tasks[lane], report, self._tasks[lane].send(report))
            for lane, report in reports.items()
            if not self._tasks[lane].lost
        ]

        def deliver() -> None:
            ours = [entry for entry in told if not entry[0].lost]
            self._lose(self._context.ledger.report(step, [sent for _, _, sent in ours]))
            for task, report, _ in ours:
                task.reports.unsent.remove(report)

        return self._outbox.put(deliver)

    def _tell_endings(self, *, give_back: bool) -> None:
        """Puts the endings of lanes that are over on their way, unless they are given back."""
        stopped_by = self._lookout.stopped_by
        endings = []
        for lane, outcome in self._outcomes.items():
            task = self._tasks[lane]
            if lane in self._ended or (give_back and outcome.ending is Ending.INTERRUPTED):
                continue
            self._ended.add(lane)
            if task.lost:
                continue
            by = stopped_by if outcome.ending is Ending.INTERRUPTED else None
            endings.append((task, task.end(self._cohort, lane, outcome, by)))
            self._log(tell_ending(task.number, outcome, self._metric, task.reports.value, by))

        def deliver() -> None:
            ours = [(task, ending) for task, ending in endings if not task.lost]
            self._lose(self._context.ledger.finish([ending for _, ending in ours]))
            for task, _ in ours:
                if not task.lost:
                    task.checkpoints.clear()

        if endings:
            self._outbox.put(deliver)

    def _give_back(self) -> None:
        """Saves the trials that were interrupted, and gives them to whoever asks next."""
        self._outcomes = {
            lane: outcome
            for lane, outcome in self._outcomes.items()
            if outcome.ending is not Ending.INTERRUPTED
        }
        if not self._held:
            return
        self.save()
        self._context.watchdog.rest()
        patience, ledger, step = self._context.patience, self._context.ledger, self._cohort.taken
        try:
            self._outbox.flush(patience)
            leases = [task.lease for task in self._held]
            patience.run(lambda: self._lose(ledger.renew(leases, step)))
            leases = [task.lease for task in self._held]
            patience.run(lambda: ledger.release(leases))
        except UnavailableError as error:
            self._context.worker_lock.keep_file()
            self._log(f"{len(self._held)} trials saved, to be taken over later: {error}")
        else:
            self._log(f"{len(leases)} trials saved and released")

    def _lose(self, lost: Lost) -> None:
        for task in self._tasks:
            if task.number in lost and not task.lost:
                task.lost = True
                self._log(f"{lost[task.number]} It is left to that worker.")

    def _charge(self) -> None:
        """Divides what has been spent since the last time among the lanes that trained."""
        timing, steps = self._cohort.timing, self._cohort.taken
        spent = (timing.train_s, timing.eval_s)
        shares = [now - before for now, before in zip(spent, self._charged, strict=True)]
        shares.append(float(self._cohort.size * (steps - self._charged_steps)))
        self._charged, self._charged_steps = spent, steps
        trained = [task for lane, task in enumerate(self._tasks) if lane not in self._ended]
        for task in trained:
            for name, share in zip(task.costs, shares, strict=True):
                task.costs[name] += share / len(trained)


def _name(tasks: Sequence[LaneTask], one: str, many: str) -> str:
    """Returns trials as the subject of a line for the log, and their verb."""
    numbers = ", ".join(str(task.number) for task in tasks)
    return f"Trials {numbers} {many}" if tasks[1:] else f"Trial {numbers} {one}"
