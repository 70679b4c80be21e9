"""One trial: where it lies in the search space, what it trains with, and how it ended."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from enum import StrEnum
from typing import Any

from tuner.domain.catalog.averages import AVERAGES, NO_AVERAGE
from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Value
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.domain.defaults import BentDefault, bend_defaults, bend_one
from tuner.domain.groups import GroupValues, decode_group
from tuner.domain.networks import branch_of, decode_network
from tuner.domain.samplers import JOINT_SAMPLERS
from tuner.domain.spec import StudySpec, evaluation_step, warms_momentum
from tuner.domain.train import BatchSize, to_batch_size

_MOMENTA = ("momentum", "one_minus_momentum", "beta1", "one_minus_beta1")

DEFAULT = "default"
"""The preset of a trial that runs an optimizer's own defaults."""

RERUN_OF = "rerun_of"
"""The attribute of a trial that runs another one's configuration again: that one's number."""


class Outcome(StrEnum):
    """How a trial stands; diverged ones are pruned ones with a step attached.

    Waiting ones have started and are not over, and nobody trains them. Only who shows trials to a
    person tells them from running ones, by :func:`tell_waiting`: a search treats them alike.
    """

    RUNNING = "running"
    WAITING = "waiting"
    COMPLETE = "complete"
    PRUNED = "pruned"
    DIVERGED = "diverged"
    FAILED = "failed"


@dataclass(frozen=True)
class Proposal:
    """A point of the search space for a trial to start from.

    Attributes:
        params: Searched values by name: ``optimizer``, ``schedule``, ``adam.lr``, ...
        preset: ``"default"`` for a trial of an optimizer's own defaults, otherwise None.
    """

    params: dict[str, Value]
    preset: str | None = None


@dataclass(frozen=True)
class TrialConfig:
    """What one trial trains with, every hyperparameter in torch's form.

    Attributes:
        optimizer: Name of the optimizer.
        optimizer_values: Its hyperparameters.
        schedule: Name of the schedule.
        schedule_values: Its hyperparameters.
        batch_size: Examples a step, or ``full``.
        groups: Parameters that train otherwise than the rest.
        own: Hyperparameters the workload itself asks for, by name.
        average: What it is evaluated by: the name of an average, or ``none``.
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
            network: What the loop calls it, or None where it has no name.
        """
        return self.optimizer_values | self.networks.get(network or "", {})

    @property
    def fuse_key(self) -> tuple[Hashable, ...]:
        """What trials must have in common to train as one: batch size, and groups of parameters."""
        parts = ((group.name, group.match, group.frozen_until) for group in self.groups)
        return (self.batch_size, *parts)

    def to_json(self) -> dict[str, Any]:
        """Returns the values as a report shows them: the schedule's prefixed with its name."""
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
        proposal: Where it lies in the search space.
        value: The metric of its last evaluation, if it has one.
        evaluations: The metric by progress (see :func:`progress_at`).
        attributes: What else was recorded, by name.
        started_at: When it started, naive UTC.
        finished_at: When it finished, naive UTC.
        own_axes: Where its workload's own hyperparameters were searched, by name.
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
        """Whether it started from its optimizer's own defaults, but for what the file fixes."""
        return self.proposal.preset == DEFAULT


def tell_waiting(records: Iterable[TrialRecord], held: Collection[int]) -> list[TrialRecord]:
    """Returns trials with those as waiting that are not over and that nobody trains.

    Args:
        records: The trials.
        held: The numbers of those that somebody trains.
    """
    return [
        replace(record, outcome=Outcome.WAITING)
        if record.outcome is Outcome.RUNNING and record.number not in held
        else record
        for record in records
    ]


