"""A trial that a worker holds: its lease, its checkpoints and its reports."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from optuna.trial import TrialState

from tuner.domain.confirmation import CONFIRM, REPEAT, TEST
from tuner.domain.lengths import tell_length
from tuner.domain.objective import (
    follow,
    reaches,
    tell_metric,
    tell_target,
    to_unreached,
    to_value,
)
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, TrialRecord, decode
from tuner.errors import StorageError, WorkloadError
from tuner.service.worker.checkpoints import Checkpoints
from tuner.service.worker.endings import (
    NOTHING_SAVED,
    STATES,
    ending_attributes,
    error_attributes,
    explain_restart,
    tell_ending,
)
from tuner.service.worker.lanes import Lanes
from tuner.service.worker.reports import Report, Reports
from tuner.store import Lease, TrialEnding, TrialReport
from tuner.training.loop import Ending, TrialResult
from tuner.training.reporting import Evaluation, StaleCheckpointError
from tuner.training.seeds import derive_seed


class HeldTrial:
    """A trial that a worker holds, to train it alone or with others.

    Args:
        spec: The study, resolved.
        lease: The lease the trial is held under.
        record: The trial as the database knows it.
        checkpoints: The checkpoints of all who have held it.

    Attributes:
        spec: The study as it trains: with a seed of its own if it confirms another study's trial.
        lease: The lease it is held under.
        record: The trial as the database knew it when it was taken.
        config: The configuration it trains with.
        checkpoints: The checkpoints of all who have held it.
        reports: Its evaluations and logged numbers.
        state: The checkpoint that it goes on from, or None if it begins at its start.
        restart: Why it starts over, or None if it goes on or is new.
        lost: Whether it belongs to another worker by now.
        announced: Whether the database knows of this worker's checkpoint.
        charged: Whether the budget has been charged for what its former holders have lost.
        left_out: The names of logged numbers that were infinite or NaN, so that none was kept.
        apart: Whether it trains alone, since it was saved alone or its checkpoint cannot be read.
    """

    def __init__(
        self, spec: StudySpec, lease: Lease, record: TrialRecord, checkpoints: Checkpoints
    ) -> None:
        self.spec = _with_own_seed(spec, record)
        self._study, self._metric = spec.study, spec.study.metric
        self.lease = lease
        self.record = record
        self.config = decode(spec, record.proposal)
        self.checkpoints = checkpoints
        self.reports = Reports(spec, record)
        self.state: Mapping[str, Any] | None = None
        self.restart = NOTHING_SAVED if lease.begun and lease.checkpoint is None else None
        self.left_out: set[str] = set()
        self.lost = self.announced = self.charged = self.apart = False

    @property
    def number(self) -> int:
        """The trial's number in its study."""
        return self.lease.number

    def load(self) -> None:
        """Reads the checkpoint that counts; if that cannot be read, the trial starts over."""
        if self.restart is not None:
            return
        try:
            self.state = self.checkpoints.load()
        except (StorageError, StaleCheckpointError) as error:
            self.start_over(error)

    def start_over(self, error: BaseException) -> None:
        """Drops the checkpoint, so that the trial starts over.

        Args:
            error: The error that the checkpoint is blamed for.
        """
        self.state, self.restart, self.charged = None, explain_restart(error), False
        self.reports.forget()

    def resume(self, lanes: Lanes) -> list[Report]:
        """Restores its reports from the checkpoint; returns those that the database may lack.

        Args:
            lanes: The group that it goes on in.

        Raises:
            StaleCheckpointError: If the checkpoint's reports are malformed.
        """
        if self.state is None:
            return []
        return self.reports.resume(self.state, lanes.taken, lanes.evaluated, lanes.total_steps)

    def measure(self, lanes: Lanes, lane: int, evaluation: Evaluation) -> Report:
        """Returns an evaluation as a report, with the numbers logged since the last one.

        Args:
            lanes: The group that it trains in.
            lane: Its number in the group.
            evaluation: The evaluation.
        """
        return self.reports.measure(evaluation, lanes.total_steps, lanes.take_logged(lane))

    def save(self, lanes: Lanes, lane: int) -> None:
        """Writes a checkpoint, with the reports that have not been delivered.

        Args:
            lanes: The group that it trains in.
            lane: Its number in the group.

        Raises:
            StorageError: If it cannot be written.
        """
        self.checkpoints.save({**lanes.state_dict(lane), **self.reports.state_dict()})

    def send(self, report: Report) -> TrialReport:
        """Returns a report as the ledger takes it; it is unsent until it is taken off."""
        self.reports.send(report)
        return TrialReport(self.lease, report.progress, report.value, report.logged)

    def compared(self, result: TrialResult | None) -> tuple[TrialRecord, Mapping[int, float]]:
        """Returns its record and evaluations as the pruner compares them within the group.

        Args:
            result: How it has left its loop, or None while it trains.
        """
        record = self.record
        if result is not None and result.ending is Ending.DIVERGED:
            record = dataclasses.replace(record, outcome=Outcome.DIVERGED)
        elif result is not None and result.ending is Ending.COMPLETE and self.has_reached():
            attributes = {**record.attributes, "reached": tell_target(self._study)}
            record = dataclasses.replace(record, attributes=attributes)
        return record, self.reports.evaluations

    def end(
        self, trained: Mapping[str, Any], result: TrialResult, stopped_by: str | None
    ) -> tuple[TrialEnding, str]:
        """Returns its ending as the ledger takes it, and as a line for the log.

        Args:
            trained: The attributes to store of how it trained.
            result: How it has left its loop.
            stopped_by: ``stop`` or ``wall_time`` if that has ended it, or None.
        """
        complete = result.ending is Ending.COMPLETE
        value, standing = self.reports.value, self.reports.standing
        if result.value is not None:
            value = follow(self._study, value, result.value)
        fault = result.fault
        if complete and value is None:
            fault = f"The training loop neither reported nor returned {self._metric}."
        if fault is not None:
            return self.fail(trained, WorkloadError(fault))
        attributes = ending_attributes(result, standing, stopped_by) | dict(trained)
        if not complete:
            attributes.pop(TEST, None)
        how = result.ending if stopped_by is None else f"stopped by {stopped_by}"
        if self._study.rank_by == "best" and standing is not None:
            attributes["best_step"] = standing.step
        line = tell_ending(self.number, how, tell_metric(self._study), value)
        if complete and value is not None and reaches(self._study, value):
            attributes["reached"] = tell_target(self._study)
        length = tell_length(attributes) if complete else ""
        ranked = self._to_ranked(value, trained, complete=complete)
        ending = TrialEnding(self.lease, STATES[result.ending], ranked, attributes)
        return ending, f"{line}; {length}" if length else line

    def _to_ranked(
        self, metric: float | None, trained: Mapping[str, Any], *, complete: bool
    ) -> float | None:
        """Returns the value that the trial is ranked by, of its last metric."""
        if metric is None:
            return None
        if not complete:
            return to_unreached(self._study, metric)
        steps, seconds = (float(trained.get(name) or 0.0) for name in ("steps", "train_s"))
        return to_value(self._study, metric, steps, seconds)

    def has_reached(self) -> bool:
        """Tells whether its last evaluation has reached the target of the study."""
        metric = self.reports.value
        return metric is not None and reaches(self._study, metric)

    def pause(self, trained: Mapping[str, Any]) -> tuple[TrialEnding, str]:
        """Returns how it ends if it is not promoted, and a line for the log that it is paused.

        Args:
            trained: The attributes to store of how it trained.
        """
        ending, _ = self.end(trained, TrialResult(Ending.PRUNED), None)
        told = tell_ending(self.number, "paused", tell_metric(self._study), self.reports.value)
        return ending, told

    def fail(self, trained: Mapping[str, Any], error: BaseException) -> tuple[TrialEnding, str]:
        """Returns its failure as the ledger takes it, and as a line for the log.

        Args:
            trained: The attributes to store of how it trained.
            error: The error that it failed with.
        """
        attributes = error_attributes(error)
        line = f"Trial {self.number} failed: {attributes['error'].splitlines()[0]}"
        return TrialEnding(self.lease, TrialState.FAIL, None, attributes | dict(trained)), line


def _with_own_seed(spec: StudySpec, record: TrialRecord) -> StudySpec:
    """Returns the study that a trial trains in.

    All trials of a search share one seed, so that they differ in what is searched alone. Those that
    confirm have fresh ones, the same for all finalists.
    """
    repeat = record.attributes.get(REPEAT)
    if record.proposal.preset != CONFIRM or not isinstance(repeat, int):
        return spec
    # As small as NumPy, Lightning and Transformers take them; they refuse others, or all take 0.
    return spec.with_seed(derive_seed(spec.search.seed, CONFIRM, repeat) % 2**32)
