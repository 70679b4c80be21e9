"""A warm start: a study keeps in its spec the best of an earlier one, from its creation on."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field, model_validator

from tuner.domain.catalog.dimensions import Axis, Dimension, Finite, Frozen, Option, Value, holds
from tuner.domain.catalog.hyperparameters import LogNormalPrior

AUTO = "auto"
"""The value of ``search.warm_start`` that takes whichever earlier study of the database fits."""

OFF = "off"
"""The value of ``search.warm_start`` that takes none."""

_MOST = 16
"""Openings that a spec may hold: many times what is ever written."""


class OwnValue(Frozen):
    """The value of a hyperparameter that a training loop asked for itself.

    Attributes:
        value: Its value.
        axis: The axis that it was asked for on; on another one, the value means nothing.
    """

    value: Option | None = None
    axis: Axis

    @model_validator(mode="after")
    def _check_value(self) -> OwnValue:
        if not holds(self.axis, self.value):
            raise ValueError(f"{self.value!r} is not in {self.axis.describe()}")
        return self


class Opening(Frozen):
    """A configuration of an earlier study, as a point of the space of the one that starts with it.

    Attributes:
        params: Values by the name of the parameter.
        own: The values of the training loop's own hyperparameters, by name.
    """

    params: dict[str, Value]
    own: dict[str, OwnValue] = Field(default_factory=dict)


class Prior(Frozen):
    """A :class:`LogNormalPrior` as a spec keeps it.

    Attributes:
        mean: Mean of log10(value).
        std: Standard deviation of log10(value).
    """

    mean: Finite
    std: Finite = Field(gt=0)

    def build(self) -> LogNormalPrior:
        """Returns the belief."""
        return LogNormalPrior(self.mean, self.std)


class WarmStart(Frozen):
    """Keeps the best of an earlier study, so that a study needs that one no longer.

    Attributes:
        study: The name of the earlier study.
        trials: The number of its complete trials.
        value: The best of their values.
        best: The same in words, since the earlier study may rank by another objective.
        rescaled: The factor by which learning rates were taken over, 1 for as they were.
        openings: Its best configurations, fitted to the space of this study, in order.
        priors: Beliefs about good learning rates, by parameter, in place of the catalog's.
    """

    study: str = Field(max_length=512)
    trials: int = Field(ge=1)
    value: Finite
    best: str = Field(default="", max_length=100)
    rescaled: Finite = Field(default=1.0, gt=0)
    openings: tuple[Opening, ...] = Field(default=(), max_length=_MOST, strict=False)
    priors: dict[str, Prior] = Field(default_factory=dict)

    def check(self, axes: Mapping[str, Dimension]) -> None:
        """Checks that every opening lies in a search space.

        Args:
            axes: The axes of the space, by name.

        Raises:
            ValueError: With the first value that does not.
        """
        for opening in self.openings:
            check_point(opening.params, axes, "an opening of warm_start")


def check_point(params: Mapping[str, Value], axes: Mapping[str, Dimension], what: str) -> None:
    """Checks that a point lies in a search space, and says its optimizer and schedule.

    Args:
        params: Its values by the name of the parameter.
        axes: The axes of the space, by name.
        what: What the point is, for the error.

    Raises:
        ValueError: With the first value that does not.
    """
    for name in ("optimizer", "schedule"):
        if name not in params:
            raise ValueError(f"{what} names no {name}")
    for name, value in params.items():
        axis = axes.get(name)
        if axis is None or not holds(axis, value):
            shown = "not searched" if axis is None else f"searched in {axis.describe()}"
            raise ValueError(f"{what} has {name} = {value!r}: {shown}")
