"""The first trials of a study: configurations that did well on many other workloads.

``portfolio.toml`` beside this file lists them, in the order in which each adds most to those
before it. ``python -m benchmarks.search learn`` writes it from the tables that it trains.
"""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from tuner.domain.catalog.averages import NO_AVERAGE
from tuner.domain.catalog.dimensions import Choice, Value, nearest
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.tables import TABLES
from tuner.domain.networks import branch_of
from tuner.domain.space import walk
from tuner.domain.spec import StudySpec
from tuner.domain.train import FULL, MOMENTUM_WARMUP

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
    optimizer, wanted = entry["optimizer"], entry["schedule"]
    schedule = next(s for s in (wanted, *_KIN, *spec.space.schedules) if s in spec.space.schedules)
    own = {one.name: one.default for one in OPTIMIZERS[optimizer].hyperparameters}
    own |= entry.get(optimizer, {})
    values = {"optimizer": optimizer, "schedule": schedule, **_beside(spec, optimizer, own)}
    values |= _searched("schedule", schedule, entry.get(schedule, {}))
    values |= _searched("optimizer", optimizer, own)
    for network in spec.network:
        values |= _searched("optimizer", optimizer, own, branch_of(network, optimizer))
    return walk(spec, lambda name, axis: nearest(axis, values[name]))


def _searched(
    table: str, row: str, own: Mapping[str, Value], prefix: str | None = None
) -> dict[str, Value]:
    """Returns a row's hyperparameters under every name that they may be searched by.

    Args:
        table: The row's table.
        row: The row's name.
        own: Values by hyperparameter; one that is left out has its default.
        prefix: What the names begin with; left out, the row's name.
    """
    prefix = prefix or row
    found: dict[str, Value] = {}
    for one in TABLES[table][row].hyperparameters:
        value = own.get(one.name, one.default)
        found |= {f"{prefix}.{key}": one.encode(key, value) for key in one.keys}
        if one.switch:
            found[f"{prefix}.{one.switch_name}"] = value != 0
    return found


def _beside(spec: StudySpec, optimizer: str, own: Mapping[str, Value]) -> dict[str, Value]:
    """Returns values for what entries say nothing of, such as the batch size.

    A trial averages nothing if it may, and warms no momentum up. Parameter groups train as the
    rest, as far as the study file lets them.

    Args:
        spec: The resolved spec.
        optimizer: The entry's optimizer.
        own: The values of its hyperparameters.
    """
    sizes = spec.train.batch_size
    found: dict[str, Value] = {
        "batch_size": sizes.choices[0] if isinstance(sizes, Choice) else FULL,
        "average": NO_AVERAGE,
        MOMENTUM_WARMUP: 0.0,
    }
    for average in spec.train.averages:
        found |= _searched("average", average, {})
    momenta = (own[one.name] for one in OPTIMIZERS[optimizer].hyperparameters if one.is_momentum)
    alike = {
        "lr_multiplier": 1.0,
        "weight_decay": own.get("weight_decay", 0.0),
        "momentum": next(momenta, 0.0),
    }
    for group in spec.train.groups:
        found |= {f"{group.prefix}.{key}": value for key, value in alike.items()}
    return found
