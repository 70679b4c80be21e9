"""Hyperparameters that many optimizers have, each with its own default, range and source."""

from __future__ import annotations

from dataclasses import replace

from tuner.domain.catalog.dimensions import Float
from tuner.domain.catalog.hyperparameters import (
    BELOW_ONE,
    BETWEEN,
    FINE,
    LR,
    NOT_NEGATIVE,
    POSITIVE,
    Hyperparameter,
    LogNormalPrior,
)


def log_range(low: float, high: float) -> Float:
    """Returns an axis that is searched by the logarithm of its values."""
    return Float(low=low, high=high, log=True)


def rate(
    default: float,
    low: float,
    high: float,
    source: str = "J",
    prior: LogNormalPrior | None = None,
) -> Hyperparameter:
    """Returns a learning rate, which every search includes."""
    return Hyperparameter(
        "lr", default, log_range(low, high), source, LR, bounds=POSITIVE, prior=prior
    )


def below_one(
    name: str, default: float, low: float, high: float, source: str, breadth: int
) -> Hyperparameter:
    """Returns a momentum, or another number of which the distance from 1 is searched.

    Args:
        name: Its name.
        default: Its default, in [0, 1).
        low: Its smallest distance from 1.
        high: Its largest distance from 1.
        source: Where the range comes from.
        breadth: The smallest breadth of search that includes it.
    """
    axis = log_range(low, high)
    return Hyperparameter(name, default, axis, source, breadth, bounds=BELOW_ONE, complement=True)


def inside_one(
    name: str, default: float, low: float, high: float, breadth: int = FINE
) -> Hyperparameter:
    """Returns as :func:`below_one` does one that cannot be 0, by our judgement."""
    return replace(below_one(name, default, low, high, "J", breadth), bounds=BETWEEN)


def weight_decay(
    default: float, low: float, high: float, source: str = "J", breadth: int = FINE
) -> Hyperparameter:
    """Returns a weight decay; where there is none by default, none is a choice of its own."""
    return Hyperparameter(
        "weight_decay",
        default,
        log_range(low, high),
        source,
        breadth,
        bounds=NOT_NEGATIVE,
        switch=default == 0,
    )
