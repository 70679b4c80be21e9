"""The messages about a group of trials: they reach the ledger in order, once it can be reached."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

from optuna.distributions import BaseDistribution

from tuner.domain.catalog.dimensions import Value
from tuner.errors import LeaseLostError
from tuner.service.worker.context import WorkerContext
from tuner.service.worker.held_trial import HeldTrial
from tuner.service.worker.reports import Report
from tuner.store import Outbox, TrialEnding


class Messages:
    """Tells the ledger about a group of trials, in order, even if the database is away for a while.

    A message leaves out those trials that turn out to be another worker's, and marks them as lost.
    Once all of the group are lost, the call that finds this out raises
    :class:`~tuner.errors.LeaseLostError`.

    Args:
        context: The worker's access to its study.
        trials: The trials of the group, those that have been lost too.
        log: Takes a line of text.
    """

    def __init__(
        self, context: WorkerContext, trials: Sequence[HeldTrial], log: Callable[[str], None]
    ) -> None:
        self._patience, self._ledger, self._log = context.patience, context.ledger, log
        self._warned = context.warned
        self._outbox = Outbox(seed=context.seed + trials[0].number)
        self.trials = list(trials)

    def deliver(self) -> None:
        """Delivers what is pending, unless the database was just away."""
        if self._outbox:
            self._outbox.deliver()

    def flush(self) -> None:
        """Delivers what is pending, and waits for the database if it is away.

        Raises:
            UnavailableError: If the database stays away; undelivered messages stay pending.
        """
        self._outbox.flush(self._patience)

    def warn(self, text: str) -> None:
        """Logs a sentence about the trials' loop, once a worker."""
        if text not in self._warned:
            self._warned.add(text)
            self._log(f"{count_trials(self.trials)}: {text}")

    def tell(self, trials: Sequence[HeldTrial], kind: str, detail: str) -> None:
        """Sends an event of some trials."""

        def deliver() -> None:
            leases = [trial.lease for trial in trials if not trial.lost]
            self._lose(self._ledger.tell(leases, kind, detail))

        self._outbox.put(deliver)

    def renew(self, trials: Sequence[HeldTrial], step: int) -> None:
        """Sends a sign of life of trials that stand at a step."""
        leases = [trial.lease for trial in trials]
        self._outbox.put(lambda: self._lose(self._ledger.renew(leases, step)))

    def report(self, reports: Sequence[tuple[HeldTrial, Report]], step: int) -> bool:
        """Sends reports of trials at a step; returns whether everything has arrived."""
        sent = [(trial, report, trial.send(report)) for trial, report in reports if not trial.lost]
        for trial, report, _ in sent:
            self._tell_left_out(trial, report)

        def deliver() -> None:
            ours = [entry for entry in sent if not entry[0].lost]
            self._lose(self._ledger.report(step, [told for _, _, told in ours]))
            for trial, report, _ in ours:
                trial.reports.unsent.remove(report)

        return self._outbox.put(deliver)

    def _tell_left_out(self, trial: HeldTrial, report: Report) -> None:
        """Tells, once a name, that numbers are kept out of a trial's curves as they are none."""
        names = {name for _, name, value in report.logged if not math.isfinite(value)}
        if new := sorted(names - trial.left_out):
            trial.left_out |= names
            self.tell([trial], "left_out", f"{', '.join(new)} at step {report.step}: not finite")
            self.warn(f"infinite or NaN numbers are left out of curves: {', '.join(new)}.")

    def suggest(
        self, trial: HeldTrial, name: str, value: Value, distribution: BaseDistribution
    ) -> None:
        """Sends a value drawn for a hyperparameter of the workload's own, and what it is from."""

        def deliver() -> None:
            try:
                self._ledger.add_parameters(trial.lease, {name: value}, {name: distribution})
            except LeaseLostError as error:
                self._lose({trial.number: error})

        self._outbox.put(deliver)

    def announce(self, trials: Sequence[HeldTrial], step: int) -> None:
        """Sends that trials have a first checkpoint of theirs; what they had before is deleted."""

        def deliver() -> None:
            self._lose(self._ledger.saved([trial.lease for trial in trials], step))
            for trial in trials:
                if not trial.lost:
                    trial.checkpoints.drop_former()

        for trial in trials:
            trial.announced = True
        self._outbox.put(deliver)

    def pause(self, paused: Sequence[tuple[HeldTrial, TrialEnding, str]], step: int) -> None:
        """Sends that trials are paused at a step, each with a line for the log."""

        def deliver() -> None:
            ours = [entry for entry in paused if not entry[0].lost]
            endings = [ending for _, ending, _ in ours]
            progress = max(ours[0][0].reports.evaluations) if ours else 0
            self._lose(self._ledger.pause(endings, step, progress))
            for trial, _, line in ours:
                if not trial.lost:
                    trial.checkpoints.drop_former()
                    self._log(line)

        if paused:
            self._outbox.put(deliver)

    def finish(self, endings: Sequence[tuple[HeldTrial, TrialEnding, str]]) -> None:
        """Sends how trials ended, each with a line for the log."""

        def deliver() -> None:
            ours = [entry for entry in endings if not entry[0].lost]
            self._lose(self._ledger.finish([ending for _, ending, _ in ours]))
            for trial, _, line in ours:
                if not trial.lost:
                    trial.checkpoints.clear()
                    self._log(line)

        if endings:
            self._outbox.put(deliver)

    def release(self, trials: Sequence[HeldTrial], step: int | None = None) -> None:
        """Delivers everything and releases trials, and waits for the database if it is away.

        Args:
            trials: The trials to release, for the next worker that asks.
            step: The step at which they stand, if that is to be told.

        Raises:
            UnavailableError: If the database stays away.
        """
        self.flush()
        if step is not None:
            leases = [trial.lease for trial in trials]
            self._patience.run(lambda: self._lose(self._ledger.renew(leases, step)))
        left = [trial.lease for trial in trials if not trial.lost]
        self._patience.run(lambda: self._ledger.release(left))

    def _lose(self, lost: Mapping[int, LeaseLostError]) -> None:
        """Leaves trials to the workers that they belong to by now."""
        for trial in self.trials:
            if trial.number in lost and not trial.lost:
                trial.lost = True
                self._log(f"{lost[trial.number]} It is left to that worker.")
        if lost and all(trial.lost for trial in self.trials):
            raise next(iter(lost.values()))


def count_trials(trials: Sequence[HeldTrial]) -> str:
    """Returns a trial by its number, or how many trials there are."""
    return f"Trial {trials[0].number}" if len(trials) == 1 else f"{len(trials)} trials"


def name_trials(trials: Sequence[HeldTrial], one: str, many: str) -> str:
    """Returns trials as the subject of a line for the log, and their verb."""
    numbers = ", ".join(str(trial.number) for trial in trials)
    return f"Trials {numbers} {many}" if trials[1:] else f"Trial {numbers} {one}"


def explain_unsaved(trials: Sequence[HeldTrial]) -> str:
    """Returns what becomes of trials that were released without being saved, and what saves some.

    Args:
        trials: The trials, of one study.
    """
    if all(trial.announced or trial.lease.checkpoint is not None for trial in trials):
        return "released, to go on from its last checkpoint"
    process = trials[0].spec.process
    if process is None:
        return "released, to start over: only what goes over run.steps() can be saved"
    if process.resumable:
        return "released, to start over: its command has told of no step yet"
    return (
        "released, to start over: a command goes on from its own checkpoint only with "
        "process.resumable = true"
    )
