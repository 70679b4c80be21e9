"""One trial: its point in the search space, its configuration, and its record in the database."""

from __future__ import annotations

from collections.abc import Collection, Hashable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from tuner.domain.budget import Budget, evaluation_step
from tuner.domain.catalog.averages import AVERAGES, NO_AVERAGE
from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Value
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import CONSTANT, SCHEDULES
from tuner.domain.defaults import BentDefault, bend_defaults, bend_one
from tuner.domain.groups import GroupValues, decode_group
from tuner.domain.networks import decode_network
from tuner.domain.space import Branch, branches_of, warms_momentum
from tuner.domain.spec import StudySpec
from tuner.domain.train import MOMENTUM_WARMUP, BatchSize, to_batch_size

DEFAULT = "default"
"""The preset of a trial of an optimizer's own defaults."""

CLOSED_FROM = 10
"""Trials, or full trials, from which on a study spends its last one on defaults, in full."""

PORTFOLIO = "portfolio"
"""The preset of a trial that a study starts with, from the list that ships with tuner."""

WARM_START = "warm_start"
"""The preset of a trial that a study starts with, from an earlier study."""

RANDOM = "random"
"""The preset of a trial of a comparison that is drawn evenly from its optimizer's whole range."""

CHOICES_OF_DEFAULTS = ("optimizer", "schedule", "batch_size", "average")
"""The parameters that a default trial may have by itself; any others the study file has bent."""

RERUN_OF = "rerun_of"
"""The attribute of a trial that runs another one's configuration again: that one's number."""


class Outcome(StrEnum):
    """How a trial stands; diverged ones are pruned ones with a step attached.

    Waiting and paused ones have started and are not over, and nobody trains them: waiting ones
    until a worker is free, paused ones until they are promoted. Only who shows trials to a person
    tells them from running ones, by :func:`tell_waiting`: a search treats them alike.
    """

    RUNNING = "running"
    WAITING = "waiting"
    PAUSED = "paused"
    COMPLETE = "complete"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    FAILED = "failed"

    @property
    def is_over(self) -> bool:
        """Whether the trial has ended."""
        return self not in (Outcome.RUNNING, Outcome.WAITING, Outcome.PAUSED)


@dataclass(frozen=True)
class Proposal:
    """A point of the search space for a trial to start from.

    Attributes:
        params: Searched values by name: ``optimizer``, ``schedule``, ``adam.lr``, ...
        preset: ``"default"`` for a trial of an optimizer's own defaults, ``"portfolio"`` or
            ``"warm_start"`` for one that the study started with, ``"random"`` for one of a
            comparison that is drawn evenly, otherwise None.
    """

    params: dict[str, Value]
    preset: str | None = None


@dataclass(frozen=True)
class TrialConfig:
    """The configuration that one trial trains with, every hyperparameter in torch's form.

    Attributes:
        optimizer: Name of the optimizer.
        optimizer_values: Its hyperparameters.
        schedule: Name of the schedule.
        schedule_values: Its hyperparameters.
        batch_size: Examples a step, or ``full``.
        groups: Parameters that train otherwise than the rest.
        own: Hyperparameters the workload itself asks for, by name.
        average: The name of the average of weights that it is evaluated by, or ``none``.
        average_values: The average's hyperparameters.
        momentum_warmup: The fraction of a full trial over which its momentum rises; 0 where it
            has none of its own.
        networks: Hyperparameters of the optimizer that a network has of its own, by its name.
    """

    optimizer: str
    optimizer_values: dict[str, Value]
    schedule: str
    schedule_values: dict[str, Value]
    batch_size: BatchSize
    groups: tuple[GroupValues, ...] = ()
    own: dict[str, Value] = field(default_factory=dict)
    average: str = NO_AVERAGE
    average_values: dict[str, Value] = field(default_factory=dict)
    momentum_warmup: float = 0.0
    networks: dict[str, dict[str, Value]] = field(default_factory=dict)

    def values_of(self, network: str | None) -> dict[str, Value]:
        """Returns the hyperparameters a network's optimizer has.

        Args:
            network: The name that the loop gives it, or None where it has no name.
        """
        return self.optimizer_values | self.networks.get(network or "", {})

    @property
    def fuse_key(self) -> tuple[Hashable, ...]:
        """The part of the configuration that all lanes of a cohort must have in common.

        A fused step computes all lanes on one batch, and updates each parameter of the model in
        all lanes at once. So trials fuse only if their keys are equal: the batch size, and of every
        parameter group its name, its pattern and the fraction of a trial that it is frozen for.
        """
        parts = ((group.name, group.match, group.frozen_until) for group in self.groups)
        return (self.batch_size, *parts)

    def to_json(self) -> dict[str, Any]:
        """Returns the values as a report shows them, the schedule's prefixed with its name."""
        settings: dict[str, Any] = {
            **self.optimizer_values,
            **{f"{name}.{key}": v for name, own in self.networks.items() for key, v in own.items()},
            **{f"{self.schedule}.{key}": value for key, value in self.schedule_values.items()},
            "batch_size": self.batch_size,
        }
        if self.average != NO_AVERAGE:
            settings["average"] = self.average
            settings |= {f"{self.average}.{key}": v for key, v in self.average_values.items()}
        if self.momentum_warmup:
            settings["momentum_warmup"] = self.momentum_warmup
        for group in self.groups:
            settings |= group.to_json()
        return settings | self.own


