"""Learns from tables what a study may know beforehand: a portfolio of first trials, and priors."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

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

PORTFOLIO = 10
"""Entries of a portfolio."""

_NEAR_ONE = 0.8

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

    Args:
        tables: The tables to learn from.
        size: The number of configurations.
    """
    places, weights = _places(tables)
    points = tables[0].points[:DRAWN]
    allowed = np.array([_is_searched(point) for point in points])
    covered = np.zeros(len(places))  # the logarithm of the worst place, 1
    chosen: list[Params] = []
    for _ in range(size):
        gains = weights @ np.minimum(covered[:, None], places)
        gains[~allowed] = math.inf
        best = int(gains.argmin())
        covered = np.minimum(covered, places[:, best])
        chosen.append(points[best])
    return chosen


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
    """Returns where the good values of each searched number lie, by name such as ``adam.lr``.

    Good are the best fiftieth of an optimizer's evenly drawn configurations, workload by workload.
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
                        if isinstance(value, float) and value > 0:
                            found.setdefault(name, []).append(math.log10(value))
    return {
        name: LogNormalPrior(round(float(np.mean(v)), 2), max(0.1, round(float(np.std(v)), 2)))
        for name, v in found.items()
    }


def learn(tables: Sequence[Table], size: int = PORTFOLIO) -> Knowledge:
    """Returns what the tables teach a study."""
    portfolio = [to_entry(point) for point in choose_portfolio(tables, size)]
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
    """Returns the searched values; of those near 1 their distance from it has three digits."""
    return {
        name: float(f"{value:.3g}") if value < _NEAR_ONE else 1 - float(f"{1 - value:.3g}")
        for name, value in values.items()
        if name in searched and isinstance(value, float)
    }


def write_portfolio(entries: Sequence[Entry], path: Path, origin: str) -> None:
    """Writes a portfolio as the file that ships with tuner.

    Args:
        entries: The entries.
        path: The file.
        origin: How they were found, a comment.
    """
    lines = [f"# {line}" for line in origin.splitlines()]
    for entry in entries:
        lines += ["", "[[entry]]"]
        for key, value in entry.items():
            shown = f'"{value}"' if isinstance(value, str) else _inline(value)
            lines.append(f"{key} = {shown}")
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")


def _inline(values: Mapping[str, Value]) -> str:
    inner = ", ".join(f"{name} = {value!r}" for name, value in values.items())
    return "{ " + inner + " }"
