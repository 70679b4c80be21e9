"""The context of a worker: its access to the study, and the past and present of the trials."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from optuna.trial import FrozenTrial

from tuner.analysis.gain import ENOUGH, expect_gain, is_enough
from tuner.domain.states import StudyState
from tuner.domain.trials import Outcome, Proposal, TrialConfig, TrialRecord, decode, tell_waiting
from tuner.errors import ExhaustedError
from tuner.search import Proposer, Pruner
from tuner.service.interruption import Interruption
from tuner.service.liveness import WorkerLock
from tuner.service.worker.watchdog import Watchdog
from tuner.store import Lease, Ledger, RecordReader
from tuner.store.connection.retries import Patience
from tuner.store.leases.pausing import PausedTrial, PausedTrials

LOOK_S = 5.0
"""Seconds between two looks at the signals for the worker, between reports."""

LOOK_AT_REPORTS_S = 1.0
"""Seconds between two looks at reports, where the database is asked anyway."""


@dataclass
class WorkerContext:
    """Holds the ledger, past trials, proposer and signals that a worker uses for every trial.

    Args:
        ledger: The worker's leases.
        reader: Follows the trials of the study.
        proposer: Proposes the next trials.
        patience: Waits for a database that is away.
        folder: The study's folder, which holds its checkpoints.
        seed: The worker's seed.
        interruption: Tells when to stop.
        watchdog: Ends the process when it hangs.
        worker_lock: The file lock that shows others on this machine that the worker lives.
        running: The trials that are not over, by number.
        futile: The trials that have failed or diverged, by number.
        over: The numbers of the trials that are over, however they ended.
        warned: The sentences about the training loop that have been logged.

    Attributes:
        pruner: The pruner, one for all trials, so that it looks at the past once.
        leaving: Whether the worker was asked to leave while it trained.
        stopped_by: ``stop`` or ``wall_time`` if that has ended the study, or None.
    """

    ledger: Ledger
    reader: RecordReader
    proposer: Proposer
    patience: Patience
    folder: Path
    seed: int
    interruption: Interruption
    watchdog: Watchdog
    worker_lock: WorkerLock
    running: dict[int, TrialRecord] = field(default_factory=dict)
    futile: dict[int, TrialRecord] = field(default_factory=dict)
    over: set[int] = field(default_factory=set)
    warned: set[str] = field(default_factory=set)

    def __post_init__(self) -> None:
        self._apart: list[FrozenTrial] = []
        self.pruner = Pruner(self.proposer.spec, self.proposer.history)
        self.leaving = False
        self._unpromoted: PausedTrials | None = None
        # Of the paused trials at the last look: all, those given up, and whether any may go on.
        self._paused_at_last_look: frozenset[int] = frozenset()
        self._given_up: Collection[int] = ()
        self._promotable = False
        self._ends_early = self.proposer.spec.budget.stop == "auto"
        self._records: dict[int, TrialRecord] = {}
        self.forget_requests()

    def forget_requests(self) -> None:
        """Forgets the stops and pauses that the study asked for while earlier trials trained."""
        self._paused, self._looked_at = False, time.monotonic()
        self.stopped_by: str | None = None

    @property
    def halts(self) -> bool:
        """Whether training is to stop where it is."""
        return self.interruption.requested or self._paused or self.stopped_by is not None

    def look(self, every_s: float) -> None:
        """Reads whether the worker is asked to pause, stop or leave, unless it has just done so.

        Args:
            every_s: Seconds for which the last answer counts.

        Raises:
            UnavailableError: If the database is away.
        """
        if time.monotonic() - self._looked_at <= every_s:
            return
        self._looked_at = time.monotonic()
        signals = self.ledger.signals()
        if signals.leaving:
            self.leaving = True
            self.interruption.request()
        self._paused = signals.state is StudyState.PAUSED
        if signals.state is StudyState.STOPPED:
            self.stopped_by = "stop"
        elif signals.out_of_time:
            self.stopped_by = "wall_time"

    def catch_up(self) -> None:
        """Reads the trials that have started or finished since the last call."""
        news = self.reader.sync()
        self.proposer.learn(news)
        if self._ends_early:
            self._records |= {record.number: record for record in news}
        for record in news:
            self.running.pop(record.number, None)
            self.futile.pop(record.number, None)
            if record.outcome is Outcome.RUNNING:
                self.running[record.number] = record
                self.over.discard(record.number)
                continue
            self.over.add(record.number)
            if record.outcome in (Outcome.FAILED, Outcome.DIVERGED):
                self.futile[record.number] = record

    def promote(self, count: int, can_fuse: Callable[[TrialConfig], bool]) -> list[Lease]:
        """Takes paused trials that may go on.

        Args:
            count: The most trials to take, where they can train as one.
            can_fuse: Tells whether a trial can train with others.

        Returns:
            Their leases, of trials that stand at one step.
        """
        self._unpromoted, self._promotable = None, False
        self._given_up, self._paused_at_last_look = (), frozenset[int]()
        if not self.pruner.pauses:
            return []
        # Read first: what the paused ones have reported is then among the news.
        paused = self.ledger.read_paused()
        if paused.trials:
            self.catch_up()
        self.proposer.history.pause(paused.trials)
        if not paused.trials:
            return []
        ready = self.pruner.find_promotable(paused.standing())
        self._promotable = bool(ready)
        self._paused_at_last_look = frozenset(paused.trials)
        self._given_up = paused.trials.keys() - self.pruner.find_last(paused.standing())
        promoted = self._take(paused, ready, count, can_fuse, given_up=self._given_up)
        # Where all are paused and none may go on, time or training is used up.
        if not promoted and (not ready or paused.alone or self.ledger.signals().out_of_time):
            self._unpromoted = paused
        return promoted

    def complete(self, count: int, can_fuse: Callable[[TrialConfig], bool]) -> list[Lease]:
        """Takes paused trials by which optimizers are to be ranked, once nothing else may start.

        Args:
            count: As for :meth:`promote`.
            can_fuse: Likewise.

        Returns:
            Their leases, likewise; none unless the last look found that no paused trial may go on.
        """
        if self._unpromoted is None:
            return []
        last = self.pruner.find_last(self._unpromoted.standing())
        return self._take(self._unpromoted, last, count, can_fuse)

    def close(self) -> list[Lease]:
        """Starts the trial that the study ends with, once no other is left to train.

        Returns:
            Its lease, or none.
        """
        self.catch_up()
        closing = self.proposer.closing()
        closed = [] if closing is None else self.ledger.close(closing)
        if closed:
            self.catch_up()
        return closed

    def end_paused(self) -> None:
        """Ends the paused trials if the last look found that none of them will ever go on."""
        if self._unpromoted is not None and self._unpromoted.alone:
            self.ledger.end_paused(self._unpromoted.trials.values())

    def _take(
        self,
        paused: PausedTrials,
        chosen: Sequence[int],
        count: int,
        can_fuse: Callable[[TrialConfig], bool],
        given_up: Collection[int] | None = None,
    ) -> list[Lease]:
        """Promotes those of the chosen trials that can train together, as many as may."""
        if not chosen:
            return []
        waiting = [paused.trials[number] for number in chosen]
        numbers = [trial.number for trial in self._pick(waiting, count, can_fuse)]
        closing = self.proposer.closing() if given_up is not None else None
        return self.ledger.promote(numbers, count, closing=closing, given_up=given_up)

    def _pick(
        self, ready: Sequence[PausedTrial], count: int, can_fuse: Callable[[TrialConfig], bool]
    ) -> list[PausedTrial]:
        """Returns the first of the trials and those that can train with it."""
        first = ready[0]

        def config_of(trial: PausedTrial) -> TrialConfig:
            return decode(self.proposer.spec, self.running[trial.number].proposal)

        if count == 1 or not can_fuse(config_of(first)):
            return [first]
        key = config_of(first).fuse_key
        beside = ((trial, config_of(trial)) for trial in ready if trial.step == first.step)
        return [trial for trial, config in beside if config.fuse_key == key and can_fuse(config)]

    def start(self, count: int, can_fuse: Callable[[TrialConfig], bool]) -> list[Lease]:
        """Starts new trials, as far as the budget has some left.

        Args:
            count: The most trials to start, where they can train as one.
            can_fuse: Tells whether a trial can train with others. One that cannot waits, and
                starts alone next time.

        Returns:
            Their leases; none if the budget is used up or nothing is left to try.
        """
        if self._ends_early and self._end_early():
            return []
        count = self.proposer.together(count)
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
        """Ends the study if nothing is left to try; trials in training may yet leave something.

        One leaves something if its loop asks for hyperparameters of its own.
        """
        self.proposer.learn(self.reader.look_again())
        if self.ledger.is_alone():
            self.catch_up()
            if self.proposer.is_exhausted:
                self.ledger.exhaust(str(error))
        return []

    def _end_early(self) -> bool:
        """Ends the study if little is left to gain; tells whether it has.

        It does not while the last look found a paused trial that may go on: it may become the best.
        """
        if self._promotable:
            return False
        spec, paused = self.proposer.spec, self._paused_at_last_look
        trained = self.running.keys() - paused
        records = tell_waiting(self._records.values(), trained, paused)
        gain = expect_gain(spec, records)
        if gain is None or gain.share is None or not is_enough(spec, records, gain):
            return False
        reason = (
            f"another {gain.trials} trials are expected to gain {gain.share:.2%} of the best "
            f"value, less than {ENOUGH:.1%}; 'tuner study resume' adds them"
        )
        return self.ledger.end_early(reason, after=gain.trials)

    def _start(self, proposals: list[FrozenTrial], at_most: int) -> list[Lease]:
        closing = self.proposer.closing()
        started = self.ledger.start(
            self.proposer.openings(),
            proposals,
            at_most,
            closing=closing,
            given_up=self._given_up,
        )
        if started:
            self.catch_up()
        return started