def walk(spec: StudySpec, suggest: Callable[[str, Dimension], Value]) -> dict[str, Value]:
    """Draws one point of the search space, following its conditions.

    Args:
        spec: A resolved spec.
        suggest: Gives a value for a name and its axis.

    Returns:
        Searched values by name.
    """
    # A sampler of one space for all trials draws what has no effect all the same.
    joint = spec.search.sampler in JOINT_SAMPLERS
    params: dict[str, Value] = {}
    for name, axis in root_axes(spec).items():
        if name != "momentum_warmup" or joint or _warms_momentum(params):
            params[name] = suggest(name, axis)
    # A schedule that cycles the momentum leaves none to search.
    cycles = SCHEDULES[str(params["schedule"])].momentum_shape is not None
    # What mixes averaged weights into training ones is called momentum, but not cycled.
    cycles = cycles and not OPTIMIZERS[str(params["optimizer"])].switches
    cycled = set(_MOMENTA) if cycles and not joint else set()
    for table, branch, axes in branches_of(spec, params):
        switched_off = set(cycled) if table in ("optimizer", "network") else set()
        for key, axis in axes.items():
            if key in switched_off:
                continue
            value = axis.value if isinstance(axis, Fixed) else suggest(f"{branch}.{key}", axis)
            if not isinstance(axis, Fixed):
                params[f"{branch}.{key}"] = value
            if key.startswith("use_") and value is False:
                switched_off.add(key.removeprefix("use_"))
    return params


def branches_of(
    spec: StudySpec, params: Mapping[str, Value]
) -> Iterator[tuple[str, str, dict[str, Dimension]]]:
    """Yields each table of axes with the row of it that a trial trains with, and its axes.

    Last come those that networks have of their own, of the table ``network``. A trial that leaves
    a searched average open, as defaults may, trains without.
    """
    for table, rows in spec.tables().items():
        fixed = getattr(spec.train.average, "value", NO_AVERAGE)
        branch = str(params.get(table, fixed) if table == "average" else params[table])
        yield table, branch, rows.get(branch, {})
    for network, rows in spec.network.items():
        optimizer = str(params["optimizer"])
        yield "network", branch_of(network, optimizer), rows.get(optimizer, {})


def _warms_momentum(params: Mapping[str, Value]) -> bool:
    optimizer, schedule = str(params["optimizer"]), str(params["schedule"])
    return warms_momentum(OPTIMIZERS[optimizer], SCHEDULES[schedule])


def root_axes(spec: StudySpec) -> dict[str, Dimension]:
    """Returns the axes every trial has."""
    return spec.root_axes()


def ran_own_defaults(spec: StudySpec, record: TrialRecord) -> bool:
    """Tells whether a trial ran its optimizer's own defaults, and nothing the study file fixes."""
    if not record.is_default:
        return False
    return decode(spec, record.proposal).optimizer_values == OPTIMIZERS[record.optimizer].decode({})


def known_axes(spec: StudySpec) -> dict[str, Dimension]:
    """Returns every axis of the search space, by the name it is searched under."""
    axes = root_axes(spec)
    for branch, branch_axes in spec.branches().items():
        axes |= {f"{branch}.{key}": axis for key, axis in branch_axes.items()}
    return axes


