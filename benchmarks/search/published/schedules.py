"""Whether a short training with its schedule complete ranks better than a long one's beginning."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.search.published.ranks import correlate, hold
from benchmarks.search.published.sets import Matrix, read_lines
from benchmarks.search.spaces import EVALUATIONS
from benchmarks.search.tables import DRAWN, LENGTHS, Table

SHARES = (0.1, 0.2, 0.3, 0.5)


def compare_rungs(tables: Sequence[Table], schedule: str | None, steps: int) -> list[list[float]]:
    """Returns how well parts of a training rank it, means over tables.

    Args:
        tables: Tables of trained configurations.
        schedule: The schedule of the configurations that are ranked, or None for all together.
        steps: The length of the training.

    Returns:
        For each of SHARES the rank correlation with the end, and the share of the best twentieth
        that the best third holds.
    """
    found = []
    for share in SHARES:
        values = []
        for table in tables:
            own = _own(table, schedule)
            curves = _costs(table.curves[steps][own])
            early = curves[:, round(share * curves.shape[1]) - 1]
            values.append((correlate(early, curves[:, -1]), hold(early, curves[:, -1])))
        found.append(np.nanmean(values, axis=0).tolist())
    return found


def compare_lengths(
    tables: Sequence[Table], schedule: str | None, steps: int, shorter: int
) -> list[float]:
    """Returns how well short trainings and cut ones of the same steps rank long ones.

    Args:
        tables: Tables of trained configurations.
        schedule: As for :func:`compare_rungs`.
        steps: The length of the long trainings.
        shorter: The length of the short ones.

    Returns:
        The rank correlations of cut and of short trainings, and the shares of the best twentieth
        that their best thirds hold; means over tables.
    """
    values = []
    for table in tables:
        own = _own(table, schedule)
        curves, last = _costs(table.curves[steps][own]), table.costs(steps)[own]
        cut = curves[:, max(1, round(shorter / steps * LENGTHS[steps])) - 1]
        short = table.costs(shorter)[own]
        values.append(
            (correlate(cut, last), correlate(short, last), hold(cut, last), hold(short, last))
        )
    return [float(value) for value in np.nanmean(values, axis=0)]


def thin_table(table: Table, schedule: str | None, steps: int) -> Matrix:
    """Returns the curves of a table's configurations at the evaluations of a study.

    Args:
        table: A table of trained configurations.
        schedule: As for :func:`compare_rungs`.
        steps: The length of the training.
    """
    curves = _costs(table.curves[steps][_own(table, schedule)])
    every = curves.shape[1] // EVALUATIONS
    return curves[:, every - 1 :: every]


def _own(table: Table, schedule: str | None) -> list[int]:
    points = table.points[:DRAWN]
    return [i for i, point in enumerate(points) if schedule in (None, point["schedule"])]


def _costs(curves: Matrix) -> Matrix:
    over = np.maximum.accumulate(~np.isfinite(curves), axis=1)
    return np.where(over, math.inf, curves)


def load_lengths(folder: Path) -> dict[tuple[str, int, int], list[tuple[float, float, float]]]:
    """Returns the losses of a 124M-parameter Llama by schedule, full and shorter length.

    Of each learning rate that was trained to both lengths: the loss of the full training cut at
    the shorter length, of a short training with its schedule complete, and of the full one. What
    cools down was constant before: its curve cut there is that of the constant rate.
    """
    ends: dict[tuple[str, float, int], float] = {}
    curves: dict[tuple[str, float, int], dict[int, float]] = defaultdict(dict)
    for run in read_lines(folder / "lr-scheduling" / "runs.jsonl.gz"):
        name = _schedule_of(run)
        if name is None:
            continue
        place = name, float(run["lr"]), int(run["iterations"])
        curves[place] |= {int(step): float(value) for step, value in run["val"]}
        last, value = max(run["val"])
        if last >= place[2] - _BETWEEN:  # some were not trained, or kept, to their end
            ends[place] = float(value)
    # The trunk is the constant rate, of which every run that cools down branches.
    trunk: dict[float, dict[int, float]] = defaultdict(dict)
    for (name, rate, _), curve in curves.items():
        if name == "constant":
            trunk[rate] |= curve
    found = defaultdict(list)
    for (name, rate, full), end in ends.items():
        for (other, same, short), early in ends.items():
            if (other, same) == (name, rate) and short < full and name != "constant":
                own = curves[name, rate, full]
                cut = own.get(short - _BETWEEN, trunk[rate].get(short - _BETWEEN))
                if cut is not None:
                    found[name, full, short].append((cut, early, end))
    return {place: rows for place, rows in found.items() if len(rows) >= 3}


def _schedule_of(run: dict[str, Any]) -> str | None:
    """Returns a name of the schedule of a run of the grid, or None for others."""
    group = run.get("group") or ""
    if run.get("layers") != "12" or "124" not in group or run["iterations"] not in _FULL:
        return None
    if "stable" in group:
        return "constant"
    if run["schedule"] == "cos":
        return "cosine to 0" if "zero" in group else "cosine to a tenth"
    return f"cooldown {run['decay_fraction']} {run['decay']}"


_BETWEEN = 200
"""Steps between evaluations, the last of which is so long before the end."""

_FULL = ("15000", "25000", "35000", "50000")
