"""How costs grow: with lanes, with trials in the database, and with parameters.

Four things are measured, on one thread: what a step costs a lane as more lanes train as one; what
asking for a cohort of 64, starting, reporting, judging and ending it cost as more trials lie in the
database (SQLite); what a step costs a lane of eight as the model grows; and what commands take on a
study as it gets more trials. The figures are written as JSON and as a picture; a part that is given
no sizes is left as it stands there.

    python -m benchmarks.growth --folder docs/images
    python -m benchmarks.growth --lanes --trials --parameters --studies 20000
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.curves import Panel, draw
from benchmarks.fused_ways import Fused, Job, Plain, sample
from benchmarks.growth_store import Past
from benchmarks.growth_study import SIZE, measure_study
from benchmarks.workloads import load
from tuner import Batch, Data
from tuner.domain.spec import StudySpec
from tuner.training.device import resolve_device
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.workload import Workload

Line = dict[int, float]
"""A cost by what it grows with."""

LANES = (1, 4, 16, 64, 256, 512)
TRIALS = (10, 100, 1_000, 10_000)
STUDIES = (1_000, 5_000, 20_000, 50_000)
PARAMETERS = (100, 1_000, 10_000, 100_000, 1_000_000, 10_000_000)
WORKLOADS = ("parabola", "digits")

_FEW = 8
"""Lanes where the model grows."""

PARTS = (
    "lane-step by lanes, µs",
    "cohort of 64 by trials in the database, ms",
    f"lane-step by parameters, {_FEW} lanes, µs",
    "commands by trials of the study, s",
)


def main() -> None:
    """Measures, and writes ``growth.json`` and ``growth.svg``."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--folder", type=Path, default=Path("docs/images"))
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--lanes", type=int, nargs="*", default=LANES)
    parser.add_argument("--trials", type=int, nargs="*", default=TRIALS)
    parser.add_argument("--parameters", type=int, nargs="*", default=PARAMETERS)
    parser.add_argument("--studies", type=int, nargs="*", default=STUDIES)
    parser.add_argument("--eager", action="store_true", help="do not compile")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    device = resolve_device(arguments.device)
    hows = (False,) if arguments.eager else (False, True)
    began = time.perf_counter()
    measured = {
        PARTS[0]: grow_lanes(arguments.lanes, device, hows),
        PARTS[1]: grow_past(arguments.trials),
        PARTS[2]: grow_model(arguments.parameters, device, hows),
        PARTS[3]: grow_studies(arguments.studies),
    }
    measured = {part: lines for part, lines in measured.items() if lines}
    arguments.folder.mkdir(parents=True, exist_ok=True)
    file = arguments.folder / "growth.json"
    found = {part: measured.get(part) or lines for part, lines in _read(file).items()}
    file.write_text(json.dumps(found, indent=1) + "\n")
    (arguments.folder / "growth.svg").write_text(picture(found), encoding="utf-8")
    print(describe(measured))
    print(f"took {time.perf_counter() - began:.0f} s")


def _read(file: Path) -> dict[str, dict[str, Line]]:
    """Returns the figures of an earlier run, each part empty of which there are none."""
    stored = json.loads(file.read_text()) if file.exists() else {}
    return {
        part: {
            name: {int(size): cost for size, cost in line.items()}
            for name, line in stored.get(part, {}).items()
        }
        for part in PARTS
    }


def grow_lanes(counts: list[int], device: torch.device, hows: tuple[bool, ...]) -> dict[str, Line]:
    """Returns the microseconds that a step takes a lane, by the number of lanes."""
    lines: dict[str, Line] = defaultdict(dict)
    for name in WORKLOADS:
        workload = load(name)
        prepared = PreparedWorkload.prepare(workload, device, "float32")
        job = Job("", name, workload.source, str(device), 1, 100, 10, [], ["adam"], compiled=True)
        for lanes in counts:
            times = time_steps(prepared, job.spec(), lanes, hows)
            for how, taken in times.items():
                lines[f"{name}, {how}"][lanes] = taken
    return dict(lines)


