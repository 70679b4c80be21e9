"""The progress of a study in training, read from its database for a display."""

from __future__ import annotations

import math
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC

from tuner.analysis.standings import Standing, Standings
from tuner.domain.fuse_plan import OFF
from tuner.domain.objective import tell_value
from tuner.domain.states import StudyState, announce_pause
from tuner.domain.trials import Outcome, TrialRecord
from tuner.service.liveness import is_dead
from tuner.store import Database, RecordReader, Studies, StudyHandle
from tuner.store.control import read_state
from tuner.store.leases.charges import read_used
from tuner.store.leases.rows import Unfinished, read_unfinished
from tuner.store.leases.workers import WorkerRow, read_workers
from tuner.store.plans import find_plan

_WORKERS_EVERY_S = 1.0
"""Seconds between two looks at the workers."""

_ENDINGS = 10
"""The endings that are remembered, for a display."""

_LATELY_S = 60.0
"""Seconds over which the steps of late are counted."""


class Pace:
    """Measures steps a second of late, from a count that grows by leaps.

    Args:
        now_s: Seconds, by a clock that only goes forward.
        steps: The steps taken by then.

    >>> pace = Pace(0.0, 100)
    >>> pace.add(10.0, 600)
    >>> pace.rate(10.0)
    50.0
    """

    def __init__(self, now_s: float, steps: int) -> None:
        self._leaps = deque([(now_s, steps)])

    def add(self, now_s: float, steps: int) -> None:
        """Notes the steps taken by now."""
        if steps != self._leaps[-1][1]:
            self._leaps.append((now_s, steps))

    def rate(self, now_s: float) -> float:
        """Returns the steps a second since the last leap that is a minute old, at least 0."""
        while len(self._leaps) > 1 and self._leaps[1][0] <= now_s - _LATELY_S:
            self._leaps.popleft()
        (first_s, first), (_, last) = self._leaps[0], self._leaps[-1]
        return max(0.0, (last - first) / (now_s - first_s)) if now_s > first_s else 0.0


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
        endings: The trials that have ended last, the latest last.

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
        self._standings = Standings(study.spec)
        self.endings: deque[TrialRecord] = deque(maxlen=_ENDINGS)
        self._unfinished = Unfinished(frozenset(), frozenset())
        self._fuse, self._plan, self._paused = fuse, "", False
        self._clock = clock
        self._began = clock()
        known = [] if from_start else self._reader.sync()
        for record in sorted(known, key=_ended_at):
            self._add(record)
        self._finished_before = self.finished
        self._pace = Pace(self._began, self._read_steps())
        self._workers: tuple[WorkerRow, ...] = ()
        self._looked_at = float("-inf")
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

    def _read_steps(self) -> int:
        self._unfinished = read_unfinished(self._database, self.study, is_dead)
        return self._standings.steps + self._unfinished.steps

    def _read_used(self) -> float | None:
        if self.study.spec.budget.full_trials is None:
            return None
        return read_used(self._database, self.study)

    def _take(self, news: Sequence[TrialRecord]) -> Iterator[TrialRecord]:
        new = sum(not self._standings.has(record.number) for record in news)
        if self._standings.started + new > self.study.spec.budget.trials:
            self.study = Studies(self._database).refresh(self.study)
        for record in news:
            self._add(record)
            if record.outcome.is_over:
                yield record
        self._pace.add(self._clock(), self._standings.steps + self._unfinished.steps)

    def _add(self, record: TrialRecord) -> None:
        self._standings.add(record)
        if record.outcome.is_over:
            self.endings.append(record)

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

    def workers(self) -> Sequence[WorkerRow]:
        """Returns the workers that are alive, as they were a second ago at most.

        Raises:
            UnavailableError: If the database is away.
        """
        now = self._clock()
        if now - self._looked_at >= _WORKERS_EVERY_S:
            rows = read_workers(self._database, self.study, is_dead)
            self._workers = tuple(row for row in rows if row.state.is_alive)
            self._looked_at = now
        return self._workers

    @property
    def counts(self) -> Counter[Outcome]:
        """Trials by outcome; those that nobody trains are waiting or paused."""
        running = self._standings.running
        paused = len(running & self._unfinished.paused)
        waiting = len(running - self._unfinished.held - self._unfinished.paused)
        shown = Counter(
            {
                Outcome.RUNNING: -waiting - paused,
                Outcome.WAITING: waiting,
                Outcome.PAUSED: paused,
            }
        )
        shown.update(self._standings.counts)
        return shown

    @property
    def finished(self) -> int:
        """Trials that are over."""
        return self._standings.finished

    @property
    def standings(self) -> Sequence[Standing]:
        """The standing of each optimizer, the best first."""
        return self._standings.by_optimizer()

    @property
    def steps_per_s(self) -> float:
        """Optimizer steps a second of late, all trials together."""
        return self._pace.rate(self._clock())

    def course(self, points: int) -> Sequence[float]:
        """Returns the best value so far over the trials, in so many points at most."""
        return self._standings.course(points)

    @property
    def best_trial(self) -> TrialRecord | None:
        """The best complete trial among those that are ranked, or None."""
        return self._standings.best

    def best(self) -> str:
        """Returns the best trial in a few words: its metric, optimizer and schedule."""
        best = self.best_trial
        if best is None:
            return "–"
        return (
            f"{tell_value(self.study.spec.study, best.value)} ({best.optimizer}, {best.schedule})"
        )

    @property
    def is_idle(self) -> bool:
        """Whether no trial is in training, waiting or paused."""
        return not self._standings.running

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


def _ended_at(record: TrialRecord) -> tuple[float, int]:
    """Returns what sorts trials by their ends, those that are not over last."""
    at = record.finished_at
    return math.inf if at is None else at.replace(tzinfo=UTC).timestamp(), record.number