@dataclass(frozen=True)
class TrialRecord:
    """One trial as the database knows it.

    Attributes:
        number: Its place in the study, from 0.
        outcome: How it stands.
        proposal: Its point in the search space.
        value: The metric of its last evaluation, if it has one.
        evaluations: The metric by progress (see :func:`progress_at`).
        attributes: The other values that were recorded, by name.
        started_at: When it started, naive UTC.
        finished_at: When it finished, naive UTC.
        own_axes: The axes of its workload's own hyperparameters, by name.
    """

    number: int
    outcome: Outcome
    proposal: Proposal
    value: float | None = None
    evaluations: Mapping[int, float] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    started_at: datetime | None = None
    finished_at: datetime | None = None
    own_axes: Mapping[str, Dimension] = field(default_factory=dict)

    @property
    def optimizer(self) -> str:
        """The name of its optimizer."""
        return str(self.proposal.params["optimizer"])

    @property
    def schedule(self) -> str:
        """The name of its schedule."""
        return str(self.proposal.params["schedule"])

    @property
    def is_default(self) -> bool:
        """Whether it started from its optimizer's own defaults, bent to the study file."""
        return self.proposal.preset == DEFAULT


def tell_waiting(
    records: Iterable[TrialRecord], held: Collection[int], paused: Collection[int] = ()
) -> list[TrialRecord]:
    """Returns trials with those as waiting, or paused, that are not over and that nobody trains.

    Args:
        records: The trials.
        held: The numbers of those that somebody trains.
        paused: The numbers of those that wait to be promoted.
    """
    return [
        replace(record, outcome=Outcome.PAUSED if record.number in paused else Outcome.WAITING)
        if record.outcome is Outcome.RUNNING and record.number not in held
        else record
        for record in records
    ]


def ran_own_defaults(spec: StudySpec, record: TrialRecord) -> bool:
    """Tells whether a trial ran its optimizer's own defaults, none of them bent."""
    if not record.is_default:
        return False
    return decode(spec, record.proposal).optimizer_values == OPTIMIZERS[record.optimizer].decode({})


def has_closing(budget: Budget) -> bool:
    """Tells whether a study of a budget spends its last trial on defaults."""
    size = budget.trials if budget.full_trials is None else budget.full_trials
    return min(size, budget.trials) >= CLOSED_FROM


def default_proposals(spec: StudySpec) -> tuple[Proposal, ...]:
    """Returns the defaults of every optimizer of a study, each as a trial to start."""
    return tuple(default_proposal(spec, optimizer) for optimizer in spec.space.optimizers)


def default_proposal(spec: StudySpec, optimizer: str) -> Proposal:
    """Returns an optimizer's own defaults as a trial to start.

    It averages nothing, unless the study file leaves no choice, and where the file does not allow
    a default it has the nearest value that it allows.

    Args:
        spec: A resolved spec.
        optimizer: An optimizer of the study.
    """
    schedules = spec.space.schedules
    schedule = CONSTANT if CONSTANT in schedules else schedules[0]
    params: dict[str, Value] = {"optimizer": optimizer, "schedule": schedule}
    if isinstance(spec.train.batch_size, Choice):
        params["batch_size"] = spec.train.batch_size.choices[0]
    if isinstance(spec.train.average, Choice):
        averages = spec.train.averages
        params["average"] = NO_AVERAGE if NO_AVERAGE in averages else averages[0]
    params |= {bent.name: bent.value for bent in bent_defaults(spec, params)}
    return Proposal(params, preset=DEFAULT)