def default_proposals(spec: StudySpec) -> tuple[Proposal, ...]:
    """Returns the trials a study starts with: each optimizer's own defaults.

    They average nothing, unless the study file leaves no choice, and where it does not allow a
    default they have what it allows nearest. They take at most a third of the budget, but the first
    is always run.
    """
    schedules = spec.space.schedules
    schedule = "constant" if "constant" in schedules else schedules[0]
    params: dict[str, Value] = {"schedule": schedule}
    if isinstance(spec.train.batch_size, Choice):
        params["batch_size"] = spec.train.batch_size.choices[0]
    if isinstance(spec.train.average, Choice):
        averages = spec.train.averages
        params["average"] = NO_AVERAGE if NO_AVERAGE in averages else averages[0]
    room = max(1, spec.budget.trials // 3)
    found = []
    for optimizer in spec.space.optimizers[:room]:
        own = {"optimizer": optimizer, **params}
        own |= {bent.name: bent.value for bent in bent_defaults(spec, own)}
        found.append(Proposal(own, preset=DEFAULT))
    return tuple(found)


def bent_defaults(spec: StudySpec, params: Mapping[str, Value]) -> list[BentDefault]:
    """Returns the defaults that the study file does not allow a trial.

    Args:
        spec: A resolved spec.
        params: The trial's choice of optimizer, schedule and average.
    """
    bent = bend_defaults(spec, {table: branch for table, branch, _ in branches_of(spec, params)})
    if _warms_momentum(params):
        bent += bend_one("momentum_warmup", 0.0, spec.train.momentum_warmup)
    return bent


def decode(spec: StudySpec, proposal: Proposal) -> TrialConfig:
    """Returns what a trial at this point trains with."""
    return Decoder(spec).decode(proposal)


class Decoder:
    """Decodes points of one search space; quicker than :func:`decode` where there are many.

    Args:
        spec: A resolved spec.
    """

    def __init__(self, spec: StudySpec) -> None:
        self._spec = spec
        self._known = known_axes(spec)

    def decode(self, proposal: Proposal) -> TrialConfig:
        """Returns what a trial at this point trains with."""
        spec, params = self._spec, proposal.params
        chosen: dict[str, str] = {}
        points: dict[str, dict[str, Value]] = {}
        for table, branch, axes in branches_of(spec, params):
            if table == "network":
                continue
            chosen[table], prefix = branch, f"{branch}."
            points[table] = {k: axis.value for k, axis in axes.items() if isinstance(axis, Fixed)}
            points[table] |= {
                key.removeprefix(prefix): value
                for key, value in params.items()
                if key.startswith(prefix)
            }
        optimizer, schedule, average = chosen["optimizer"], chosen["schedule"], chosen["average"]
        values = OPTIMIZERS[optimizer].decode(points["optimizer"])
        warmup = float(self._common("momentum_warmup", params))
        return TrialConfig(
            optimizer=optimizer,
            optimizer_values=values,
            networks=_decode_networks(spec, optimizer, params, values),
            schedule=schedule,
            schedule_values=SCHEDULES[schedule].decode(points["schedule"]),
            batch_size=to_batch_size(self._common("batch_size", params)),
            groups=tuple(decode_group(group, params) for group in spec.train.groups),
            own={name: value for name, value in params.items() if name not in self._known},
            average=average,
            average_values=AVERAGES[average].decode(points["average"]),
            momentum_warmup=warmup if _warms_momentum(params) else 0.0,
        )

    def sketch(self, proposal: Proposal) -> Hashable:
        """Returns what tells most configurations apart, for a fraction of what decoding costs.

        That is the optimizer and the first of its hyperparameters: equal where configurations are.
        """
        params = proposal.params
        optimizer = str(params["optimizer"])
        axes, point = self._spec.optimizer.get(optimizer, {}), dict[str, Value]()
        knobs = OPTIMIZERS[optimizer].hyperparameters[:1]
        for knob in knobs:
            for key in (*knob.keys, knob.switch_name):
                axis, name = axes.get(key), f"{optimizer}.{key}"
                if name in params:
                    point[key] = params[name]
                elif isinstance(axis, Fixed):
                    point[key] = axis.value
        return optimizer, *(knob.decode(point) for knob in knobs)

    def _common(self, name: str, params: Mapping[str, Value]) -> Value:
        """Returns a value of the [train] table, which every trial has."""
        axis: Dimension = getattr(self._spec.train, name)
        return axis.value if isinstance(axis, Fixed) else params.get(name, 0)


def _decode_networks(
    spec: StudySpec, optimizer: str, params: Mapping[str, Value], shared: dict[str, Value]
) -> dict[str, dict[str, Value]]:
    """Returns what each network's optimizer has of its own, of those that have anything."""
    found = {}
    for network, rows in spec.network.items():
        prefix = f"{branch_of(network, optimizer)}."
        point = {k.removeprefix(prefix): v for k, v in params.items() if k.startswith(prefix)}
        knobs = OPTIMIZERS[optimizer].hyperparameters
        found[network] = decode_network(knobs, rows.get(optimizer, {}), point, shared)
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
