"""Measures how the trials of a study train fastest on a device: one at a time, or many as one."""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tuner.domain.fuse_plan import AUTO, MOST_LANES, FusePlan, largest_cohort
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialConfig
from tuner.fused.cohort import Cohort
from tuner.fused.eligibility import Refusals
from tuner.fused.lane import LaneStart
from tuner.fused.model import FusedModel
from tuner.training.device import autocast, free_bytes, is_out_of_memory
from tuner.training.loop import WorkloadLoop, run_trial
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.rehearsal import Rehearsal, default_configs
from tuner.training.run import Run
from tuner.training.seeds import undisturbed
from tuner.training.timing import Timing

_WORTH_S = 5.0
"""Seconds of work left below which measuring costs more than it could save."""

_NO_GAIN = 1.25
"""The seconds of a compiled step, in those of a traced one, above which compiling gains nothing:
others may have compiled meanwhile, so that less is noise."""

_UNTIMED = "no steps could be timed, since the trials that were to be timed diverged at once"
"""Why nothing is known of the speed of trials, one at a time or as one."""

_GAIN = 1.05
"""The least speed of a cohort, in that of trials one at a time: less is noise."""

_LOOKS, _LOOK_S = 4, 0.025
"""Looks of a measurement, and the seconds of each at least: the quickest counts, since whatever
else a machine does makes steps slower, never quicker."""

_WARMUP_STEPS = 3
"""Steps before that: something is traced, compiled or allocated in each of the first."""

_ASIDE_S = 4.0
"""Seconds that a process needs that only compiles: to import torch, to load data and to trace."""

_PRUNED = 0.5
"""Share of the steps that trials take, on average, where some are pruned."""

_MEMORY = 0.25
"""Share of the free memory that a cohort may take: others may want some of it, too."""


@dataclass(frozen=True)
class Work:
    """The work that a worker has before it.

    Attributes:
        trials: The study's budget of trials.
        left: Trials that this worker has to expect.
        asked: ``auto``, or the number of trials to train as one.
        aside: Whether another process can compile while trials train by traces.
    """

    trials: int
    left: int
    asked: str = AUTO
    aside: bool = False