def bent_defaults(spec: StudySpec, params: Mapping[str, Value]) -> list[BentDefault]:
    """Returns the defaults that the study file does not allow a trial.

    Args:
        spec: A resolved spec.
        params: The trial's choice of optimizer, schedule and average.
    """
    bent = bend_defaults(spec, {branch.table: branch.row for branch in branches_of(spec, params)})
    if warms_momentum(params):
        bent += bend_one("", MOMENTUM_WARMUP, 0.0, spec.train.momentum_warmup)
    return bent


def decode(spec: StudySpec, proposal: Proposal) -> TrialConfig:
    """Returns the configuration of a trial at a point of the search space."""
    return Decoder(spec).decode(proposal)


class Decoder:
    """Decodes points of one search space; quicker than :func:`decode` where there are many.

    Args:
        spec: A resolved spec.
    """

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        self._known = spec.axes()

    def decode(self, proposal: Proposal) -> TrialConfig:
        """Returns the configuration of a trial at a point of the search space."""
        spec, params = self._spec, proposal.params
        rows: dict[str, str] = {}
        points: dict[str, dict[str, Value]] = {}
        networks: dict[str, Branch] = {}
        for branch in branches_of(spec, params):
            if branch.network is None:
                rows[branch.table], points[branch.table] = branch.row, branch.point(params)
            else:
                networks[branch.network] = branch
        optimizer, schedule, average = rows["optimizer"], rows["schedule"], rows["average"]
        values = OPTIMIZERS[optimizer].decode(points["optimizer"])
        warmup = float(self._common(MOMENTUM_WARMUP, params))
        return TrialConfig(
            optimizer=optimizer,
            optimizer_values=values,
            networks=_decode_networks(networks, params, values),
            schedule=schedule,
            schedule_values=SCHEDULES[schedule].decode(points["schedule"]),
            batch_size=to_batch_size(self._common("batch_size", params)),
            groups=tuple(decode_group(group, params) for group in spec.train.groups),
            own={name: value for name, value in params.items() if name not in self._known},
            average=average,
            average_values=AVERAGES[average].decode(points["average"]),
            momentum_warmup=warmup if warms_momentum(params) else 0.0,
        )

    def sketch(self, proposal: Proposal) -> Hashable:
        """Returns the optimizer of a trial and the first of its hyperparameters.

        Equal configurations have equal sketches, and a sketch costs a fraction of decoding.
        """
        params = proposal.params
        optimizer = str(params["optimizer"])
        axes, point = self._spec.optimizer.get(optimizer, {}), dict[str, Value]()
        hyperparameters = OPTIMIZERS[optimizer].hyperparameters[:1]
        for hyperparameter in hyperparameters:
            for key in hyperparameter.axis_names:
                axis, name = axes.get(key), f"{optimizer}.{key}"
                if name in params:
                    point[key] = params[name]
                elif isinstance(axis, Fixed):
                    point[key] = axis.value
        return optimizer, *(hyperparameter.decode(point) for hyperparameter in hyperparameters)

    def _common(self, name: str, params: Mapping[str, Value]) -> Value:
        """Returns a value of the [train] table, which every trial has."""
        axis: Dimension = getattr(self._spec.train, name)
        return axis.value if isinstance(axis, Fixed) else params.get(name, 0)


def _decode_networks(
    branches: Mapping[str, Branch], params: Mapping[str, Value], shared: dict[str, Value]
) -> dict[str, dict[str, Value]]:
    """Returns the hyperparameters that networks have of their own, of networks that have any."""
    found = {
        network: decode_network(branch.hyperparameters, branch.axes, branch.point(params), shared)
        for network, branch in branches.items()
    }
    return {network: own for network, own in found.items() if own}


def progress_at(spec: StudySpec, evaluation: int, total_steps: int) -> int:
    """Returns where an evaluation stands on the axis along which trials are compared.

    The axis is optimizer steps, or the evaluation's own number where a full trial is counted in
    epochs or examples, since then trials of different batch sizes take different numbers of steps.

    Args:
        spec: The study.
        evaluation: Which evaluation, from 1.
        total_steps: Steps of this trial when full.
    """
    if spec.budget.steps is None:
        return evaluation
    return evaluation_step(evaluation, total_steps, spec.budget.evaluations)


def steps_at(spec: StudySpec, progress: int, total_steps: int) -> int:
    """Returns the steps a trial has taken where it stands on the axis of :func:`progress_at`."""
    if spec.budget.steps is not None:
        return progress
    return evaluation_step(progress, total_steps, spec.budget.evaluations)
