"""Tables of trained configurations: what strategies are replayed on, and portfolios learned from.

The same 1,024 configurations, drawn evenly from the space, are trained on every workload, and 512
more around the best of them on that workload, since a search looks there. Each is trained to two
lengths, and to a third and a ninth of them, schedules complete, so that a short run can be compared
with the beginning of a long one.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.search.spaces import whole_space
from benchmarks.search.training import Curves, Params, Trainer
from benchmarks.search.workloads import WORKLOADS
from tuner.domain.catalog.dimensions import Dimension, Value
from tuner.domain.space import walk
from tuner.search.distributions import to_distribution
from tuner.search.mixture import ROOT, draw_evenly, vary
from tuner.search.unit_cube import from_unit

LENGTHS = {20: 10, 60: 10, 180: 30, 540: 30}
"""Evaluations of a run of so many optimizer steps."""

STUDY_LENGTHS = (180, 540)
"""The lengths of trials that studies are replayed at; the others are a third and a ninth."""

DRAWN = 1_024

_MOVE = np.array([0.1])
"""The width of a move from one of the best, as a fraction of each range."""

FOLDER = Path(__file__).parent / "trained"


@dataclass(frozen=True)
class Table:
    """The curves of a workload's configurations.

    Attributes:
        workload: Its name.
        points: The configurations, those drawn evenly first.
        curves: The losses, of shape (configurations, evaluations), by length in steps; NaN from
            where on a configuration has diverged.
    """

    workload: str
    points: list[Params]
    curves: dict[int, Curves]

    @classmethod
    def load(cls, workload: str, folder: Path = FOLDER) -> Table:
        """Returns the table of a workload that was written before."""
        with np.load(folder / f"{workload}.npz", allow_pickle=False) as file:
            points = json.loads(str(file["points"]))
            curves = {steps: file[f"steps_{steps}"].astype(float) for steps in LENGTHS}
        return cls(workload, points, curves)

    def save(self, folder: Path = FOLDER) -> None:
        """Writes the table."""
        folder.mkdir(parents=True, exist_ok=True)
        arrays = {f"steps_{steps}": _coarsen(own) for steps, own in self.curves.items()}
        arrays["points"] = np.array(json.dumps(self.points))
        np.savez_compressed(folder / f"{self.workload}.npz", allow_pickle=False, **arrays)

    def costs(self, steps: int) -> Curves:
        """Returns the last losses at a length, infinite where a configuration has diverged."""
        last = self.curves[steps][:, -1]
        return np.where(np.isfinite(last), last, np.inf)

    def best_by_optimizer(self, steps: int) -> dict[str, float]:
        """Returns the least last loss of each optimizer's evenly drawn configurations."""
        costs = self.costs(steps)[:DRAWN]
        owners = np.array([point[ROOT] for point in self.points[:DRAWN]])
        return {str(name): float(costs[owners == name].min()) for name in np.unique(owners)}


def _coarsen(curves: Curves) -> npt.NDArray[np.float32]:
    """Returns losses to three digits and a half, which compress to half the size."""
    bits = curves.astype(np.float32).view(np.uint32) & np.uint32(0xFFFFF800)
    return np.where(np.isnan(curves), np.float32(np.nan), bits.view(np.float32))


def draw_points(count: int, seed: int) -> list[dict[str, Value]]:
    """Returns configurations drawn evenly, every optimizer and schedule as often."""
    rng = np.random.default_rng(seed)
    spec = whole_space()
    turns = {"optimizer": _shuffled(spec.space.optimizers, count, rng)}
    turns["schedule"] = _shuffled(spec.space.schedules, count, rng)

    def draw(place: int) -> dict[str, Value]:
        def suggest(name: str, axis: Dimension) -> Value:
            return turns[name][place] if name in turns else draw_on(axis, rng)

        return walk(spec, suggest)

    return [draw(place) for place in range(count)]


def _shuffled(names: tuple[str, ...], count: int, rng: np.random.Generator) -> list[str]:
    turns = [names[i % len(names)] for i in range(count)]
    rng.shuffle(turns)
    return turns


def draw_on(axis: Dimension, rng: np.random.Generator) -> Value:
    """Returns a value drawn evenly from an axis."""
    value: Value = draw_evenly(to_distribution(axis), rng)
    return value


def move(point: Params, rng: np.random.Generator) -> dict[str, Value]:
    """Returns a configuration near another, as a search draws it."""

    def suggest(name: str, axis: Dimension) -> Value:
        if name not in point:
            return draw_on(axis, rng)
        if name == ROOT:
            return point[name]
        distribution = to_distribution(axis)
        [place] = vary(point[name], distribution, rng, _MOVE)
        moved: Value = from_unit(distribution, place)
        return moved

    return walk(whole_space(), suggest)


def build(
    workload: str, points: list[dict[str, Value]], tell: Callable[[str], None] = print
) -> Table:
    """Trains configurations of a workload, and others around the best of them."""
    began = time.perf_counter()
    trainer = Trainer(WORKLOADS[workload])
    curves = {n: trainer.train(points, n, evaluations) for n, evaluations in LENGTHS.items()}
    rng = np.random.default_rng(1)
    best: list[int] = []
    for steps in STUDY_LENGTHS:
        last = np.nan_to_num(curves[steps][:, -1], nan=np.inf)
        best += np.argsort(last)[:64].tolist()
    near = [move(points[place], rng) for place in best for _ in range(4)]
    more = {n: trainer.train(near, n, evaluations) for n, evaluations in LENGTHS.items()}
    tell(f"{workload}: {time.perf_counter() - began:.0f} s")
    return Table(
        workload,
        [*points, *near],
        {n: np.concatenate([curves[n], more[n]]) for n in LENGTHS},
    )
