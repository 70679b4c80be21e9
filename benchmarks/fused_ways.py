"""A way to train the trials of a comparison, in a process of its own: see ``benchmarks.fused``.

Takes a job as a line of JSON and says when it is ready. To every ``train`` that follows it trains
all its trials, to every ``step`` it times steps alone, and it tells what that took.
"""

from __future__ import annotations

import json
import math
import resource
import sys
import time
import warnings
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from benchmarks.workloads import SIZES, import_string, load
from tuner.domain.catalog.dimensions import Choice, Dimension, Float, Int, Value
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.domain.space import walk
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Proposal, TrialConfig, decode
from tuner.fused.cohort import Cohort
from tuner.fused.lane import LaneStart
from tuner.fused.model import FusedModel
from tuner.optim import build_optimizer
from tuner.training.device import resolve_device, wait_for
from tuner.training.loop import Ending, run_trial, train_workload
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.rehearsal import Rehearsal
from tuner.training.run import Run
from tuner.training.seeds import BatchOrder

_REHEARSAL = 2
"""Steps by which is compiled."""

_LOOK_S = 0.05


@dataclass(frozen=True)
class Job:
    """What to train, and how.

    Attributes:
        way: One of :data:`WAYS`.
        workload: Its name.
        source: Which data it trains on.
        device: Where.
        threads: On how many threads.
        steps: Of a trial: a multiple of the evaluations.
        evaluations: Of a trial.
        seeds: One a trial; its configuration is drawn with it.
        optimizers: Among which to draw; none are the usual ones.
        compiled: Whether fused steps are compiled.
    """

    way: str
    workload: str
    source: str
    device: str
    threads: int
    steps: int
    evaluations: int
    seeds: list[int]
    optimizers: list[str]
    compiled: bool

    def spec(self) -> StudySpec:
        """Returns the study that the trials could be of."""
        tree: dict[str, Any] = {
            "study": {"name": self.workload, "workload": import_string(self.workload)},
            "budget": {"steps": self.steps, "evaluations": self.evaluations, "trials": 1000},
            "train": {"batch_size": SIZES[self.workload].batch},
        }
        if self.optimizers:
            tree["space"] = {"optimizers": self.optimizers}
        return StudySpec.model_validate(tree).resolve()


class Way(ABC):
    """A way to train trials.

    Args:
        prepared: The workload on its device.
        spec: The study.
        configs: The trials.
        compiled: Whether fused steps are compiled.
    """

    def __init__(
        self,
        prepared: PreparedWorkload,
        spec: StudySpec,
        configs: list[TrialConfig],
        *,
        compiled: bool = True,
    ) -> None:
        self.prepared, self.spec, self.configs, self.compiled = prepared, spec, configs, compiled
        self.steps = spec.budget.steps or 0

    def prepare(self) -> bool:
        """Does what is done once, such as compiling; returns whether it has compiled."""
        return False

    @abstractmethod
    def train(self) -> list[float]:
        """Trains all trials; returns their last validation losses, NaN where they diverged."""

    @abstractmethod
    def step_s(self) -> float:
        """Returns the seconds that forward, backward and update take of one trial's step."""


