"""The axes that a study file sets for a row, checked against the row's hyperparameters."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.domain.catalog.dimensions import Dimension
from tuner.domain.catalog.hyperparameters import Hyperparameter, fit_switch
from tuner.domain.names import suggest


def own_axes(hyperparameter: Hyperparameter, axes: Mapping[str, Dimension]) -> dict[str, Dimension]:
    """Returns the axes of a hyperparameter that a study file sets, by the name searched."""
    own = {key: axes[key] for key in hyperparameter.axis_names if key in axes}
    if own.keys() == {hyperparameter.switch_name}:
        own[hyperparameter.search_name] = hyperparameter.dimension
    return own


def fit_axes(
    where: str, axes: Mapping[str, Dimension], hyperparameters: tuple[Hyperparameter, ...]
) -> dict[str, Dimension]:
    """Returns axes as a study file sets them, checked.

    Args:
        where: The table they stand in, for messages.
        axes: The axes by name.
        hyperparameters: The hyperparameters of the row.

    Raises:
        ValueError: If a name is unknown, or a value is not one of its hyperparameter.
    """
    known = {key: one for one in hyperparameters for key in one.keys}
    switches = {one.switch_name for one in hyperparameters if one.switch}
    fitted: dict[str, Dimension] = {}
    for key, axis in axes.items():
        if key not in known and key not in switches:
            raise ValueError(f"{where} has no {key!r}: {suggest(key, [*known, *switches])}")
        try:
            fitted[key] = known[key].fit(key, axis) if key in known else fit_switch(axis)
        except ValueError as error:
            raise ValueError(f"{where}.{key}: {error}") from None
    for one in hyperparameters:
        if one.complement and set(one.keys) <= axes.keys():
            raise ValueError(f"{where}: give {one.name} or {one.search_name}, not both")
    return fitted
