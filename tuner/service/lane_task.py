"""One trial of a cohort, as its worker sees it."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from tuner.analysis.averages import LINE
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome as RecordOutcome
from tuner.domain.trials import TrialRecord, decode, progress_at
from tuner.service.checkpoints import Checkpoints
from tuner.service.endings import STATES, ending_attributes
from tuner.service.reports import Report, read_reports
from tuner.store import Lease
from tuner.store.group_ledger import LaneEnding, LaneReport
from tuner.training.cohort import Cohort
from tuner.training.loop import Ending, Outcome
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
        evaluations: The metric so far, by progress.
        unsent: What the database has not been told yet.
        costs: Seconds in training and in evaluation, its share of the cohort's, and the places in
            cohorts that it has paid for: those of lanes that are over are paid by the others.
        lost: Whether it belongs to another worker by now.
        announced: Whether the database knows of its checkpoint.
        apart: Whether it goes on alone, as it has begun.
    """

    def __init__(
        self, spec: StudySpec, lease: Lease, record: TrialRecord, checkpoints: Checkpoints
    ) -> None:
        self._spec = spec
        self._metrics: dict[str, float] = {}
        self.lease = lease
        self.record = record
        self.config = decode(spec, record.proposal)
        self.checkpoints = checkpoints
        self.state: Mapping[str, Any] | None = None
        self.evaluations: dict[int, float] = {}
        self.unsent: list[Report] = []
        self.costs = dict.fromkeys(_COSTS, 0.0)
        self.lost = self.announced = self.apart = False

    @property
    def number(self) -> int:
        """The trial's number."""
        return self.lease.number

    @property
    def step(self) -> int:
        """Steps taken where it goes on from."""
        return 0 if self.state is None else int(self.state["steps"]["done"])

    def begin(self, cohort: Cohort) -> list[Report]:
        """Takes its place in a cohort; returns what the database may not have been told before."""
        if self.state is None:
            return []
        seen = {self.progress(cohort, index) for index in range(1, cohort.evaluated + 1)}
        unsent = read_reports(self.state.get("unsent"), cohort.taken, seen)
        self.evaluations = {p: v for p, v in self.record.evaluations.items() if p in seen}
        for name, value in _read_costs(self.state.get("costs")).items():
            self.costs[name] = value
        return unsent

    def start_over(self) -> None:
        """Forgets what it was to go on from."""
        self.state = None
        self.evaluations = {}
        self.unsent = []

    def report(self, cohort: Cohort, lane: int, evaluation: Evaluation) -> Report:
        """Returns what an evaluation has to tell."""
        self._metrics = evaluation.metrics
        value = evaluation.metrics[self._spec.study.metric]
        logged = [(evaluation.step, *measured) for measured in evaluation.metrics.items()]
        logged += cohort.take_logged(lane)
        progress = self.progress(cohort, evaluation.index)
        return Report(evaluation.step, progress, value, logged)

    def send(self, report: Report) -> LaneReport:
        """Returns a report as the ledger takes it; it is unsent until it is taken off."""
        if report.progress is not None and report.value is not None:
            self.evaluations[report.progress] = report.value
        self.unsent.append(report)
        return LaneReport(self.lease, report.progress, report.value, report.logged)

    def judged(self, outcome: Outcome | None) -> tuple[TrialRecord, Mapping[int, float]]:
        """Returns what it is judged by among its cohort."""
        record = self.record
        if outcome is not None and outcome.ending is Ending.DIVERGED:
            record = dataclasses.replace(record, outcome=RecordOutcome.DIVERGED)
        return record, self.evaluations

    def state_dict(self, cohort: Cohort, lane: int) -> dict[str, Any]:
        """Returns what another worker goes on from."""
        unsent = [tuple(report) for report in self.unsent]
        return {**cohort.state_dict(lane), "unsent": unsent, "costs": self.costs}

    def end(
        self, cohort: Cohort, lane: int, outcome: Outcome, stopped_by: str | None
    ) -> LaneEnding:
        """Returns its ending as the ledger takes it."""
        attributes = ending_attributes(outcome, self._metrics, stopped_by)
        attributes["seed"] = self._spec.search.seed
        attributes |= self._describe_costs(cohort, lane)
        return LaneEnding(self.lease, STATES[outcome.ending], self.value, attributes)

    @property
    def value(self) -> float | None:
        """The metric of its last evaluation."""
        return self.evaluations[max(self.evaluations)] if self.evaluations else None

    def progress(self, cohort: Cohort, index: int) -> int:
        """Returns where an evaluation stands on the axis that trials are compared along."""
        return progress_at(self._spec, index, cohort.total_steps if self._spec.budget.steps else 0)

    def _describe_costs(self, cohort: Cohort, lane: int) -> dict[str, Any]:
        costs: dict[str, Any] = {
            "steps": cohort.taken,
            "lanes": cohort.size,
            **{name: round(value, 6) for name, value in self.costs.items()},
        }
        if cohort.total_steps != cohort.taken:
            costs["total_steps"] = cohort.total_steps
        train = self._spec.train
        if self.config.groups or train.no_decay_on_biases_and_norms:
            costs["groups"] = cohort.describe_groups(lane)
        line = cohort.average_line(lane)
        if line:
            costs[LINE] = [(place, v if math.isfinite(v) else None) for place, v in line]
        if train.schedule_by == "epoch":
            costs["epoch_steps"] = cohort.epoch_steps
        return costs


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