def calibrate(
    prepared: PreparedWorkload,
    spec: StudySpec,
    work: Work,
    refusals: Refusals,
    known: Callable[[], FusePlan | None] = lambda: None,
) -> tuple[FusePlan, FusedModel | None]:
    """Measures the number of lanes, traced or compiled, that trains a study's trials fastest here.

    Args:
        prepared: The workload on its device.
        spec: The study, resolved.
        work: The trials that are left.
        refusals: Returns why a trial cannot train as a lane.
        known: Returns the plan that another worker may have made by now; called before anything
            is compiled.

    Returns:
        The plan, and the model that it was measured with, unless it is one trial at a time. Where
        another process is to compile, that is a model of traces.
    """
    calibration = _Calibration(prepared, spec, work, refusals, known)
    try:
        with undisturbed(prepared.device):
            plan = calibration.choose()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 (a workload's own; it shows where it counts)
        reason = str(error).strip().splitlines() or [""]
        why = f"trying it has raised {type(error).__name__}: {reason[0]:.200}"
        plan = FusePlan(1, trials=work.trials, reason=why)
    return plan, calibration.find_model(plan)


def warm_up(
    prepared: PreparedWorkload,
    spec: StudySpec,
    plan: FusePlan,
    refusals: Refusals,
    *,
    aside: bool = False,
) -> FusedModel:
    """Returns the model for a plan that was made before, compiled where that is planned.

    Args:
        prepared: The workload on its device.
        spec: The study, resolved.
        plan: The plan.
        refusals: Returns why a trial cannot train as a lane.
        aside: Whether another process can compile: then the model is one of traces, unless its
            code need only be loaded.
    """
    calibration = _Calibration(prepared, spec, Work(plan.trials, 0, str(plan.lanes)), refusals)
    configs, _ = calibration.find_fusable()
    traced = aside or not plan.compiled
    if traced:
        calibration.time_lanes(configs, plan.lanes, compiled=False)
        costs = calibration.models[plan.lanes, False].compiler.costs
    if plan.compiled and (not traced or costs.are_paid):
        calibration.time_lanes(configs, plan.lanes, compiled=True)
    return calibration.models.get((plan.lanes, True)) or calibration.models[plan.lanes, False]


def compile_steps(
    prepared: PreparedWorkload, spec: StudySpec, lanes: int, refusals: Refusals
) -> str:
    """Compiles the steps of a study's cohorts, so that other processes here need only load them.

    Args:
        prepared: The workload on its device.
        spec: The study, resolved.
        lanes: The number of trials that train as one.
        refusals: Returns why a trial cannot train as a lane.

    Returns:
        Why they are not to be used; empty if they are.
    """
    calibration = _Calibration(prepared, spec, Work(0, 0, str(lanes)), refusals)
    configs, _ = calibration.find_fusable()
    traced_s = calibration.time_lanes(configs, lanes, compiled=False)
    compiled_s = calibration.time_lanes(configs, lanes, compiled=True)
    if not calibration.models[lanes, True].compiler.enabled:
        return "nothing can be compiled here"
    if compiled_s > _NO_GAIN * traced_s:
        return "compiled they are no faster"
    # Before anything is compiled, the others know its traces.
    calibration.models[lanes, False].compiler.costs.note()
    return ""


class _Calibration:
    def __init__(
        self,
        prepared: PreparedWorkload,
        spec: StudySpec,
        work: Work,
        refusals: Refusals,
        known: Callable[[], FusePlan | None] = lambda: None,
    ) -> None:
        self._prepared, self._spec, self._work = prepared, spec, work
        self._refusals, self._known = refusals, known
        self.models: dict[tuple[int, bool], FusedModel] = {}
        self._single_s = 0.0
        # As some are pruned, so large a share of the steps is taken, and of the lanes trains.
        self._share = 1.0 if spec.search.pruner == "none" else _PRUNED

    def find_model(self, plan: FusePlan) -> FusedModel | None:
        """Returns the model to begin a plan with, None if trials train one at a time."""
        own, traced = (self.models.get((plan.lanes, made)) for made in (plan.compiled, False))
        return own or traced

    def choose(self) -> FusePlan:
        """Returns the plan, after measuring where that pays."""
        largest, limit = self._largest()
        if largest == 1:
            return self._one_at_a_time(limit)
        self._single_s = self._time_single(default_configs(self._spec)[0])
        work_s = self._single_s * self._steps
        if self._work.asked == AUTO and work_s < _WORTH_S:
            return self._one_at_a_time(f"only {work_s:.1f} s of work are left")
        configs, reason = self.find_fusable()
        if not configs:
            return self._one_at_a_time(reason)
        if work_s < _WORTH_S:
            lane_s = self.time_lanes(configs, largest, compiled=False)
            return self._plan(largest, lane_s, f"traced, {limit}")
        return self._compare(configs, largest)

    def _compare(self, configs: Sequence[TrialConfig], largest: int) -> FusePlan:
        """Returns the fastest of single trials, traced lanes and compiled lanes."""
        self._single_s = statistics.mean(self._time_single(config) for config in configs)
        lanes, lane_s = self._measure(configs, largest)
        if known := self._known():
            return known
        if not self._is_timed(lane_s):
            auto = self._work.asked == AUTO
            return self._one_at_a_time(_UNTIMED) if auto else self._plan(lanes, lane_s, "traced")
        plan = self._compile(configs, lanes, lane_s)
        if self._work.asked == AUTO and self._single_s < _GAIN * plan.lane_s:
            ratio = self._single_s / plan.lane_s
            return self._one_at_a_time(f"{lanes} as one would take {ratio:.2f} times as many steps")
        return plan

    @property
    def _steps(self) -> float:
        """Steps that are left to this worker."""
        batch = self._prepared.examples_a_step(self._spec.train.batch_sizes[0])
        epoch_steps = self._prepared.train_examples // batch
        return self._share * self._work.left * self._spec.budget.full_steps(epoch_steps, batch)

    def _largest(self) -> tuple[int, str]:
        """Returns the most lanes that there may be, and the reason why not more."""
        if self._work.asked != AUTO:
            return max(1, min(int(self._work.asked), self._count_fitting())), "as asked for"
        largest = largest_cohort(self._work.trials)
        if largest == 1:
            return 1, f"{self._work.trials} trials are too few for cohorts that learn"
        fit = self._count_fitting()
        if fit < 2:
            return 1, "there is no memory for two"
        return min(largest, 1 << (fit.bit_length() - 1)), "as many as fit in memory"

    def _count_fitting(self) -> int:
        """Returns the number of lanes that there is memory for."""
        free = free_bytes(self._prepared.device)
        return math.floor(min(MOST_LANES, _MEMORY * free / _lane_bytes(self._prepared, self._spec)))

    def find_fusable(self) -> tuple[list[TrialConfig], str]:
        """Returns the defaults that can train as one, and why the first other one cannot."""
        reason = ""
        found = []
        for config in default_configs(self._spec):
            refusal = self._refusals(config)
            if refusal is None:
                found.append(config)
            else:
                reason = reason or refusal
        return [config for config in found if config.fuse_key == found[0].fuse_key], reason

    def _measure(self, configs: Sequence[TrialConfig], largest: int) -> tuple[int, float]:
        """Returns the number of lanes that is fastest when traced, and the seconds a lane takes."""
        lanes, lane_s = largest, self.time_lanes(configs, largest, compiled=False)
        # Where many lanes gain little they fill the caches, and fewer may gain more.
        while self._work.asked == AUTO and lanes >= 16 and self._single_s < 2 * lane_s:
            fewer_s = self.time_lanes(configs, lanes // 4, compiled=False)
            if fewer_s > 0.9 * lane_s:
                break
            lanes, lane_s = lanes // 4, fewer_s
        return lanes, lane_s

    def _compile(self, configs: Sequence[TrialConfig], lanes: int, lane_s: float) -> FusePlan:
        """Returns the plan for a number of lanes, compiled where that pays for itself."""
        costs, alive = self.models[lanes, False].compiler.costs, self._count_alive(lanes)
        gain_s = min(self._single_s, lane_s) - costs.step_s(lane_s * alive) / alive
        faster = self._single_s >= _GAIN * lane_s
        aside = self._work.aside and faster and not costs.are_paid
        # What is trained meanwhile gains nothing, and other work may have to wait for its cores.
        meanwhile = (costs.seconds + _ASIDE_S) / lane_s if aside else 0.0
        if (self._steps - meanwhile) * gain_s < costs.seconds + aside * _ASIDE_S:
            return self._plan(lanes, lane_s, "traced: compiling would not pay for itself")
        if aside:
            return self._plan(lanes, lane_s, "traced until they are compiled", compiled=True)
        began = time.perf_counter()
        compiled_s = self.time_lanes(configs, lanes, compiled=True)
        if not self.models[lanes, True].compiler.enabled:
            return self._plan(lanes, lane_s, "traced: nothing can be compiled here")
        costs.note()
        if compiled_s > _NO_GAIN * lane_s:
            return self._plan(lanes, lane_s, "traced: compiled they are no faster")
        how = f"compiled in {time.perf_counter() - began:.0f} s"
        return self._plan(lanes, compiled_s, how, compiled=True)

    def _plan(self, lanes: int, lane_s: float, how: str, *, compiled: bool = False) -> FusePlan:
        if not self._is_timed(lane_s):
            reason = f"{lanes}, {how}; {_UNTIMED}"
            return FusePlan(lanes, compiled, trials=self._work.trials, reason=reason)
        ratio = self._single_s / lane_s
        return FusePlan(
            lanes,
            compiled,
            self._single_s,
            lane_s,
            self._work.trials,
            f"{lanes} take {ratio:.3g} times as many steps a second as one at a time, {how}",
        )

    def _is_timed(self, lane_s: float) -> bool:
        """Tells whether both have trained for long enough to time their steps."""
        return math.isfinite(self._single_s) and math.isfinite(lane_s)

    def _one_at_a_time(self, reason: str) -> FusePlan:
        single_s = self._single_s if math.isfinite(self._single_s) else 0.0
        return FusePlan(1, single_s=single_s, trials=self._work.trials, reason=reason)

    def _time_single(self, config: TrialConfig) -> float:
        """Returns the seconds of a step of one trial."""
        watch = _Stopwatch()
        run = Run(self._spec, config, device=self._prepared.device, reporter=watch)
        watch.timing = run.timing
        run_trial(WorkloadLoop(self._prepared), run)
        return watch.step_s

    def time_lanes(self, configs: Sequence[TrialConfig], lanes: int, *, compiled: bool) -> float:
        """Returns the seconds a lane that a cohort's step takes, with as many as train on average.

        Args:
            configs: The configurations, which lanes take in turn.
            lanes: The number of lanes that begin.
            compiled: Whether to compile.
        """
        model = FusedModel(self._prepared, self._spec, compiled=compiled)
        self.models[lanes, compiled] = model
        alive = self._count_alive(lanes)
        try:
            # Where there are more of them than lanes, as many cohorts as it takes to have them all.
            steps_s = [
                _time_cohort(model, [configs[lane % len(configs)] for lane in range(first, last)])
                for first, last in _spans(len(configs), alive)
            ]
        except Exception as error:
            if is_out_of_memory(error):
                return math.inf
            raise
        return statistics.mean(steps_s) / alive

    def _count_alive(self, lanes: int) -> int:
        """Returns the number of a cohort's lanes that train on average."""
        return max(1, round(self._share * lanes))


def _spans(count: int, alive: int) -> list[tuple[int, int]]:
    """Returns where cohorts begin and end that have all of some configurations, in turn.

    >>> _spans(8, 3), _spans(2, 3)
    ([(0, 3), (3, 6), (6, 9)], [(0, 3)])
    """
    return [(first, first + alive) for first in range(0, count, alive)]


def _time_cohort(model: FusedModel, configs: Sequence[TrialConfig]) -> float:
    """Returns the seconds of a cohort's step."""
    watch = _Stopwatch()
    cohort = Cohort(model, [LaneStart(config) for config in configs], watch)
    watch.timing = cohort.timing
    cohort.train()
    return watch.step_s


class _Stopwatch(Rehearsal):
    """Lets a run or a cohort train for a moment, and times its steps.

    Attributes:
        timing: The seconds that it has trained.
        step_s: Seconds of a step.
    """

    timing: Timing

    def __init__(self) -> None:
        super().__init__()
        self._since: tuple[int, float] | None = None
        self._looked_s = 0.0
        self.step_s = math.inf

    def advance(self, step: int) -> bool:
        """Goes on until enough has been seen; the first steps do not count."""
        if self._since is None:
            if step >= _WARMUP_STEPS:
                self._since = (step, self._spent_s())
            return True
        since, before = self._since
        if step > since and (not self._looked_s or self.timing.train_s - before >= _LOOK_S):
            spent_s = self._spent_s()
            step_s = (spent_s - before) / (step - since)
            # A trial too short for a look has the mean of its steps.
            self.step_s = min(self.step_s, step_s) if self._looked_s else step_s
            if spent_s - before >= _LOOK_S:
                self._looked_s += spent_s - before
                self._since = (step, spent_s)
        return self._looked_s < _LOOKS * _LOOK_S

    def _spent_s(self) -> float:
        """Returns the seconds of training, those included that a device has yet to spend."""
        self.timing.wait()
        return self.timing.train_s


def _lane_bytes(prepared: PreparedWorkload, spec: StudySpec) -> float:
    """Returns the approximate bytes of a lane: its state, and the memory of a step."""
    size = prepared.examples_a_step(max(spec.train.batch_sizes, key=prepared.examples_a_step))
    size = math.ceil(size / spec.train.accumulate)
    batch = prepared.batch(torch.arange(size, device=prepared.device))
    model = prepared.build_model(spec.search.seed)
    saved: dict[int, int] = {}

    def note(tensor: Tensor) -> Tensor:
        saved[tensor.data_ptr()] = tensor.nbytes
        return tensor

    with (
        torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor),
        autocast(prepared.precision, prepared.device),
    ):
        prepared.loss(model, batch)
    own = sum(tensor.nbytes for tensor in (*model.parameters(), *model.buffers()))
    # Parameters, two buffers, slow weights, gradients, and as much again in between.
    return 8.0 * own + 3.0 * sum(saved.values())
