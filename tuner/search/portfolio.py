"""The first trials of a study: configurations that did well on many other workloads.

``portfolio.toml`` beside this file lists them, in the order in which each adds most to those
before it. ``python -m benchmarks.search portfolio`` writes it from the tables that it trains.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Value, nearest
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.tables import TABLES
from tuner.domain.space import walk
from tuner.domain.spec import StudySpec

Entry = Mapping[str, Any]

_KIN = ("linear", "cosine", "stable_decay", "polynomial", "exponential", "step", "multistep")
"""Schedules that lower the rate towards the end; where an entry's is not searched, the first of
these that is takes its place."""


def fit_portfolio(spec: StudySpec, entries: Sequence[Entry]) -> list[dict[str, Value]]:
    """Returns entries of a portfolio as points of a study's search space, in their order.

    An entry whose optimizer does not compete is left out. Where the study searches other schedules
    or narrower ranges, the nearest value stands in, and of entries that then agree the first stays.
    At most a third of the budget's trials come from the portfolio.

    Args:
        spec: The resolved spec.
        entries: The portfolio.
    """
    points: list[dict[str, Value]] = []
    for entry in entries:
        if entry["optimizer"] in spec.space.optimizers:
            point = fit_entry(spec, entry)
            if point not in points:
                points.append(point)
    return points[: spec.budget.trials // 3]


@functools.cache
def load_portfolio() -> tuple[Entry, ...]:
    """Returns the entries: optimizer, schedule, and each one's hyperparameters as a table."""
    text = resources.files("tuner.search").joinpath("portfolio.toml").read_text(encoding="utf-8")
    return tuple(tomllib.loads(text)["entry"])


def fit_entry(spec: StudySpec, entry: Entry) -> dict[str, Value]:
    """Returns the point of a search space that comes nearest to an entry.

    Args:
        spec: The resolved spec.
        entry: An entry whose optimizer competes.
    """
    optimizer = entry["optimizer"]
    wanted = entry["schedule"]
    schedule = next(s for s in (wanted, *_KIN, *spec.space.schedules) if s in spec.space.schedules)
    values = {"optimizer": optimizer, "schedule": schedule}
    values |= _searched(optimizer, entry[optimizer])
    values |= _searched(schedule, entry[wanted] if schedule == wanted else {})

    def suggest(name: str, axis: Dimension) -> Value:
        return nearest(axis, values[name]) if name in values else _middle(axis)

    return walk(spec, suggest)


def _searched(row: str, own: Mapping[str, Value]) -> dict[str, Value]:
    """Returns a row's hyperparameters under every name that they may be searched by.

    Those that are left out of an entry have their defaults.
    """
    table = "optimizer" if row in OPTIMIZERS else "schedule"
    found: dict[str, Value] = {}
    for one in TABLES[table][row].hyperparameters:
        value = own.get(one.name, one.default)
        found |= {f"{row}.{key}": one.encode(key, value) for key in one.keys}
        if one.switch:
            found[f"{row}.{one.switch_name}"] = value != 0
    return found


def _middle(axis: Dimension) -> Value:
    """Returns a value for an axis that entries say nothing of."""
    match axis:
        case Fixed():
            return axis.value
        case Choice():
            return axis.choices[0]
        case _:
            middle = (axis.low * axis.high) ** 0.5 if axis.log else (axis.low + axis.high) / 2
            return nearest(axis, type(axis.low)(middle))
