"""Fused training against the plain loop a skilled user writes, and against our single loop.

The same sampled configurations are trained three times: one model at a time on tensor-indexed
batches with torch's fused optimizers; by tuner one at a time; by tuner as one cohort. Nobody is
stopped early, and final losses are compared. Rounds alternate, since machines drift, and the
quickest of each counts; compiling is timed apart.

    python -m benchmarks.fused --workload digits --lanes 64
"""

from __future__ import annotations

import argparse
import json
import math
import random
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable, Sequence

import torch

from tuner.domain.dimensions import Choice, Dimension, Float, Int, Value
from tuner.domain.schedules import SCHEDULES
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Proposal, TrialConfig, decode, walk
from tuner.optim import build_optimizer
from tuner.training.bench import Bench
from tuner.training.cohort import Cohort
from tuner.training.device import resolve_device
from tuner.training.fused_model import FusedModel
from tuner.training.lane import LaneStart
from tuner.training.loop import run_trial, train_workload
from tuner.training.reporting import Evaluation
from tuner.training.run import Run
from tuner.training.seeds import BatchOrder
from tuner.training.workload import Workload, load_workload

BATCH = {"parabola": 32, "digits": 128, "mnist": 128}
LANES = {"parabola": 64, "digits": 64, "mnist": 32}
STEPS = {"parabola": 1000, "digits": 300, "mnist": 100}


class Everyone:
    """A reporter of trials and cohorts that lets everyone go on, and keeps the last metric."""

    def __init__(self) -> None:
        self.last: dict[int, float] = {}

    def report(self, evaluations: Evaluation | Sequence[Evaluation | None]) -> list[bool] | bool:
        """Takes evaluations."""
        several = [evaluations] if isinstance(evaluations, Evaluation) else evaluations
        for lane, evaluation in enumerate(several):
            if evaluation is not None:
                self.last[lane] = evaluation.metrics["val_loss"]
        return True if isinstance(evaluations, Evaluation) else [True] * len(several)

    def diverged(self, lane: int, step: int) -> None:
        """Hears of a lane that is over."""
        self.last[lane] = math.nan

    def advance(self, step: int) -> bool:
        """Hears that training goes on."""
        return True

    def save(self) -> None:
        """Is never called."""

    def suggest(self, name: str, axis: Dimension) -> Value:
        """Is never called."""
        raise NotImplementedError


