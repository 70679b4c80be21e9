"""Prunes trials that are behind the others at the same point."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from enum import IntEnum

import optuna

from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import as_numbers, split_steps
from tuner.domain.samplers import pruner_row
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Decoder, Outcome, TrialRecord, steps_at
from tuner.search.halving import AshaPruner, HyperbandPruner
from tuner.search.history import History
from tuner.search.lane_pruner import LanePruner
from tuner.search.median import MedianPruner
from tuner.search.plugins import build_plugin
from tuner.search.promotion import PromotionPruner

LEAST_STEPS = 10
"""Steps that every trial takes. The best third after 4 of 20 steps holds 29% of the true best
twentieth on the worst of 17 workloads, after 12 of 60 37%, and after 36 of 180 57%."""


class Verdict(IntEnum):
    """Tells a judged trial to go on, to stop or to pause; false where it goes on."""

    GO_ON = 0
    STOP = 1
    PAUSE = 2


class Pruner:
    """Judges running trials against a study's history.

    A trial of an optimizer's defaults is never stopped, so that the gap between default and
    tuned is known. No trial is stopped in its first steps (:data:`LEAST_STEPS`), while its
    learning rate warms up, or while its optimizer finds out by itself how fast it may go. Who is
    not to be stopped is not paused either.

    Args:
        spec: The resolved spec.
        history: The past of the study; the caller keeps it up to date.

    Raises:
        SpecError: If the user's own pruner cannot be built.
    """

    def __init__(self, spec: StudySpec, history: History) -> None:
        self._spec = spec
        self._decoder = Decoder(spec)
        self._history = history
        self._pruner = build_pruner(spec)
        self._behind = Verdict.PAUSE if self.pauses else Verdict.STOP

    @property
    def pauses(self) -> bool:
        """Whether it pauses trials, to let the best go on later."""
        return isinstance(self._pruner, PromotionPruner)

    def should_prune(
        self, record: TrialRecord, evaluations: Mapping[int, float], total_steps: int | None = None
    ) -> bool:
        """Tells whether a trial that trains alone should stop, for now or for good.

        Args:
            record: The trial.
            evaluations: Its metric so far by progress.
            total_steps: Its steps when full; left out, the budget's, which may count epochs.
        """
        return self.judge([(record, evaluations)], total_steps)[0] is not Verdict.GO_ON

    def judge(
        self,
        lanes: Sequence[tuple[TrialRecord, Mapping[int, float]]],
        total_steps: int | None = None,
    ) -> list[Verdict]:
        """Judges the lanes of a cohort, compared with each other and with the past.

        Args:
            lanes: Each trial of the cohort, and its metric so far by progress. Those that have
                fewer evaluations than others are over; the outcome of those that diverged says so.
            total_steps: Steps of a full trial; left out, the budget's, which may count epochs.

        Returns:
            One verdict a lane, GO_ON for those that are over.
        """
        behind = self._find_behind(lanes, total_steps)
        return [self._behind if is_behind else Verdict.GO_ON for is_behind in behind]

    def find_promotable(self, paused: Mapping[int, int]) -> list[int]:
        """Returns the paused trials that may go on now, the furthest first, then the best.

        Args:
            paused: The progress that each paused trial stands at, by number.
        """
        if not isinstance(self._pruner, PromotionPruner):
            return []
        return self._pruner.find_promotable(self._history.past, paused)

    def find_last(self, paused: Mapping[int, int]) -> list[int]:
        """Returns the paused trials to complete at the end of a study although they are behind.

        Args:
            paused: The progress that each paused trial stands at, by number.
        """
        if not isinstance(self._pruner, PromotionPruner):
            return []
        return self._pruner.find_last(self._history.past, paused, self._spec.search.spare)

    def _find_behind(
        self,
        lanes: Sequence[tuple[TrialRecord, Mapping[int, float]]],
        total_steps: int | None,
    ) -> list[bool]:
        total = total_steps or self._spec.budget.steps
        reached = max((max(evaluations, default=0) for _, evaluations in lanes), default=0)
        judged = [
            reached in evaluations
            and not record.is_default
            and not (total and self._is_starting(record, evaluations, total))
            for record, evaluations in lanes
        ]
        if not any(judged) or isinstance(self._pruner, optuna.pruners.NopPruner):
            return [False] * len(lanes)
        records = [_stand(record, evaluations, reached) for record, evaluations in lanes]
        if isinstance(self._pruner, LanePruner):
            trials = [self._history.to_frozen(record) for record in records]
            behind = self._pruner.prune_lanes(self._history.past, trials)
            return [may and stops for may, stops in zip(judged, behind, strict=True)]
        if len(records) > 1:
            # A pruner of the user's own looks for other lanes among the study's running trials.
            self._history.add(record for record in records if record.outcome is Outcome.RUNNING)
        study, to_frozen = self._history.study, self._history.to_frozen
        return [
            may and bool(self._pruner.prune(study, to_frozen(record)))
            for may, record in zip(judged, records, strict=True)
        ]

    def _is_starting(
        self, record: TrialRecord, evaluations: Mapping[int, float], total_steps: int
    ) -> bool:
        config = self._decoder.decode(record.proposal)
        warmup, _ = split_steps(as_numbers(config.schedule_values), total_steps)
        slow = OPTIMIZERS[config.optimizer].slow_start(config.optimizer_values)
        taken = steps_at(self._spec, max(evaluations), total_steps)
        return taken < LEAST_STEPS or taken <= max(warmup, slow)


def _stand(record: TrialRecord, evaluations: Mapping[int, float], reached: int) -> TrialRecord:
    """Returns the record of a lane as it is once its cohort has come to a point of progress."""
    over = record.outcome if record.outcome is Outcome.DIVERGED else Outcome.PRUNED
    outcome = Outcome.RUNNING if reached in evaluations else over
    return dataclasses.replace(record, outcome=outcome, evaluations=evaluations)


def build_pruner(spec: StudySpec) -> LanePruner | optuna.pruners.BasePruner:
    """Returns the pruner of a study.

    Args:
        spec: The study, whose ``search.pruner`` names it.

    Raises:
        SpecError: If the user's own pruner cannot be built.
    """
    evaluations = spec.budget.evaluations
    match spec.search.pruner:
        case "none":
            return optuna.pruners.NopPruner()
        case "median":
            return MedianPruner(spec.search.spare)
        case "asha":
            return AshaPruner(evaluations)
        case "hyperband":
            return HyperbandPruner(evaluations)
        case "halving":
            return PromotionPruner(evaluations)
        case own:
            pruner: optuna.pruners.BasePruner = build_plugin(
                own, optuna.pruners.BasePruner, "search.pruner"
            )
            return pruner


def needs_running(spec: StudySpec) -> bool:
    """Tells whether the study's pruner looks at evaluations of trials that still run elsewhere.

    Args:
        spec: The study.
    """
    return pruner_row(spec.search.pruner).needs_running
