"""One trial of a cohort: its lease, its reports and its checkpoints."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, TrialRecord, decode
from tuner.fused.cohort import Cohort
from tuner.service.worker.checkpoints import Checkpoints
from tuner.service.worker.endings import (
    NOTHING_SAVED,
    STATES,
    ending_attributes,
    explain_restart,
    training_attributes,
)
from tuner.service.worker.reports import Report, Reports
from tuner.store import Lease, TrialEnding, TrialReport
from tuner.training.loop import Ending, TrialResult
from tuner.training.reporting import Evaluation, StaleCheckpointError

_COSTS = ("train_s", "eval_s", "places")


class LaneTask:
    """A trial that trains with others.

    Args:
        spec: The study, resolved.
        lease: The right to the trial.
        record: The trial as the database knows it.
        checkpoints: What its holders have saved.

    Attributes:
        lease: The right to it.
        record: What is known of it.
        config: What it trains with.
        checkpoints: What its holders have saved.
        state: What it goes on from, or None.
        reports: Its reports.
        costs: Its share of the cohort's seconds in training and in evaluation, and of its places:
            what all trials that began would have taken in steps, had none ended early.
        lost: Whether it belongs to another worker by now.
        announced: Whether the database knows of its checkpoint.
        apart: Whether it goes on alone, as it has begun.
        restart: Why it starts over, or None if it goes on or is new.
    """

    def __init__(
        self, spec: StudySpec, lease: Lease, record: TrialRecord, checkpoints: Checkpoints
    ) -> None:
        self._spec = spec
        self.lease = lease
        self.record = record
        self.config = decode(spec, record.proposal)
        self.checkpoints = checkpoints
        self.state: Mapping[str, Any] | None = None
        self.reports = Reports(spec, record)
        self.costs = dict.fromkeys(_COSTS, 0.0)
        self.lost = self.announced = self.apart = False
        self.restart = NOTHING_SAVED if lease.begun and lease.checkpoint is None else None

    @property
    def number(self) -> int:
        """The trial's number."""
        return self.lease.number

    @property
    def step(self) -> int:
        """Steps taken where it goes on from."""
        return 0 if self.state is None else int(self.state["steps"]["done"])

    def begin(self, cohort: Cohort) -> list[Report]:
        """Starts it in a cohort; returns the reports that the database may lack."""
        if self.state is None:
            return []
        unsent = self.reports.resume(
            self.state.get("unsent"), cohort.taken, cohort.evaluated, cohort.total_steps
        )
        for name, value in _read_costs(self.state.get("costs")).items():
            self.costs[name] = value
        return unsent

    def start_over(self, error: BaseException) -> None:
        """Drops the checkpoint, so that the trial starts over.

        Args:
            error: The fault of the checkpoint.
        """
        self.state, self.restart = None, explain_restart(error)
        self.reports.forget()

    def report(self, cohort: Cohort, lane: int, evaluation: Evaluation) -> Report:
        """Returns an evaluation as a report."""
        logged = cohort.take_logged(lane)
        return self.reports.measure(evaluation, cohort.total_steps, logged)

    def send(self, report: Report) -> TrialReport:
        """Returns a report as the ledger takes it; it is unsent until it is taken off."""
        self.reports.send(report)
        return TrialReport(self.lease, report.progress, report.value, report.logged)

    def judged(self, outcome: TrialResult | None) -> tuple[TrialRecord, Mapping[int, float]]:
        """Returns its values as the pruner compares them within the cohort."""
        record = self.record
        if outcome is not None and outcome.ending is Ending.DIVERGED:
            record = dataclasses.replace(record, outcome=Outcome.DIVERGED)
        return record, self.reports.evaluations

    def state_dict(self, cohort: Cohort, lane: int) -> dict[str, Any]:
        """Returns the state from which another worker can continue it."""
        told = self.reports.state()
        return {**cohort.state_dict(lane), "unsent": told, "costs": self.costs}

    def end(
        self, cohort: Cohort, lane: int, outcome: TrialResult, stopped_by: str | None
    ) -> TrialEnding:
        """Returns its ending as the ledger takes it."""
        attributes = ending_attributes(outcome, self.reports.metrics, stopped_by)
        attributes |= self._describe_costs(cohort, lane)
        return TrialEnding(self.lease, STATES[outcome.ending], self.reports.value, attributes)

    def _describe_costs(self, cohort: Cohort, lane: int) -> dict[str, Any]:
        costs = training_attributes(
            self._spec,
            self.config,
            taken=cohort.taken,
            total_steps=cohort.total_steps,
            epoch_steps=cohort.epoch_steps,
            line=cohort.average_line(lane),
            describe_groups=lambda: cohort.describe_groups(lane),
        )
        costs["lanes"] = cohort.size
        return costs | {name: round(value, 6) for name, value in self.costs.items()}


def is_of_lane(state: Mapping[str, Any]) -> bool:
    """Tells whether a checkpoint was written by a lane, and not by a trial that trained alone."""
    return state.get("kind") == "lane"


def _read_costs(costs: Any) -> dict[str, float]:
    if (
        not isinstance(costs, dict)
        or costs.keys() != set(_COSTS)
        or not all(type(v) is float and math.isfinite(v) and v >= 0 for v in costs.values())
    ):
        raise StaleCheckpointError("The checkpoint's costs are malformed.")
    return costs
