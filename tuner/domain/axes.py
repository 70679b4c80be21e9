"""The axes of a table that a study file sets, checked against the hyperparameters they are of."""

from __future__ import annotations

from collections.abc import Mapping

from tuner.domain.catalog.dimensions import Dimension
from tuner.domain.catalog.hyperparameters import Hyperparameter, fit_switch
from tuner.domain.names import suggest


def own_axes(knob: Hyperparameter, axes: Mapping[str, Dimension]) -> dict[str, Dimension]:
    """Returns the axes of a hyperparameter that a study file sets, by the name searched."""
    # The switch comes first: a draw looks at it before the value behind it.
    keys = (knob.switch_name, *knob.keys)
    own = {key: axes[key] for key in keys if key in axes}
    if own.keys() == {knob.switch_name}:
        own[knob.search_name] = knob.dimension
    return own


def fit_axes(
    where: str, axes: Mapping[str, Dimension], knobs: tuple[Hyperparameter, ...]
) -> dict[str, Dimension]:
    """Returns axes as a study file sets them, checked.

    Args:
        where: The table they stand in, for messages.
        axes: The axes by name.
        knobs: The hyperparameters there are.

    Raises:
        ValueError: If a name is unknown, or a value is not one of its hyperparameter.
    """
    known = {key: knob for knob in knobs for key in knob.keys}
    switches = {knob.switch_name for knob in knobs if knob.switch}
    fitted: dict[str, Dimension] = {}
    for key, axis in axes.items():
        if key not in known and key not in switches:
            raise ValueError(f"{where} has no {key!r}: {suggest(key, [*known, *switches])}")
        try:
            fitted[key] = known[key].fit(key, axis) if key in known else fit_switch(axis)
        except ValueError as error:
            raise ValueError(f"{where}.{key}: {error}") from None
    for knob in knobs:
        if knob.complement and set(knob.keys) <= axes.keys():
            raise ValueError(f"{where}: give {knob.name} or {knob.search_name}, not both")
    return fitted
