"""What published runs say about knowing beforehand: portfolios, rates, and optimizers."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search.published.sets import CurveSet, Matrix
from benchmarks.search.spaces import present_space
from tuner.domain.catalog.dimensions import Float

_CELLS = ("GRU", "IRNN", "LSTM", "VRNN")
_AXES = {"sgd-m": "momentum.lr"}


def family_of(task: str) -> str:
    """Returns the kind of cell of a task of TaskSet's.

    >>> family_of("patch32_VRNN64_relu_avg_bs128")
    'VRNN'
    """
    return next(cell for cell in _CELLS if cell in task)


def cover(places: Matrix, size: int) -> list[int]:
    """Returns the configurations that cover tasks best, each adding most to those before it.

    It is the greedy rule of :mod:`benchmarks.search.learning`.

    Args:
        places: The places of configurations, shares above 0, of shape (tasks, configurations).
        size: The number of configurations.
    """
    logs = np.log(places)
    covered = np.zeros(len(logs))
    chosen: list[int] = []
    for _ in range(size):
        chosen.append(int(np.minimum(covered[:, None], logs).mean(0).argmin()))
        covered = np.minimum(covered, logs[:, chosen[-1]])
    return chosen


def place_runs(costs: Matrix) -> Matrix:
    """Returns the places of runs by their costs, as shares: the best has 1/n."""
    return (costs.argsort(kind="stable").argsort(kind="stable") + 1) / len(costs)


def try_portfolios(sets: Sequence[CurveSet], sizes: Sequence[int]) -> list[list[float]]:
    """Returns the places of the best of portfolios that were learned on other families.

    Args:
        sets: Runs of the same configurations on several tasks.
        sizes: Numbers of configurations.

    Returns:
        For each task and size the place of the best configuration among all, as a share.
    """
    places = np.array([place_runs(one.costs[:, -1]) for one in sets])
    families = np.array([family_of(one.task) for one in sets])
    rows = []
    for task, family in enumerate(families):
        chosen = cover(places[families != family], max(sizes))
        rows.append([float(places[task, chosen[:size]].min()) for size in sizes])
    return rows


@dataclass(frozen=True)
class BestRate:
    """The best learning rate of an optimizer on a task.

    Attributes:
        optimizer: The optimizer.
        task: The task.
        rate: The rate.
        in_range: Whether tuner's range for it holds the rate.
    """

    optimizer: str
    task: str
    rate: float
    in_range: bool


def find_best_rates(sets: Sequence[CurveSet]) -> list[BestRate]:
    """Returns the best rates of the optimizers that tuner has too."""
    tables = present_space().optimizer
    found = []
    for one in sets:
        for name in sorted(set(one.names)):
            row = _AXES.get(name, f"{name}.lr").split(".")[0]
            axis = tables.get(row, {}).get("lr")
            own = [i for i, other in enumerate(one.names) if other == name]
            costs = one.costs[own, -1]
            if isinstance(axis, Float) and np.isfinite(costs).any():
                rate = one.rates[own[int(costs.argmin())]]
                inside = axis.low * 0.99 <= rate <= axis.high * 1.01
                found.append(BestRate(row, f"{one.source} {one.task}", rate, inside))
    return found


def rank_optimizers(sets: Sequence[CurveSet], shares: Sequence[float]) -> dict[str, list[float]]:
    """Returns the mean rank of each optimizer's best run at parts of training, and at the end.

    Args:
        sets: Runs of several tasks, each with all optimizers.
        shares: The parts; the end is added.
    """
    ranks = defaultdict(list)
    for one in sets:
        names = np.array(one.names)
        kinds = sorted(set(one.names))
        for share in (*shares, 1.0):
            costs = one.costs[:, round(share * one.costs.shape[1]) - 1]
            best = np.array([costs[names == kind].min() for kind in kinds])
            for kind, rank in zip(kinds, best.argsort().argsort() + 1, strict=True):
                ranks[kind, share].append(rank)
    kinds = sorted({kind for kind, _ in ranks})
    return {
        kind: [float(np.mean(ranks[kind, share])) for share in (*shares, 1.0)] for kind in kinds
    }


def describe_opt_list(folder: Path, sizes: Sequence[int]) -> list[list[float]]:
    """Returns what the first configurations of TaskSet's ordered list have in common.

    Args:
        folder: The folder of published curves.
        sizes: How many of the first.

    Returns:
        For each size the shares of configurations that warm up (over more than a hundredth), that
        end below a hundredth of their rate, and that are constant for at least half; and the
        quartiles of the learning rates (in powers of ten) of those whose epsilon is below 1e-3.
    """
    path = folder / "opt-list" / "opt_list.json"
    every: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    rows = []
    for size in sizes:
        first = every[:size]
        rates = [math.log10(e["learning_rate"]) for e in first if e["epsilon"] < 1e-3]
        rows.append(
            [
                float(np.mean([e["warmup_fraction"] > 0.01 for e in first])),
                float(np.mean([e["min_learning_rate_mult"] < 0.01 for e in first])),
                float(np.mean([e["constant_fraction"] >= 0.5 for e in first])),
                *(float(q) for q in np.quantile(rates, (0.25, 0.5, 0.75))),
            ]
        )
    return rows
