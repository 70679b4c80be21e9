"""Learns from tables what a study may know beforehand: a portfolio of first trials, and priors."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Mapping, Sequence

import numpy as np
import numpy.typing as npt

from benchmarks.search.spaces import present_space, whole_space
from benchmarks.search.tables import DRAWN, STUDY_LENGTHS, Table
from benchmarks.search.training import Params
from benchmarks.search.workloads import WORKLOADS
from tuner.domain.catalog.dimensions import Value
from tuner.domain.catalog.hyperparameters import LogNormalPrior
from tuner.domain.trials import Decoder, Proposal
from tuner.search.knowledge import Knowledge
from tuner.search.portfolio import Entry

Matrix = npt.NDArray[np.float64]

PORTFOLIO = 8
"""Entries of a portfolio that cover workloads; optimizers that are not among them are added."""

PUBLISHED: Entry = {
    "optimizer": "adamw",
    "schedule": "cosine",
    "adamw": {"lr": 0.001, "beta1": 0.9, "weight_decay": 0.1},
    "cosine": {"warmup": 0.05, "final_ratio": 0.1},
}
"""The usual choice for large models, which no table here holds: rates near 1e-3 were the best of
124M-parameter Llamas (the lr-scheduling data of ../shared/data/curves)."""

_NEAR_ONE = 0.8

_PLACE = 4

_PUBLISHED_MEANS = {
    "sgd.lr": -2.1,
    "momentum.lr": -2.38,
    "nesterov.lr": -2.38,
    "adagrad.lr": -2.0,
    "rmsprop.lr": -2.7,
    "adam.lr": -2.7,
    "adamw.lr": -2.7,
    "muon.lr": -1.7,
    "muon.adamw_lr": -2.7,
}
"""Means of log10 of good rates, by Sivaprasad et al. (ICML 2020), where they have the optimizer; of
rmsprop, adamw and the one beside muon adam's; of muon its author's 0.02."""

_WIDTH = 0.7

_TOP = 0.02
"""The share of a table's evenly drawn configurations that priors are fitted to."""


def tables_without(family: str | None, tables: Sequence[Table]) -> list[Table]:
    """Returns the tables of all families but one."""
    return [table for table in tables if WORKLOADS[table.workload].family != family]


def choose_portfolio(tables: Sequence[Table], size: int) -> list[Params]:
    """Returns the configurations that cover workloads best, each adding most to those before it.

    A workload at a length is covered as well as the best of the chosen configurations is placed
    among all of its own. The mean of the logarithms of places is what each choice makes smallest,
    every family of workloads counting the same (greedy cover, as in auto-sklearn 2.0, Feurer et
    al., JMLR 2022, algorithm 1).

    Optimizers that are not among them then get one each, the best placed on average, so that a
    study has seen every one.

    Args:
        tables: The tables to learn from.
        size: The number of configurations before that.
    """
    places, weights = _places(tables)
    points = tables[0].points[:DRAWN]
    searched = np.array([_is_searched(point) for point in points])
    owners = np.array([point["optimizer"] for point in points])
    covered = np.zeros(len(places))  # the logarithm of the worst place, 1
    chosen: list[int] = []
    for _ in range(size):
        costs = weights @ np.minimum(covered[:, None], places)
        chosen.append(int(np.where(searched, costs, math.inf).argmin()))
        covered = np.minimum(covered, places[:, chosen[-1]])
    for optimizer in present_space().space.optimizers:
        if optimizer not in owners[chosen]:
            own = searched & (owners == optimizer)
            chosen.append(int(np.where(own, weights @ places, math.inf).argmin()))
    return [points[place] for place in chosen]


def _is_searched(point: Params) -> bool:
    """Tells whether the present space has a configuration's schedule."""
    return point["schedule"] in present_space().space.schedules


def _places(tables: Sequence[Table]) -> tuple[Matrix, Matrix]:
    """Returns the log places of configurations, by workload and length, and the rows' weights."""
    rows, families = [], []
    for table in tables:
        for steps in STUDY_LENGTHS:
            costs = table.costs(steps)[:DRAWN]
            order = costs.argsort(kind="stable").argsort(kind="stable")
            rows.append(np.log((order + 1) / len(costs)))
            families.append(WORKLOADS[table.workload].family)
    weights = np.array([1 / families.count(family) for family in families])
    return np.array(rows), weights / weights.sum()


def learn_priors(tables: Sequence[Table]) -> dict[str, LogNormalPrior]:
    """Returns where the good learning rates of each optimizer lie, by name such as ``adam.lr``.

    Good are the best fiftieth of an optimizer's evenly drawn configurations, workload by workload.
    These workloads are small, and larger models want lower rates: so each mean is moved half the
    way to the published one, and no prior is narrower than _WIDTH.
    """
    found: dict[str, list[float]] = {}
    for table in tables:
        for steps in STUDY_LENGTHS:
            costs = table.costs(steps)[:DRAWN]
            for optimizer in present_space().space.optimizers:
                own = [i for i in range(DRAWN) if table.points[i]["optimizer"] == optimizer]
                own.sort(key=lambda i: costs[i])
                for place in own[: max(3, round(_TOP * len(own)))]:
                    for name, value in table.points[place].items():
                        if name in _PUBLISHED_MEANS and isinstance(value, float):
                            found.setdefault(name, []).append(math.log10(value))
    return {
        name: LogNormalPrior(
            round((statistics.mean(found[name]) + mean) / 2, 2),
            round(max(statistics.pstdev(found[name]), _WIDTH), 2),
        )
        for name, mean in _PUBLISHED_MEANS.items()
    }


def learn(tables: Sequence[Table], size: int = PORTFOLIO) -> Knowledge:
    """Returns what the tables teach a study."""
    portfolio = [to_entry(point) for point in choose_portfolio(tables, size)]
    portfolio.insert(_PLACE, PUBLISHED)
    return Knowledge(portfolio, learn_priors(tables))


def to_entry(point: Params) -> Entry:
    """Returns a configuration as an entry of a portfolio: torch's values, to three digits."""
    config = Decoder(whole_space()).decode(Proposal(dict(point)))
    searched = {name.split(".", 1)[1].removeprefix("one_minus_") for name in point if "." in name}
    return {
        "optimizer": config.optimizer,
        "schedule": config.schedule,
        config.optimizer: _rounded(config.optimizer_values, searched),
        config.schedule: _rounded(config.schedule_values, searched | {"final_ratio"}),
    }


def _rounded(values: Mapping[str, Value], searched: Collection[str]) -> dict[str, Value]:
    """Returns the searched values to three digits, those near 1 to four places."""
    return {
        name: float(f"{value:.3g}") if value < _NEAR_ONE else round(value, 4)
        for name, value in values.items()
        if name in searched and isinstance(value, float)
    }


def to_lines(entries: Sequence[Entry], origin: str) -> str:
    """Returns a portfolio as the file that ships with tuner.

    Args:
        entries: The entries.
        origin: How they were found, a comment.
    """
    lines = [f"# {line}" for line in origin.splitlines()]
    for entry in entries:
        lines += ["", "[[entry]]"]
        for key, value in entry.items():
            shown = f'"{value}"' if isinstance(value, str) else _inline(value)
            lines.append(f"{key} = {shown}")
    return "\n".join(lines) + "\n"


def _inline(values: Mapping[str, Value]) -> str:
    inner = ", ".join(f"{name} = {value!r}" for name, value in values.items())
    return "{ " + inner + " }"
