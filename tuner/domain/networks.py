"""Networks of a training loop with ranges of their own: the ``[network.NAME.OPTIMIZER]`` tables."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated

from pydantic import StringConstraints

from tuner.domain.axes import fit_axes, own_axes
from tuner.domain.catalog.dimensions import Axis, Choice, Dimension, Value, nearest
from tuner.domain.catalog.hyperparameters import Hyperparameter
from tuner.domain.catalog.optimizers import OPTIMIZERS

NetworkName = Annotated[str, StringConstraints(pattern=r"^[A-Za-z_]\w*$", max_length=60)]
"""The name that a loop gives a network, in ``run.optimizer(model, name=...)``."""

Networks = dict[NetworkName, dict[str, dict[str, Axis]]]
"""Axes by network, optimizer and hyperparameter."""


def branch_of(network: str, optimizer: str) -> str:
    """Returns the prefix of the names that the axes of a network are searched under."""
    return f"network.{network}.{optimizer}"


def resolve_networks(networks: Networks) -> Networks:
    """Returns the axes of networks by the names searched, checked, and no more than they are."""
    resolved: Networks = {}
    for network, tables in networks.items():
        resolved[network] = {}
        for name, axes in tables.items():
            hyperparameters = OPTIMIZERS[name].hyperparameters
            fitted = fit_axes(f"network.{network}.{name}", axes, hyperparameters)
            own = (own_axes(hyperparameter, fitted).items() for hyperparameter in hyperparameters)
            resolved[network][name] = {key: axis for axes in own for key, axis in axes}
    return resolved


def decode_network(
    hyperparameters: Iterable[Hyperparameter],
    axes: Mapping[str, Dimension],
    point: Mapping[str, Value],
    shared: Mapping[str, Value],
) -> dict[str, Value]:
    """Returns the hyperparameters that a network has of its own, in torch's form.

    Args:
        hyperparameters: Those of the optimizer.
        axes: The network's axes, by the name searched.
        point: The values that a trial has on them, fixed ones included; where it drew none, as
            trials of defaults do, the shared value holds, or the nearest in the network's range.
        shared: The values that all networks share, in torch's form.
    """
    values: dict[str, Value] = {}
    for hyperparameter in hyperparameters:
        own = {key: axes[key] for key in hyperparameter.axis_names if key in axes}
        if not own:
            continue
        drawn = {key: point[key] for key in own if key in point}
        if not drawn:
            drawn = _nearest(hyperparameter, own, shared[hyperparameter.name])
        values[hyperparameter.name] = hyperparameter.decode(drawn)
    return values


def _nearest(
    hyperparameter: Hyperparameter, axes: Mapping[str, Dimension], value: Value
) -> dict[str, Value]:
    """Returns the point of a hyperparameter's axes that is nearest to a value in torch's form."""
    switch = axes.get(hyperparameter.switch_name)
    if isinstance(switch, Choice) and not value and False in switch.choices:
        return {hyperparameter.switch_name: False}
    key = next(key for key in reversed(hyperparameter.keys) if key in axes)
    return {key: nearest(axes[key], hyperparameter.encode(key, value))}