def grow_model(sizes: list[int], device: torch.device, hows: tuple[bool, ...]) -> dict[str, Line]:
    """Returns the microseconds that a step takes a lane, by the model's parameters."""
    lines: dict[str, Line] = defaultdict(dict)
    for size in sizes:
        workload = Wide(size)
        prepared = PreparedWorkload.prepare(workload, device, "float32")
        count = sum(p.numel() for p in workload.model().parameters())
        spec = StudySpec.model_validate(
            {
                "study": {"name": "wide", "workload": "a:B"},
                "budget": {"steps": 100},
                "space": {"optimizers": ["adam"]},
                "train": {"batch_size": 32},
            }
        ).resolve()
        for how, taken in time_steps(prepared, spec, _FEW, hows).items():
            lines[how][count] = taken
    return dict(lines)


def time_steps(
    prepared: PreparedWorkload, spec: StudySpec, lanes: int, hows: tuple[bool, ...]
) -> dict[str, float]:
    """Returns the microseconds a lane's step takes: plain, as lanes traced, and compiled."""
    configs = [sample(spec, seed) for seed in range(lanes)]
    found = {"one model": Plain(prepared, spec, configs[:1]).step_s()}
    for compiled in hows:
        way = Fused(prepared, spec, configs, compiled=compiled)
        if way.prepare() == compiled:
            found["lanes, compiled" if compiled else "lanes, traced"] = way.step_s()
    return {how: 1e6 * taken for how, taken in found.items()}


class Wide(Workload):
    """A perceptron 16-width-width-1 on noise, of about so many parameters.

    Args:
        parameters: How many; width² + 19·width + 1 come nearest.
    """

    def __init__(self, parameters: int) -> None:
        self._width = max(1, round(math.sqrt(90.25 + parameters - 1) - 9.5))

    def model(self) -> nn.Module:
        """Returns the untrained network."""
        w = self._width
        layers = nn.Linear(16, w), nn.ReLU(), nn.Linear(w, w), nn.ReLU(), nn.Linear(w, 1)
        return nn.Sequential(*layers)

    def data(self) -> Data:
        """Returns x of shape (N, 16) and y of shape (N, 1)."""
        x = torch.randn(256, 17, generator=torch.Generator().manual_seed(0))
        rows = (x[:, :16].contiguous(), x[:, 16:].contiguous())
        return Data(train=rows, val=tuple(part[:32] for part in rows))

    def loss(self, model: nn.Module, batch: Batch) -> Tensor:
        """Returns the mean squared error."""
        x, y = batch
        return nn.functional.mse_loss(model(x), y)

    def metrics(self, model: nn.Module, batch: Batch) -> Mapping[str, Tensor]:
        """Returns the same."""
        return {"val_loss": self.loss(model, batch)}


def grow_past(counts: list[int]) -> dict[str, Line]:
    """Returns the milliseconds that a cohort costs by the trials that lie in the database."""
    lines: dict[str, Line] = defaultdict(dict)
    for trials in counts:
        with Past(trials) as past:
            rounds = [past.measure() for _ in range(3)]
        for operation in rounds[0]:
            lines[operation][trials] = 1e3 * statistics.median(r[operation] for r in rounds)
    return dict(lines)


def grow_studies(counts: list[int]) -> dict[str, Line]:
    """Returns the seconds that commands take by the trials of the study, and the page's size."""
    lines: dict[str, Line] = defaultdict(dict)
    for trials in counts:
        for what, cost in measure_study(trials).items():
            lines[what][trials] = cost
    return dict(lines)


def picture(found: Mapping[str, Mapping[str, Line]]) -> str:
    """Returns the figures as an SVG picture."""
    axes = ("lanes", "trials in the database", "parameters", "trials of the study")
    titles = (
        *("Cost of a lane's step", "Cost of a cohort of 64", "Cost of a lane's step, 8 lanes"),
        "What commands take",
    )
    units = ("µs", "ms", "µs", "s")
    panels = [
        Panel(title, x, y, {n: [*line.items()] for n, line in found[part].items() if n != SIZE})
        for title, x, y, part in zip(titles, axes, units, PARTS, strict=True)
        if found[part]
    ]
    return draw(panels, "How costs grow with lanes, trials and parameters")


def describe(found: Mapping[str, Mapping[str, Line]]) -> str:
    """Returns the figures as tables in Markdown."""
    lines = []
    for title, curves in found.items():
        sizes = sorted({size for curve in curves.values() for size in curve})
        lines += [f"\n{title}", "| | " + " | ".join(f"{size:,}" for size in sizes) + " |"]
        lines.append("| --- " * (1 + len(sizes)) + "|")
        for name, curve in curves.items():
            cells = (f"{curve[size]:.3g}" if size in curve else "–" for size in sizes)
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