def main() -> None:
    """Runs the rounds and prints what they took."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--workload", choices=sorted(BATCH), default="digits")
    parser.add_argument("--lanes", type=int)
    parser.add_argument("--steps", type=int, help="of a trial")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--eager", action="store_true", help="do not compile")
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    name = arguments.workload
    lanes, steps = arguments.lanes or LANES[name], arguments.steps or STEPS[name]
    workload = load_workload(f"models.{name}:{name.capitalize()}")
    if not isinstance(workload, Workload):
        parser.error(f"{name} has a training loop of its own")
    bench = Bench.prepare(workload, resolve_device(arguments.device), "float32")
    spec = StudySpec.model_validate(
        {
            "study": {"name": name, "workload": f"models.{name}:{name.capitalize()}"},
            "budget": {"steps": steps, "evaluations": 10, "trials": 1000},
            "train": {"batch_size": BATCH[name]},
        }
    ).resolve()
    configs = [sample(spec, seed) for seed in range(lanes)]
    found = measure(bench, spec, configs, arguments)
    if arguments.json:
        print(json.dumps(found))
        return
    show(found)


def sample(spec: StudySpec, seed: int) -> TrialConfig:
    """Returns a random configuration of a study."""
    generator = random.Random(seed)  # noqa: S311

    def draw(name: str, axis: Dimension) -> Value:
        match axis:
            case Float(log=True):
                return math.exp(generator.uniform(math.log(axis.low), math.log(axis.high)))
            case Float():
                return generator.uniform(axis.low, axis.high)
            case Int():
                return generator.randint(axis.low, axis.high)
            case Choice():
                return generator.choice(axis.choices)
            case _:
                return axis.value

    return decode(spec, Proposal(walk(spec, draw)))


def measure(
    bench: Bench, spec: StudySpec, configs: list[TrialConfig], arguments: argparse.Namespace
) -> dict[str, object]:
    """Returns the figures of all ways of training."""
    model = FusedModel(bench, spec, compiled=not arguments.eager)
    rehearsal = Cohort(model, [LaneStart(c) for c in configs], Everyone(), at_most=10)
    compile_s, _ = timed(bench.device, rehearsal.train)
    ways: dict[str, Callable[[], list[float]]] = {
        "plain": lambda: [train_plainly(bench, spec, config) for config in configs],
        "single": lambda: [train_singly(bench, spec, config) for config in configs],
        "fused": lambda: train_fused(model, configs),
    }
    seconds: dict[str, list[float]] = {way: [] for way in ways}
    ends: dict[str, list[float]] = {}
    peaks: dict[str, int] = {}
    for _ in range(arguments.rounds):
        for way, train in ways.items():
            if bench.device.type == "cuda":
                torch.cuda.reset_peak_memory_stats()
            taken, ends[way] = timed(bench.device, train)
            seconds[way].append(taken)
            peaks[way] = peak_bytes(bench.device)
    best = {way: min(taken) for way, taken in seconds.items()}
    steps = spec.budget.steps or 0
    return {
        "workload": arguments.workload,
        "device": device_name(bench.device),
        "threads": arguments.threads,
        "lanes": len(configs),
        "steps": steps,
        "compiled": model.compiler.enabled,
        "compile_s": compile_s,
        "ways": {
            way: {
                "seconds": seconds[way],
                "trials_per_h": 3600 * len(configs) / best[way],
                "steps_per_s": len(configs) * steps / best[way],
                "ratio": best["plain"] / best[way],
                "peak_bytes": peaks[way],
            }
            for way in ways
        },
        "ratio_with_compiling": best["plain"] / (best["fused"] + compile_s),
        "outside_training": 1 - time_steps(model, configs) * steps / best["fused"],
        "gap": {way: gap(ends["plain"], ends[way]) for way in ("single", "fused")},
    }


def timed(device: torch.device, work: Callable[[], object]) -> tuple[float, list[float]]:
    """Returns the seconds that work takes, its kernels included, and what it returns."""
    began = time.perf_counter()
    found = work()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - began, found  # type: ignore[return-value]


def train_plainly(bench: Bench, spec: StudySpec, config: TrialConfig) -> float:
    """Trains as a skilled user would write it; returns the last validation loss."""
    total = spec.budget.steps or 0
    model = bench.build_model(spec.search.seed)
    optimizer = build_optimizer(config.optimizer, config.optimizer_values, model)
    row = SCHEDULES[config.schedule]
    schedule = torch.optim.lr_scheduler.LambdaLR(
        optimizer, row.factor(config.schedule_values, total)
    )
    order = BatchOrder(bench.train_examples, BATCH[spec.study.name], spec.search.seed, bench.device)
    value = math.nan
    for step in range(total):
        loss = bench.workload.loss(model, bench.batch(order(step)))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        if config.schedule != "constant" or config.schedule_values["warmup"]:
            schedule.step()
        if (step + 1) % (total // 10) == 0:
            value = bench.evaluate(model)["val_loss"]
            if not math.isfinite(value):
                return math.nan
    return value


def train_singly(bench: Bench, spec: StudySpec, config: TrialConfig) -> float:
    """Trains a trial by our own loop; returns its last validation loss."""
    reporter = Everyone()
    run = Run(spec, config, device=bench.device, reporter=reporter)  # type: ignore[arg-type]
    outcome = run_trial(lambda run: train_workload(run, bench), run)
    return reporter.last[0] if outcome.ending == "complete" else math.nan


def train_fused(model: FusedModel, configs: list[TrialConfig]) -> list[float]:
    """Trains a cohort; returns its last validation losses."""
    reporter = Everyone()
    Cohort(model, [LaneStart(config) for config in configs], reporter).train()  # type: ignore[arg-type]
    return [reporter.last[lane] for lane in range(len(configs))]


def time_steps(model: FusedModel, configs: list[TrialConfig], count: int = 50) -> float:
    """Returns the seconds that forward, backward and update take of a step, nothing around them."""
    family, total = model.family(configs), model.spec.budget.steps or 0
    tables, state = model.tables(configs, total), model.start(len(configs), family)
    step = model.step(tables, family, 0)
    table = tables.rows(0, 1, dtype=state.p.dtype)[0].to(model.bench.device)
    rows = torch.arange(configs[0].batch_size, device=model.bench.device)
    muon = [lane for lane in range(len(configs)) if tables.has_muon(lane)]
    places = torch.tensor(muon, device=model.bench.device) if muon else None
    batch = model.bench.batch(rows)

    def work() -> None:
        for _ in range(count):
            step(state, table, batch, places)

    with torch.no_grad():
        return min(timed(model.bench.device, work)[0] for _ in range(3)) / count


def gap(ours: list[float], theirs: list[float]) -> float:
    """Returns the median relative difference of losses; infinite if others have diverged."""
    if [math.isnan(x) for x in ours] != [math.isnan(x) for x in theirs]:
        return math.inf
    gaps = [abs(a - b) / abs(a) for a, b in zip(ours, theirs, strict=True) if not math.isnan(a)]
    return statistics.median(gaps)


def peak_bytes(device: torch.device) -> int:
    """Returns the most memory in use: of the device since the last reset, or of the process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def device_name(device: torch.device) -> str:
    """Returns what the device is called."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def show(found: dict[str, object]) -> None:
    """Prints the figures as a table."""
    title = "{workload}: {lanes} trials of {steps} steps, {device}, {threads} thread(s)"
    print(title.format(**found))
    print(f"{'':>8} {'trials/h':>12} {'steps/s':>12} {'ratio':>8} {'peak':>10}")
    for way, row in found["ways"].items():  # type: ignore[attr-defined]
        print(
            f"{way:>8} {row['trials_per_h']:>12,.0f} {row['steps_per_s']:>12,.0f} "
            f"{row['ratio']:>7.1f}x {row['peak_bytes'] / 2**20:>6,.0f} MiB"
        )
    print("compiling took {compile_s:.1f} s: {ratio_with_compiling:.1f}x with it".format(**found))
    print("outside training {outside_training:.0%} of the fused run".format(**found))
    print(f"median gap of final losses to the plain loop: {found['gap']}")


if __name__ == "__main__":
    warnings.simplefilter("default")
    main()
