"""The choice of a worker between training one trial at a time and many as one."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence

import torch

from tuner.domain.fuse_plan import AUTO, OFF, FusePlan
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialConfig
from tuner.errors import StorageError
from tuner.fused.calibration import Work, calibrate, warm_up
from tuner.fused.cohort import Cohort
from tuner.fused.compiler import tracing_fault
from tuner.fused.eligibility import Refusals
from tuner.fused.lane import LaneStart
from tuner.fused.model import FusedModel
from tuner.fused.twin import Twin
from tuner.service.worker.compiling import Compiling, may_compile_aside
from tuner.service.worker.endings import describe
from tuner.service.worker.held_trial import HeldTrial
from tuner.store import Database, StudyHandle
from tuner.store.plans import keep_plan, read_plans
from tuner.training.device import is_out_of_memory
from tuner.training.loop import TrainingLoop, WorkloadLoop
from tuner.training.rehearsal import Rehearsal, default_configs
from tuner.training.seeds import derive_seed

Log = Callable[[str], None]

_SHARE, _LEAST_STEPS = 0.01, 4
"""Of a study's work, what may be spent on comparing a lane with its trial alone; and steps that
this takes in any study."""


class Fusing:
    """Decides whether a worker trains trials one at a time or many as one.

    Args:
        spec: The study, resolved.
        loop: Its training loop; only that of a workload class can be fused.
        asked: ``auto``, ``off``, or the number of trials to train as one.
        log: Takes a line of text.
    """

    def __init__(self, spec: StudySpec, loop: TrainingLoop, asked: str, log: Log) -> None:
        self._spec, self._asked, self._log = spec, asked, log
        self._prepared = loop.prepared if isinstance(loop, WorkloadLoop) else None
        self._plan = FusePlan(1, reason="as asked for")
        self._model: FusedModel | None = None
        self._compiling: Compiling | None = None
        self._broken = False

    @property
    def lanes(self) -> int:
        """The most trials that train as one."""
        return self._plan.lanes

    def plan(self, database: Database, study: StudyHandle, trials: int, left: int) -> None:
        """Plans how many trials train as one, by the study's plan for such a device if it has one.

        Args:
            database: The database that holds the study.
            study: The study.
            trials: The study's budget of trials.
            left: How many trials this worker has to expect.
        """
        if self._asked == OFF:
            return
        if self._prepared is None:
            own = FusePlan(1, trials=trials, reason="only workload classes train many as one")
            self._plan = keep_plan(database, study, f"{self._asked} on any device", own)
            self._log(str(self._plan))
            return
        key = f"{self._asked} on {_kind_of(self._prepared.device)}"

        def read() -> FusePlan | None:
            kept = read_plans(database, study).get(key)
            return kept if kept is not None and kept.trials == trials else None

        def look() -> FusePlan | None:
            with contextlib.suppress(StorageError):  # what is wrong shows where the plan is kept
                return read()
            return None

        plan = read()
        # Who asks for a number gets the same search again: no code comes in between.
        aside = self._asked == AUTO and self._spec.passed is None
        aside = aside and may_compile_aside(self._prepared)
        if plan is None:
            work = Work(trials, left, self._asked, aside)
            found, self._model = calibrate(self._prepared, self._spec, work, self._refusals, look)
            plan = keep_plan(database, study, key, found)
            if plan != found:
                self._model = None
        # The plan may be of a worker with another torch.
        if plan.lanes > 1 and (fault := tracing_fault()) is not None:
            plan = FusePlan(1, trials=trials, reason=fault)
        self._plan = plan
        if plan.lanes > 1 and self._model is None:
            self._model = warm_up(self._prepared, self._spec, plan, self._refusals, aside=aside)
        self._log(str(plan))
        if self._model is not None and plan.compiled and not self._model.compiler.enabled:
            self._begin_compiling(self._prepared.device, self._model)
        for config in default_configs(self._spec) if plan.lanes > 1 else ():
            reason = self._refusals(config)
            if reason is not None:
                self._log(f"Trials of {config.optimizer} train one at a time: {reason}")

    @functools.cached_property
    def twin(self) -> Twin | None:
        """The check that compares a lane of this worker's first cohort with its trial alone.

        It does so at a step that the study's seed says, as late as a hundredth of the study's work
        allows.
        """
        if self._prepared is None:
            return None
        batch = self._prepared.examples_a_step(self._spec.train.batch_sizes[0])
        steps = self._spec.budget.full_steps(self._prepared.train_examples // batch, batch)
        latest = float(steps - 1)
        if self._plan.single_s and self._plan.lane_s:
            work_s = self._plan.trials * steps * self._plan.lane_s
            latest = min(latest, max(_LEAST_STEPS, _SHARE * work_s / self._plan.single_s))
        seed = derive_seed(self._spec.search.seed, "twin's step")
        return Twin(1 + seed % math.floor(latest)) if latest >= 1 else None

    def _begin_compiling(self, device: torch.device, traced: FusedModel) -> None:
        """Has another process compile what is traced, if that has not failed here before."""
        costs = traced.compiler.costs
        self._compiling = Compiling(self._spec, self._plan.lanes, device, costs, self._log)
        self._compiling.is_done()

    @property
    def model(self) -> FusedModel:
        """The study's model, fused."""
        if self._model is None:
            if self._prepared is None:
                raise RuntimeError("A training loop of one's own cannot be fused.")
            self._model = FusedModel(self._prepared, self._spec)
        return self._model

    def use_compiled(self) -> None:
        """Has the cohorts that begin from now on train by compiled code, once there is some."""
        if self._compiling is None or self._prepared is None or not self._compiling.is_done():
            return
        self._compiling = None
        self._model = FusedModel(self._prepared, self._spec, compiled=True)
        self._log("Steps have been compiled: cohorts train faster from now on")

    def close(self) -> None:
        """Ends the process that compiles, if there is one."""
        if self._compiling is not None:
            self._compiling.end()

    def can_fuse(self, config: TrialConfig) -> bool:
        """Tells whether a trial can train as a lane here."""
        if self._prepared is None or self._broken:
            return False
        return self._refusals(config) is None

    @functools.cached_property
    def _refusals(self) -> Refusals:
        if self._prepared is None:
            raise RuntimeError("A training loop of one's own cannot be fused.")
        return Refusals(self._prepared, self._spec)

    def choose(self, trials: Sequence[HeldTrial]) -> tuple[list[HeldTrial], bool]:
        """Returns the largest group of trials that can train together, and whether as a cohort.

        A trial that was saved as a lane continues as a lane, even alone.

        Args:
            trials: At least one trial.
        """
        together: dict[tuple[Hashable, ...], list[HeldTrial]] = defaultdict(list)
        for trial in trials:
            self._load(trial)
        if len(trials) == 1 and trials[0].state is None:
            return list(trials), False
        for trial in trials:
            together[self._key(trial)].append(trial)
        key, chosen = max(together.items(), key=lambda item: (item[0][0], len(item[1])))
        as_lane = any(trial.state is not None for trial in chosen)
        return chosen, bool(key[0]) and (len(chosen) > 1 or as_lane)

    def _key(self, trial: HeldTrial) -> tuple[Hashable, ...]:
        if trial.apart or not self.can_fuse(trial.config):
            return (False, trial.number)
        step = 0 if trial.state is None else trial.state["steps"]["done"]
        return (True, step, trial.spec.search.seed, *trial.config.fuse_key)

    def _load(self, trial: HeldTrial) -> None:
        """Reads the checkpoint of a trial that was saved as a lane, and sees that it fits."""
        if trial.lease.checkpoint is None:
            return
        try:
            state = trial.checkpoints.load()
            if state is None or state.get("kind") != "lane":
                # The trial was trained alone, or its file says so, and goes on alone.
                trial.apart = True
                return
            if not self.can_fuse(trial.config):
                return
            trial.state = state
            model = self.model.with_seed(trial.spec.search.seed)
            trial.resume(Cohort(model, [LaneStart(trial.config, state)], Rehearsal()))
        except StorageError:
            trial.apart = True  # whoever trains it alone says what is wrong
        except Exception as error:  # noqa: BLE001 (a file may hold anything)
            trial.start_over(error)

    def retreat(self, error: BaseException) -> None:
        """Trains with fewer lanes from now on, or none, after something has been raised."""
        lanes = self._plan.lanes // 2 if is_out_of_memory(error) else 1
        self._plan = dataclasses.replace(self._plan, lanes=max(1, lanes))
        self._broken = self._plan.lanes == 1
        how = "one at a time" if self._broken else f"{lanes} as one"
        self._log(f"Trials train {how} from now on: {describe(error).splitlines()[0]}")


def _kind_of(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
