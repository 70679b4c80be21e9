"""The first trials of a study: configurations that did well before, here or on other workloads.

``portfolio.toml`` beside this file lists them, in the order in which each adds most to those
before it. ``python -m benchmarks.search learn`` writes it from the tables that it trains.
``finetuning.toml`` lists those for models that arrive with trained weights, from publications.
"""

from __future__ import annotations

import functools
import itertools
import tomllib
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from tuner.domain.catalog.averages import NO_AVERAGE
from tuner.domain.catalog.dimensions import Choice, Value, nearest
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.tables import TABLES
from tuner.domain.networks import branch_of
from tuner.domain.regimes import FINETUNE, SCRATCH, Regime
from tuner.domain.space import walk
from tuner.domain.spec import StudySpec
from tuner.domain.train import FULL, MOMENTUM_WARMUP
from tuner.domain.trials import PORTFOLIO, WARM_START, Proposal

Entry = Mapping[str, Any]

_KIN = ("linear", "cosine", "stable_decay", "polynomial", "exponential", "step", "multistep")
"""Schedules that lower the rate towards the end; where an entry's is not searched, the first of
these that is takes its place."""


def choose_openings(spec: StudySpec, entries: Sequence[Entry]) -> list[Proposal]:
    """Returns the trials a study starts with: those of an earlier study and a portfolio's in turn.

    So an earlier study that misleads takes no more than every other of them. Of openings that agree
    the first stays. At most a third of the budget's trials are openings.

    Args:
        spec: The resolved spec.
        entries: The portfolio.
    """
    taken = () if spec.warm_start is None else spec.warm_start.openings
    warm = [Proposal(fit_entry(spec, one.params, one.params), WARM_START) for one in taken]
    known = [opening.params for opening in warm]
    points = [point for point in fit_portfolio(spec, entries) if point not in known]
    others = [Proposal(point, PORTFOLIO) for point in points]
    turns = itertools.chain.from_iterable(itertools.zip_longest(warm, others))
    chosen: list[Proposal] = []
    for opening in turns:
        if opening is not None and all(opening.params != other.params for other in chosen):
            chosen.append(opening)
    return chosen[: spec.budget.trials // 3]


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
def load_portfolio(regime: Regime = SCRATCH) -> tuple[Entry, ...]:
    """Returns the entries: optimizer, schedule, and each one's hyperparameters as a table.

    Args:
        regime: Where the weights of a study's models come from.
    """
    file = resources.files("tuner.search").joinpath(_FILES[regime])
    return tuple(tomllib.loads(file.read_text(encoding="utf-8"))["entry"])


_FILES: dict[Regime, str] = {SCRATCH: "portfolio.toml", FINETUNE: "finetuning.toml"}


def fit_entry(
    spec: StudySpec, entry: Entry, beside: Mapping[str, Value] | None = None
) -> dict[str, Value]:
    """Returns the point of a search space that comes nearest to an entry.

    Args:
        spec: The resolved spec.
        entry: An entry whose optimizer competes.
        beside: Values of what entries say nothing of, such as the batch size, by the name searched;
            left out, the usual ones.
    """
    optimizer, wanted = entry["optimizer"], entry["schedule"]
    schedule = next(s for s in (wanted, *_KIN, *spec.space.schedules) if s in spec.space.schedules)
    own = {one.name: one.default for one in OPTIMIZERS[optimizer].hyperparameters}
    own |= entry.get(optimizer, {})
    values = _beside(spec, optimizer, own)
    values |= _searched("schedule", schedule, entry.get(schedule, {}))
    values |= _searched("optimizer", optimizer, own)
    for network in spec.network:
        values |= encode_network(network, optimizer, own)
    values |= beside or {}
    values |= {"optimizer": optimizer, "schedule": schedule}
    return walk(spec, lambda name, axis: nearest(axis, values[name]))


def encode_network(network: str, optimizer: str, own: Mapping[str, Value]) -> dict[str, Value]:
    """Returns an optimizer's hyperparameters under every name that a network searches them by.

    Args:
        network: The network's name.
        optimizer: The optimizer.
        own: Values by hyperparameter, in torch's form.
    """
    return _searched("optimizer", optimizer, own, branch_of(network, optimizer))


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
