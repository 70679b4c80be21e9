"""tuner's own search over curves that are known beforehand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from typing import cast

from optuna.trial import FrozenTrial

from benchmarks.search.replay import Search, Searching
from benchmarks.search.spaces import EVALUATIONS
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, Proposal, TrialRecord, tell_waiting
from tuner.search import Proposer, Pruner, Verdict
from tuner.search.history import SAMPLER_STATE
from tuner.search.knowledge import Knowledge
from tuner.search.promotion import pausing_rungs


def search_by_tuner(
    spec: StudySpec,
    seed: int,
    knowledge: Knowledge | None = None,
    *,
    lanes: int = 1,
    evaluations: int | None = 400,
    foresees: bool = False,
) -> Searching:
    """Searches as tuner's workers do: paused trials that may go on first, then new ones.

    Args:
        spec: The space, the sampler and the pruner, and the length of trials.
        seed: The worker's seed.
        knowledge: The portfolio and priors; None for those that ship with tuner.
        lanes: Trials of a cohort.
        evaluations: The training after which no further cohort starts, in evaluations; None for a
            whole study, of as many trials as the spec's budget has but its closing.
        foresees: Whether an oracle says, at the first rung, which trials will be the best so far;
            all others stop there.
    """
    play = Play(spec, seed, knowledge, foresees)
    while evaluations is None or play.search.evaluations < evaluations:
        cohort = play.find_promoted(lanes)
        left = lanes if evaluations is not None else spec.budget.trials - 1 - play.started
        if not cohort and left:
            drawn = play.propose(min(lanes, left))
            cohort = play.start(drawn, (yield [trial.params for trial in drawn]))
        cohort = cohort or play.find_last(lanes)
        if not cohort:
            break
        play.train(cohort)
    return play.search


class Play:
    """A study of tuner's whose trials' curves are known beforehand."""

    def __init__(
        self, spec: StudySpec, seed: int, knowledge: Knowledge | None, foresees: bool
    ) -> None:
        self.search = Search()
        self._foresees = foresees
        self._steps = cast("int", spec.budget.steps)
        self._proposer = Proposer(spec, seed, knowledge)
        self._pruner = Pruner(spec, self._proposer.history)
        self._waiting = self._proposer.openings()
        self._records = self.search.records
        self._curves: list[Sequence[float]] = []
        self._paused: dict[int, int] = {}

    def shown(self) -> list[TrialRecord]:
        """Returns the trials, those marked as paused that are."""
        return tell_waiting(self._records, (), self._paused)

    def propose(self, lanes: int) -> list[FrozenTrial]:
        """Returns trials to start: openings first."""
        self._proposer.history.pause(self._paused)
        drawn, self._waiting = self._waiting[:lanes], self._waiting[lanes:]
        if len(drawn) < lanes:
            drawn += (
                self._proposer.propose_many(lanes - len(drawn))
                if lanes > 1
                else [self._proposer.propose()]
            )
        return drawn

    def start(self, drawn: Sequence[FrozenTrial], curves: Sequence[Sequence[float]]) -> list[int]:
        """Starts trials; returns their numbers."""
        first = len(self._records)
        self._records += [self._record(trial, first + place) for place, trial in enumerate(drawn)]
        self._curves += curves
        return list(range(first, len(self._records)))

    def _record(self, trial: FrozenTrial, number: int) -> TrialRecord:
        """Returns a proposed trial as one that has started."""
        attributes = trial.user_attrs
        proposal = Proposal(trial.params, attributes.get("preset"))
        notes = {SAMPLER_STATE: attributes.get(SAMPLER_STATE)}
        return TrialRecord(number, Outcome.RUNNING, proposal, attributes=notes)

    @property
    def started(self) -> int:
        """The number of trials that have started."""
        return len(self._records)

    def find_promoted(self, lanes: int) -> list[int]:
        """Returns paused trials that may go on, all from one rung."""
        return self._take(self._pruner.find_promotable(self._paused), lanes)

    def find_last(self, lanes: int) -> list[int]:
        """Returns paused trials that go on once no others are to come, all from one rung."""
        return self._take(self._pruner.find_last(self._paused), lanes)

    def _take(self, ready: Sequence[int], lanes: int) -> list[int]:
        together = [n for n in ready if self._paused[n] == self._paused[ready[0]]][:lanes]
        for number in together:
            del self._paused[number]
        return together

    def train(self, cohort: Sequence[int]) -> None:
        """Trains trials, which stand at the same point, until each has ended or paused."""
        records = self._records
        trains = set(cohort)
        for place in range(len(records[cohort[0]].evaluations), EVALUATIONS):
            progress = -(-(place + 1) * self._steps // EVALUATIONS)
            for number in sorted(trains):
                self._step(number, place, progress)
            trains = {n for n in trains if records[n].outcome is Outcome.RUNNING}
            if place + 1 < EVALUATIONS and trains:
                trains -= self._judge(cohort, trains, progress)
        for number in trains:
            value = cast("float", records[number].value)
            self.search.end(records[number].proposal.params, value)
            records[number] = replace(records[number], outcome=Outcome.COMPLETE)
        self._proposer.history.add(records[number] for number in cohort)

    def _step(self, number: int, place: int, progress: int) -> None:
        self.search.evaluations += 1
        record, value = self._records[number], self._curves[number][place]
        if math.isfinite(value):
            known = {**record.evaluations, progress: value}
            record = replace(record, evaluations=known, value=value)
        else:
            record = replace(record, outcome=Outcome.DIVERGED)
        self._records[number] = record

    def _judge(self, cohort: Sequence[int], trains: set[int], progress: int) -> set[int]:
        """Returns the trials that stop or pause here."""
        if self._foresees:
            return self._foresee(trains, progress)
        lanes = [(self._records[n], self._records[n].evaluations) for n in cohort]
        left = set()
        for number, verdict in zip(cohort, self._pruner.judge(lanes, self._steps), strict=True):
            if number in trains and verdict is not Verdict.GO_ON:
                left.add(number)
                if verdict is Verdict.PAUSE:
                    self._paused[number] = progress
                else:
                    self._stop(number)
        return left

    def _foresee(self, trains: set[int], progress: int) -> set[int]:
        """Stops the trials that will not be the best so far, once they have come to a rung."""
        rung = pausing_rungs(EVALUATIONS)[0]
        if progress < -(-rung * self._steps // EVALUATIONS):
            return set()
        best = self.search.best_by(math.inf)
        left = {n for n in trains if not self._curves[n][-1] < best}
        for number in left:
            self._stop(number)
        return left

    def _stop(self, number: int) -> None:
        stopped = replace(self._records[number], outcome=Outcome.PRUNED)
        self._records[number] = stopped
