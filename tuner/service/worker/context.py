"""The context of a worker: all that it needs to start and train trials of its study."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from optuna.trial import FrozenTrial

from tuner.domain.trials import Outcome, Proposal, TrialConfig, TrialRecord, decode
from tuner.errors import ExhaustedError
from tuner.search import Proposer, Pruner
from tuner.service.interruption import Interruption
from tuner.service.liveness import WorkerLock
from tuner.service.worker.watchdog import Watchdog
from tuner.store import Lease, Ledger, RecordReader
from tuner.store.connection.retries import Patience


@dataclass
class WorkerContext:
    """Holds what a worker needs for every trial: ledger, past trials, proposer, signals.

    Args:
        ledger: Its leases.
        reader: Follows the trials of the study.
        proposer: Finds what to try next.
        patience: How it waits for a database that is away.
        seed: The worker's.
        interruption: Tells when to stop.
        watchdog: Ends the process when it hangs.
        worker_lock: The file lock that shows others on this machine that the worker lives.
        running: The trials that are not over, by number.
        failed: Those that have failed, by number.
        over: The numbers of those that are over, however they ended.
    """

    ledger: Ledger
    reader: RecordReader
    proposer: Proposer
    patience: Patience
    seed: int
    interruption: Interruption
    watchdog: Watchdog
    worker_lock: WorkerLock
    running: dict[int, TrialRecord] = field(default_factory=dict)
    failed: dict[int, TrialRecord] = field(default_factory=dict)
    over: set[int] = field(default_factory=set)
    failures_before: int = 0
    warned: set[str] = field(default_factory=set)
    leaving: bool = False

    def __post_init__(self) -> None:
        self._apart: list[FrozenTrial] = []
        self.defaults = self.proposer.defaults()
        # One for all trials, so that it looks at the past once.
        self.pruner = Pruner(self.proposer.spec, self.proposer.history)

    def catch_up(self) -> None:
        """Reads the trials that have started or finished since the last call."""
        news = self.reader.sync()
        self.proposer.history.add(news)
        for record in news:
            self.running.pop(record.number, None)
            self.failed.pop(record.number, None)
            if record.outcome is Outcome.RUNNING:
                self.running[record.number] = record
                self.over.discard(record.number)
                continue
            self.over.add(record.number)
            if record.outcome is Outcome.FAILED:
                self.failed[record.number] = record

    def start(self, count: int, can_fuse: Callable[[TrialConfig], bool]) -> list[Lease]:
        """Starts new trials, as far as the budget has some left.

        Args:
            count: How many, where they can train as one.
            can_fuse: Tells whether a trial can. One that cannot waits, and starts alone next time.
        """
        try:
            proposals = self._propose(count, can_fuse)
        except ExhaustedError as error:
            return self._start([], count) or self._end(error)
        return self._start(proposals, len(proposals))

    def _propose(self, count: int, can_fuse: Callable[[TrialConfig], bool]) -> list[FrozenTrial]:
        if count == 1:
            return [self.proposer.propose()]
        if not self._apart:
            together: list[FrozenTrial] = []
            for trial in self.proposer.propose_many(count):
                fits = can_fuse(decode(self.proposer.spec, Proposal(trial.params)))
                (together if fits else self._apart).append(trial)
            if together:
                return together
        return [self._apart.pop()]

    def _end(self, error: ExhaustedError) -> list[Lease]:
        """Ends the study if nothing is left to try; what others train may yet leave something.

        It leaves something if its loop asks for hyperparameters of its own.
        """
        self.proposer.history.add(self.reader.look_again())
        if self.ledger.is_alone():
            self.catch_up()
            if self.proposer.is_exhausted:
                self.ledger.exhaust(str(error))
        return []

    def _start(self, proposals: list[FrozenTrial], at_most: int) -> list[Lease]:
        started = self.ledger.start(self.defaults, proposals, at_most)
        if started:
            self.catch_up()
        return started
