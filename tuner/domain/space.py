"""The search space of a study: its axes by name, and the axes that one trial has."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from tuner.domain.catalog.averages import NO_AVERAGE
from tuner.domain.catalog.dimensions import Dimension, Fixed, Value
from tuner.domain.catalog.hyperparameters import Hyperparameter
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.domain.catalog.tables import TABLES
from tuner.domain.networks import branch_of
from tuner.domain.samplers import sampler_row
from tuner.domain.spec import StudySpec
from tuner.domain.train import MOMENTUM_WARMUP


@dataclass(frozen=True)
class Branch:
    """A row of the catalog that a trial trains with, and the axes that the study has for it.

    Attributes:
        table: The row's table: ``optimizer``, ``schedule`` or ``average``.
        row: The row's name.
        axes: The axes by name.
        network: The network of a training loop that these axes are for, or None for all networks.
    """

    table: str
    row: str
    axes: Mapping[str, Dimension]
    network: str | None = None

    @property
    def hyperparameters(self) -> tuple[Hyperparameter, ...]:
        """The hyperparameters of its row."""
        return TABLES[self.table][self.row].hyperparameters

    def param(self, key: str) -> str:
        """Returns the name of the parameter that is searched on an axis, such as ``adam.lr``."""
        prefix = self.row if self.network is None else branch_of(self.network, self.row)
        return f"{prefix}.{key}"

    def point(self, params: Mapping[str, Value]) -> dict[str, Value]:
        """Returns the values of its hyperparameters as they are searched, fixed ones included.

        Args:
            params: A trial's parameters by name; those of other branches are passed over.
        """
        found = {key: axis.value for key, axis in self.axes.items() if isinstance(axis, Fixed)}
        for hyperparameter in self.hyperparameters:
            for key in hyperparameter.axis_names:
                if (name := self.param(key)) in params:
                    found[key] = params[name]
        return found


def branches_of(spec: StudySpec, params: Mapping[str, Value]) -> Iterator[Branch]:
    """Yields the rows that a trial trains with, one of each table, then those of networks.

    Args:
        spec: A resolved spec.
        params: The trial's choice of rows; one that leaves a searched average open, as defaults
            may, trains without an average.
    """
    for table, rows in spec.tables().items():
        fixed = getattr(spec.train.average, "value", NO_AVERAGE)
        row = str(params.get(table, fixed) if table == "average" else params[table])
        yield Branch(table, row, rows.get(row, {}))
    optimizer = str(params["optimizer"])
    for network, rows in spec.network.items():
        yield Branch("optimizer", optimizer, rows.get(optimizer, {}), network)


def walk(spec: StudySpec, suggest: Callable[[str, Dimension], Value]) -> dict[str, Value]:
    """Draws one point of the search space, following its conditions.

    Args:
        spec: A resolved spec.
        suggest: Returns a value for a parameter's name and its axis.

    Returns:
        The values of the searched parameters, by name.
    """
    # A sampler of one space for all trials draws a parameter even where it has no effect.
    joint = sampler_row(spec.search.sampler).joint
    params: dict[str, Value] = {}
    for name, axis in spec.root_axes().items():
        if name != MOMENTUM_WARMUP or joint or warms_momentum(params):
            params[name] = suggest(name, axis)
    cycles = not joint and _cycles_momentum(params)
    for branch in branches_of(spec, params):
        absent = _momenta(branch) if cycles else set[str]()
        switched = {one.switch_name: one.keys for one in branch.hyperparameters}
        for key, axis in branch.axes.items():
            if key in absent:
                continue
            value = axis.value if isinstance(axis, Fixed) else suggest(branch.param(key), axis)
            if not isinstance(axis, Fixed):
                params[branch.param(key)] = value
            if value is False:
                absent.update(switched.get(key, ()))
    return params


def warms_momentum(params: Mapping[str, Value]) -> bool:
    """Tells whether a trial has a momentum to warm up that its schedule leaves alone.

    Args:
        params: The trial's choice of optimizer and schedule.
    """
    optimizer, schedule = OPTIMIZERS[str(params["optimizer"])], SCHEDULES[str(params["schedule"])]
    return optimizer.has_momentum and not schedule.cycles_momentum


def _cycles_momentum(params: Mapping[str, Value]) -> bool:
    """Tells whether a trial's schedule sets its momentum, so that none is searched."""
    optimizer, schedule = OPTIMIZERS[str(params["optimizer"])], SCHEDULES[str(params["schedule"])]
    return optimizer.has_momentum and schedule.cycles_momentum


def _momenta(branch: Branch) -> set[str]:
    """Returns the keys of a row's momentum, if it has one."""
    return {key for one in branch.hyperparameters if one.is_momentum for key in one.keys}
