"""Reads published learning curves (`curves/` of the data folder) into one form.

Each folder there has a README with its source, commit, licence and columns.
"""

from __future__ import annotations

import csv
import gzip
import json
import math
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt

from tuner import data_folder
from tuner.errors import WorkloadError

Matrix = npt.NDArray[np.float64]

POINTS = 20
"""Evenly spread points of a training that curves are read at; a tenth, a fifth, three tenths and
half of it are among them."""


@dataclass(frozen=True)
class CurveSet:
    """Runs of one task that differ in their configuration only.

    Attributes:
        source: Who published them.
        task: What was trained.
        schedule: How their learning rates went.
        costs: Losses, the less the better, of shape (runs, POINTS); infinite from where on a run
            has diverged.
        names: The optimizer of each run.
        rates: The learning rate of each run.
    """

    source: str
    task: str
    schedule: str
    costs: Matrix
    names: Sequence[str]
    rates: Sequence[float]


def curves_folder() -> Path | None:
    """Returns the folder of published curves, or None where the data folder has none."""
    folder = data_folder() / "curves"
    return folder if folder.is_dir() else None


def thin(curve: Sequence[float], points: int = POINTS) -> Matrix:
    """Returns a curve at evenly spread points, infinite from where on it has diverged.

    >>> thin([4.0, 3.0, 2.0, 1.0], points=2).tolist()
    [3.0, 1.0]

    Args:
        curve: Evenly spaced losses, the last at the end of training.
        points: The number of points.
    """
    costs = np.array([math.inf if value is None else value for value in curve], dtype=float)
    costs = np.where(np.isfinite(costs), costs, math.inf)
    places = np.round(np.arange(1, points + 1) * len(costs) / points).astype(int) - 1
    costs = costs[np.maximum(places, 0)]
    over = np.maximum.accumulate(np.isinf(costs))
    return np.where(over, math.inf, costs)


def load_taskset(folder: Path) -> list[CurveSet]:
    """Returns TaskSet's runs: the same 1,000 configurations of Adam on each of eight tasks."""
    found = []
    for path in sorted((folder / "taskset").glob("*.json.gz")):
        runs = _read_json(path)
        found.append(
            CurveSet(
                "TaskSet",
                path.name.removeprefix("FixedTextRNNClassification_imdb_").split(".")[0],
                "nearly constant",
                np.array([thin(run["valid"]["loss"][1:]) for run in runs]),
                ["adam"] * len(runs),
                [run["hp"]["learning_rate"] for run in runs],
            )
        )
    return found


def load_deepobs(folder: Path) -> list[CurveSet]:
    """Returns DeepOBS' baselines: 36 rates of each of three optimizers on eight problems."""
    names = {
        "GradientDescentOptimizer": "sgd",
        "MomentumOptimizer": "momentum",
        "AdamOptimizer": "adam",
    }
    groups = defaultdict(list)
    for run in read_lines(folder / "deepobs-baselines" / "curves.jsonl.gz"):
        if run["random_seed"] == 42:
            groups[run["testproblem"]].append(run)
    return [
        CurveSet(
            "DeepOBS",
            task,
            "constant",
            np.array([thin(run["test_losses"][1:]) for run in runs]),
            [names[run["optimizer"]] for run in runs],
            [run["learning_rate"] for run in runs],
        )
        for task, runs in groups.items()
    ]


def load_step_back(folder: Path) -> list[CurveSet]:
    """Returns the runs of step-back: rates of recent optimizers on six tasks, means over seeds.

    Optimizers that choose their own rate (MoMo's) are left out.
    """
    groups: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = defaultdict(dict)
    for run in read_lines(folder / "step-back" / "curves.jsonl.gz"):
        own = run["opt"]
        if own["name"].startswith("momo") or len(run["curve"]) != run["max_epoch"]:
            continue
        schedule = "constant" if own["lr_schedule"] == "constant" else "step"
        place = f"{run['dataset']}_{run['model']}", schedule
        groups[place].setdefault(json.dumps(own, sort_keys=True), []).append(run)
    found = []
    for (task, schedule), configs in groups.items():
        runs = [seeds[0]["opt"] for seeds in configs.values()]
        curves = [_mean([[e[2] for e in s["curve"]] for s in seeds]) for seeds in configs.values()]
        found.append(
            CurveSet(
                "step-back",
                task,
                schedule,
                np.array([thin(curve) for curve in curves]),
                [run["name"] for run in runs],
                [run["lr"] for run in runs],
            )
        )
    return [one for one in found if len(one.names) >= 12]


def load_algoperf(folder: Path) -> list[CurveSet]:
    """Returns AlgoPerf's trials, by workload and study: five points of each of eleven submissions.

    A trial ends where it reaches its target. So the last of its costs is minus the share of steps
    that it had left, and that is what it is told to cost from there on: the order is that of the
    competition, which counts time to the target. Before, and where a trial never gets there, it
    costs its validation metric, moved above 0.
    """
    curves = defaultdict(list)
    with gzip.open(folder / "algoperf-logs" / "curves.csv.gz", "rt") as file:
        for row in csv.DictReader(file):
            if row["validation_metric"]:
                curves[row["id"]].append((float(row["step"]), float(row["validation_metric"])))
    groups = defaultdict(list)
    with (folder / "algoperf-logs" / "trials.csv").open() as file:
        for row in csv.DictReader(file):
            if row["ruleset"] == "external_tuning" and len(curves[row["id"]]) > 2:
                groups[row["workload"], row["study"]].append(row)
    found = []
    for (workload, _), rows in groups.items():
        if len(rows) >= 20:
            costs = np.array([_to_target(row, curves[row["id"]]) for row in rows])
            names = [row["submission"] for row in rows]
            nothing = [math.nan] * len(rows)
            found.append(CurveSet("AlgoPerf", workload, "as submitted", costs, names, nothing))
    return found


def _to_target(row: dict[str, str], curve: Sequence[tuple[float, float]]) -> Matrix:
    sign = 1 if row["target_metric"] in ("loss", "wer") else -1
    target, length = sign * float(row["validation_target"]), float(row["step_hint"])
    costs = np.full(POINTS, math.inf)
    for place in range(POINTS):
        until = [sign * v for step, v in curve if step <= (place + 1) / POINTS * length]
        steps = [step for step, v in curve if sign * v <= target]
        if steps and steps[0] <= (place + 1) / POINTS * length:
            costs[place] = steps[0] / length - 1
        elif until and math.isfinite(until[-1]):
            costs[place] = 1e3 + until[-1]
    return costs


def _mean(curves: Sequence[Sequence[float | None]]) -> list[float]:
    known = np.array([[math.nan if v is None else v for v in curve] for curve in curves])
    return cast("list[float]", known.mean(0).tolist())


def read_lines(path: Path) -> Iterator[dict[str, Any]]:
    """Yields the objects of a compressed file that has one a line."""
    for line in _open(path).splitlines():
        yield json.loads(line)


def _read_json(path: Path) -> list[Any]:
    return cast("list[Any]", json.loads(_open(path)))


def _open(path: Path) -> str:
    try:
        with gzip.open(path, "rt", encoding="utf-8") as file:
            return file.read()
    except OSError as error:
        raise WorkloadError(f"{path} cannot be read: {error}. Set TUNER_DATA.") from error


LOADERS: Sequence[Callable[[Path], Iterable[CurveSet]]] = (
    load_taskset,
    load_deepobs,
    load_step_back,
    load_algoperf,
)
