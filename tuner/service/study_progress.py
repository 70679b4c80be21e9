"""The progress of a study in training, read from its database for a display."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from fractions import Fraction

from tuner.analysis.summary import best_of
from tuner.domain.fuse_plan import OFF
from tuner.domain.lengths import length_of, ranked_length
from tuner.domain.objective import tell_value
from tuner.domain.states import StudyState, announce_pause
from tuner.domain.trials import Outcome, TrialRecord
from tuner.service.liveness import is_dead
from tuner.store import Database, RecordReader, Studies, StudyHandle
from tuner.store.control import read_state
from tuner.store.leases.charges import read_used
from tuner.store.leases.rows import Unfinished, read_unfinished
from tuner.store.leases.workers import read_workers
from tuner.store.plans import find_plan


class StudyProgress:
    """Counts a study's trials by outcome, knows the best one, and estimates the time left.

    The watch begins as the object is made: do so before the workers start, or what they finish
    first is taken for what was over before.

    Args:
        database: The database that holds the study.
        study: The study.
        fuse: How many trials its workers were asked to train as one, as ``--fuse`` takes it.
        clock: Returns seconds; it only goes forward.
        from_start: Whether trials that are over as the watch begins are news, too.

    Attributes:
        study: The study, with the budget it has by now.
        used: The full trials' worth of training used of a budget in full trials, counting what
            trials in training may yet take; None without such a budget.

    Raises:
        UnavailableError: If the database is away.
    """

    def __init__(
        self,
        database: Database,
        study: StudyHandle,
        fuse: str = OFF,
        clock: Callable[[], float] = time.monotonic,
        *,
        from_start: bool = False,
    ) -> None:
        self.study = study
        self._database = database
        self._reader = RecordReader(database, study, evaluations=False)
        self._outcomes: dict[int, Outcome] = {}
        self._counts: Counter[Outcome] = Counter()
        self._running: set[int] = set()
        self._unfinished = Unfinished(frozenset(), frozenset())
        # The best complete trial of each length, and how many there are of it.
        self._best: dict[Fraction, TrialRecord] = {}
        self._lengths: Counter[Fraction] = Counter()
        self._fuse, self._plan, self._paused = fuse, "", False
        self._clock = clock
        self._began = clock()
        for record in [] if from_start else self._reader.sync():
            self._count(record)
        self._finished_before = self.finished
        self.used = self._used_before = self._read_used()

    def update(self) -> Iterator[TrialRecord]:
        """Reads the news of the study.

        Returns:
            The trials that have finished since the last call, or since the watch began; each is
            counted as the iterator yields it.

        Raises:
            UnavailableError: If the database is away.
        """
        news = self._reader.sync()
        self._unfinished = read_unfinished(self._database, self.study, is_dead)
        self.used = self._read_used()
        return self._take(news)

    def _read_used(self) -> float | None:
        if self.study.spec.budget.full_trials is None:
            return None
        return read_used(self._database, self.study)

    def _take(self, news: Iterable[TrialRecord]) -> Iterator[TrialRecord]:
        if len(self._outcomes.keys() | {r.number for r in news}) > self.study.spec.budget.trials:
            self.study = Studies(self._database).refresh(self.study)
        for record in news:
            self._count(record)
            if record.outcome is not Outcome.RUNNING:
                yield record

    def _count(self, record: TrialRecord) -> None:
        before = self._outcomes.get(record.number)
        if before is not None:
            self._counts[before] -= 1
        self._outcomes[record.number] = record.outcome
        self._counts[record.outcome] += 1
        if record.outcome is Outcome.RUNNING:
            self._running.add(record.number)
        else:
            self._running.discard(record.number)
        if record.outcome is Outcome.COMPLETE and record.value is not None:
            self._rank(record)

    def _rank(self, record: TrialRecord) -> None:
        length = length_of(record.attributes)
        self._lengths[length] += 1
        alike = [record, *([self._best[length]] if length in self._best else [])]
        best = best_of(self.study.spec, alike)
        if best is not None:
            self._best[length] = best

    def announcements(self) -> Iterator[str]:
        """Yields lines to be said once: how trials train as one, and that the study pauses.

        Raises:
            UnavailableError: If the database is away.
        """
        if not self._plan and self._fuse != OFF:
            plan = find_plan(self._database, self.study, self._fuse)
            if plan is not None:
                self._plan = str(plan)
                yield f"{plan}."
        before = self._paused
        self._paused = read_state(self._database, self.study) is StudyState.PAUSED
        if self._paused and not before:
            yield announce_pause(self.study.name)

    def read_workers_trials(self) -> Mapping[tuple[str, int], tuple[int, ...]]:
        """Returns the numbers of the trials that each worker holds, by its host and process.

        Raises:
            UnavailableError: If the database is away.
        """
        rows = read_workers(self._database, self.study)
        return {(row.host, row.pid): row.trials for row in rows}

    @property
    def counts(self) -> Counter[Outcome]:
        """Trials by outcome; those that nobody trains are waiting or paused."""
        paused = len(self._running & self._unfinished.paused)
        waiting = len(self._running - self._unfinished.held - self._unfinished.paused)
        shown = Counter(
            {
                Outcome.RUNNING: -waiting - paused,
                Outcome.WAITING: waiting,
                Outcome.PAUSED: paused,
            }
        )
        shown.update(self._counts)
        return shown

    @property
    def finished(self) -> int:
        """Trials that are over."""
        return len(self._outcomes) - len(self._running)

    def best(self) -> str:
        """Returns the best trial in a few words: its metric, optimizer and schedule."""
        best = self._best.get(ranked_length(self._lengths))
        if best is None:
            return "–"
        return (
            f"{tell_value(self.study.spec.study, best.value)} ({best.optimizer}, {best.schedule})"
        )

    @property
    def is_idle(self) -> bool:
        """Whether no trial is in training, waiting or paused."""
        return not self._running

    @property
    def elapsed_s(self) -> float:
        """Seconds since the watch began."""
        return self._clock() - self._began

    def time_left_s(self) -> float | None:
        """Returns the seconds the rest should take at the speed so far, or None at the start."""
        done = self.finished - self._finished_before
        if done <= 0:
            return None
        rest = self.study.spec.budget.trials - self.finished
        left_s = self.elapsed_s / done * rest
        limit, used, before = self.study.spec.budget.full_trials, self.used, self._used_before
        if limit is not None and used is not None and before is not None and used > before:
            left_s = min(left_s, self.elapsed_s / (used - before) * max(0.0, limit - used))
        return left_s

    @property
    def share_done(self) -> float:
        """The share of the study's budget that is used up, of trials or of training, in [0, 1]."""
        budget = self.study.spec.budget
        shares = [self.finished / budget.trials]
        if budget.full_trials is not None and self.used is not None:
            shares.append(self.used / budget.full_trials)
        return min(1.0, max(shares))