class Plain(Way):
    """One after the other, as a skilled user writes it."""

    def train(self) -> list[float]:
        """Trains all trials."""
        return [self._train(config) for config in self.configs]

    def _train(self, config: TrialConfig) -> float:
        prepared, total = self.prepared, self.steps
        model = prepared.build_model(self.spec.search.seed)
        optimizer = self._optimizer(config, model)
        factor = SCHEDULES[config.schedule].factor(config.schedule_values, total)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
        scheduled = config.schedule != "constant" or config.schedule_values["warmup"]
        size = prepared.examples_a_step(config.batch_size)
        order = BatchOrder(prepared.train_examples, size, self.spec.search.seed, prepared.device)
        value = math.nan
        for step in range(total):
            loss = prepared.workload.loss(model, prepared.batch(order(step)))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            if scheduled:
                schedule.step()
            if (step + 1) % (total // self.spec.budget.evaluations) == 0:
                value = prepared.evaluate(model)["val_loss"]
                if not math.isfinite(value):
                    return math.nan
        return value

    def _optimizer(self, config: TrialConfig, model: torch.nn.Module) -> torch.optim.Optimizer:
        """Returns torch's optimizer, by its fused kernel, or the one for lists of tensors."""
        optimizer = build_optimizer(config.optimizer, config.optimizer_values, model)
        for group in optimizer.param_groups:
            if "foreach" in group and not group.get("fused"):
                group["foreach"] = True
        return optimizer

    def step_s(self) -> float:
        """Returns the seconds of a step, the mean over the trials."""
        return math.fsum(self._step_s(config) for config in self.configs) / len(self.configs)

    def _step_s(self, config: TrialConfig) -> float:
        prepared = self.prepared
        model = prepared.build_model(self.spec.search.seed)
        optimizer = self._optimizer(config, model)
        size = prepared.examples_a_step(config.batch_size)
        batch = prepared.batch(torch.arange(size, device=prepared.device))

        def step() -> None:
            loss = prepared.workload.loss(model, batch)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()

        return time_calls(prepared.device, step)


class Single(Plain):
    """One after the other, by our own loop; its steps alone are those of any other loop."""

    def _train(self, config: TrialConfig) -> float:
        reporter = Rehearsal()
        run = Run(self.spec, config, device=self.prepared.device, reporter=reporter)
        outcome = run_trial(lambda run: train_workload(run, self.prepared), run)
        if outcome.ending is not Ending.COMPLETE:
            return math.nan
        return reporter.metrics["val_loss"]

    def _optimizer(self, config: TrialConfig, model: torch.nn.Module) -> torch.optim.Optimizer:
        return build_optimizer(config.optimizer, config.optimizer_values, model)


class Fused(Way):
    """All as one."""

    def prepare(self) -> bool:
        """Compiles, by a cohort of a few steps."""
        self._model = FusedModel(self.prepared, self.spec, compiled=self.compiled)
        Cohort(self._model, self._starts(), Rehearsal(), at_most=_REHEARSAL).train()
        return self._model.compiler.enabled

    def train(self) -> list[float]:
        """Trains all trials."""
        reporter = Rehearsal()
        Cohort(self._model, self._starts(), reporter).train()
        lasts = (reporter.last.get(lane) for lane in range(len(self.configs)))
        return [math.nan if last is None else last.metrics["val_loss"] for last in lasts]

    def _starts(self) -> list[LaneStart]:
        return [LaneStart(config) for config in self.configs]

    def step_s(self) -> float:
        """Returns the seconds of a step, divided among the lanes."""
        return time_fused_steps(self._model, self.configs) / len(self.configs)


WAYS: dict[str, type[Way]] = {"plain": Plain, "single": Single, "fused": Fused}


def sample(spec: StudySpec, seed: int) -> TrialConfig:
    """Returns a random configuration of a study."""
    generator = np.random.default_rng(seed)

    def draw(name: str, axis: Dimension) -> Value:
        match axis:
            case Float(log=True):
                return math.exp(generator.uniform(math.log(axis.low), math.log(axis.high)))
            case Float():
                return generator.uniform(axis.low, axis.high)
            case Int():
                return int(generator.integers(axis.low, axis.high, endpoint=True))
            case Choice():
                return axis.choices[generator.integers(len(axis.choices))]
            case _:
                return axis.value

    return decode(spec, Proposal(walk(spec, draw)))


def time_fused_steps(model: FusedModel, configs: list[TrialConfig]) -> float:
    """Returns the seconds that forward, backward and update of a cohort take, nothing around."""
    family, device = model.family(configs), model.prepared.device
    coefficients = model.coefficients(configs, model.spec.budget.steps or 0)
    state = model.start(len(configs), family)
    step = model.step(coefficients, family, 0)
    lanes = sorted(range(len(configs)), key=lambda lane: not coefficients.has_muon(lane))
    table = coefficients.rows(0, 1, dtype=state.p.dtype, lanes=lanes)[0].to(device)
    muon = sum(map(coefficients.has_muon, lanes))
    rows = torch.arange(model.prepared.examples_a_step(configs[0].batch_size), device=device)
    batch = model.prepared.batch(rows)
    with torch.no_grad():
        return time_calls(device, lambda: step(state, table, batch, muon))


def time_calls(device: torch.device, call: Callable[[], object]) -> float:
    """Returns the seconds of a call once it is warm: the best of three looks."""
    for _ in range(2):
        call()
    wait_for(device)
    count, best = 1, math.inf
    looks = 0
    while looks < 3:
        began = time.perf_counter()
        for _ in range(count):
            call()
        wait_for(device)
        taken = time.perf_counter() - began
        if taken < _LOOK_S / 2:
            count = max(count + 1, math.ceil(count * _LOOK_S / taken))
            continue
        best, looks = min(best, taken / count), looks + 1
    return best


def peak_bytes(device: torch.device) -> int:
    """Returns the most memory that was in use: of the device, or of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def serve() -> None:
    """Takes the job, and does what it is asked for until the input ends."""
    job = Job(**json.loads(sys.stdin.readline()))
    torch.set_num_threads(job.threads)
    device, spec = resolve_device(job.device), job.spec()
    workload = load(job.workload, job.source)
    prepared = PreparedWorkload.prepare(workload, device, "float32")
    configs = [sample(spec, seed) for seed in job.seeds]
    way = WAYS[job.way](prepared, spec, configs, compiled=job.compiled)
    answers: dict[str, Callable[[], Any]] = {"train": way.train, "step": way.step_s}
    prepare_s, compiled = timed(device, way.prepare)
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)
    tell(seconds=prepare_s, compiled=compiled, device=name, data=workload.source)
    for line in sys.stdin:
        seconds, answer = timed(device, answers[line.strip()])
        tell(seconds=seconds, answer=answer, peak_bytes=peak_bytes(device))


def timed(device: torch.device, work: Callable[[], Any]) -> tuple[float, Any]:
    """Returns the seconds that work takes, its kernels included, and what it returns."""
    began = time.perf_counter()
    found = work()
    wait_for(device)
    return time.perf_counter() - began, found


def tell(**values: Any) -> None:
    """Answers by a line of JSON."""
    print(json.dumps(values), flush=True)


if __name__ == "__main__":
    warnings.simplefilter("default")
    serve()
