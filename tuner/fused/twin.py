"""Trains a trial alone beside a cohort for a while, to check that lanes train as it does."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from tuner.domain.catalog.averages import NO_AVERAGE
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import CONSTANT, SCHEDULES
from tuner.domain.trials import TrialConfig
from tuner.errors import TunerError
from tuner.fused.lane_state import LaneState
from tuner.fused.model import Family, FusedModel
from tuner.optim.composite import CompositeOptimizer
from tuner.optim.groups import trainable
from tuner.training.loop import Step, WorkloadLoop, run_trial
from tuner.training.rehearsal import Rehearsal
from tuner.training.run import Run
from tuner.training.seeds import derive_seed, seeded, undisturbed
from tuner.training.workload import Batch

_ALLOWED = {"float64": 1e-6, "float32": 1e-2, "bfloat16": 1e-1}
"""The largest distance of a lane's update from its twin's, as a share of it, by precision."""

_ROUNDING = {"float64": 1e-13, "float32": 1e-5, "bfloat16": 4e-3}
"""The relative disturbance of weights that shows the effect of rounding on an update, by precision.
The effect counts :data:`_TIMES` times."""

_TIMES = 30


class ApartError(TunerError):
    """Lanes have trained otherwise than their trials would alone."""


@dataclass(frozen=True)
class Moved:
    """The effect of a step on a model.

    Attributes:
        update: The change of the parameters, and the buffers after the step, as one vector.
        loss: The loss before the step, a scalar.
    """

    update: Tensor
    loss: Tensor


class Twin:
    """Trains a lane's trial alone up to a step, and compares that step with the lane's.

    A trace is a function of tensors, so a count that a workload keeps in Python stands still in it,
    and goes on in a trial that trains alone. The twin takes as many steps as the cohort has, from
    the start, so that all that counts has come as far; then both take one step of plain gradient
    descent from where the lane is, by the very function that trains the cohort, on the same batch.
    So rounding has one step to grow in, and its effect is measured by disturbing the weights.

    Args:
        at: The step, from 0, that is compared.

    Attributes:
        at: The step.
        done: Whether it has been compared.
    """

    def __init__(self, at: int) -> None:
        self.at = at
        self.done = False

    def compare(
        self,
        model: FusedModel,
        state: LaneState,
        configs: Sequence[TrialConfig],
        family: Family,
        total_steps: int,
        batch: Batch,
        alive: Callable[[], bool],
    ) -> None:
        """Compares one of the lanes, whichever the study's seed says; they are left as they are.

        Args:
            model: The study's model, fused.
            state: The lanes before the step.
            configs: Their configurations, in the order of their rows.
            family: The kinds that their steps are compiled for.
            total_steps: Steps of a full trial.
            batch: The batch of the step.
            alive: Called after each step of the twin; returns False when all are to stop.

        Raises:
            ApartError: If the lane's step is another than its twin's.
        """
        row = derive_seed(model.seed, "twin's lane") % len(configs)
        with undisturbed(model.prepared.device), torch.enable_grad():
            if not self._catch_up(model, configs[row], alive):
                return
            self.done = True
            comparison = _Comparison(
                model, state, configs, row, family, self.at, total_steps, batch
            )
            reason = comparison.find_difference()
        if reason is not None:
            raise ApartError(
                f"After {self.at} steps a lane does otherwise than its trial alone: {reason}. What "
                "a workload counts or draws in Python has no effect on lanes: keep it in a buffer."
            )

    def _catch_up(self, model: FusedModel, config: TrialConfig, alive: Callable[[], bool]) -> bool:
        """Trains a trial alone up to the step; returns whether it has come so far."""
        if self.at == 0:
            return True
        follower = _Follower(self.at, alive)
        run = Run(model.spec, config, device=model.prepared.device, reporter=follower)
        run_trial(WorkloadLoop(model.prepared), run)
        return not follower.stopped


class _Follower(Rehearsal):
    """Has a trial go on up to a step, unless all are to stop."""

    def __init__(self, at_most: int, alive: Callable[[], bool]) -> None:
        super().__init__(at_most)
        self._alive = alive
        self.stopped = False

    def advance(self, step: int) -> bool:
        self.stopped |= not self._alive()
        return super().advance(step) and not self.stopped


class _Comparison:
    """One step of plain gradient descent from where a lane is, taken alone and as a lane."""

    def __init__(
        self,
        model: FusedModel,
        state: LaneState,
        configs: Sequence[TrialConfig],
        row: int,
        family: Family,
        number: int,
        total_steps: int,
        batch: Batch,
    ) -> None:
        self._total = total_steps
        self._model, self._state, self._row = model, state, row
        self._family, self._number, self._batch = family, number, batch
        self._lanes = len(configs)
        self._config = dataclasses.replace(
            configs[row],
            optimizer="sgd",
            schedule=CONSTANT,
            schedule_values=SCHEDULES[CONSTANT].decode({}),
            average=NO_AVERAGE,
            average_values={},
            momentum_warmup=0.0,
        )

    def find_difference(self) -> str | None:
        """Returns the difference of the steps in words, or None; not finite ones do not differ."""
        own, precision = self._state.p[self._row], self._model.prepared.precision
        first = self._alone(own, 1.0)
        largest = float(first.update[: len(own)].abs().max())
        if not (math.isfinite(largest) and largest > 0):
            return None
        # As large as the weights, so that these do not round it away.
        rate = max(1e-3, float(own.abs().max())) / largest
        noise = torch.randn_like(own) * _ROUNDING[precision]
        alone, disturbed = self._alone(own, rate), self._alone(own * (1 + noise), rate)
        again, lane = self._alone(own, rate), self._as_lane(rate)
        for name in ("loss", "update"):
            expected, other, same, found = (
                getattr(moved, name) for moved in (alone, disturbed, again, lane)
            )
            if not bool(expected.isfinite().all() and other.isfinite().all()):
                return None
            size, apart = float(expected.norm()), float((found - expected).norm())
            if float((same - expected).norm()) > 0.1 * _ALLOWED[precision] * size:
                return f"alone, its {name} is another each time that the same step is taken"
            allowed = _ALLOWED[precision] * size + _TIMES * float((other - expected).norm())
            if not apart <= allowed:
                by = f"{apart / size:.2g} times it" if size else f"{apart:.2g}"
                return f"its {name} differs by {by}"
        return None

    def _alone(self, p: Tensor, rate: float) -> Moved:
        """Has a model with these parameters take the step."""
        prepared, state = self._model.prepared, self._state
        run = Run(self._model.spec, self._at(rate), device=prepared.device, reporter=Rehearsal())
        run.measure(self._total)  # of no account to plain gradient descent
        model = prepared.build_model(self._model.seed)
        parameters = trainable(model)
        with torch.no_grad():
            for name, part in self._model.layout.split(p).items():
                parameters[name].copy_(part)
            for name, buffer in model.named_buffers():
                buffer.copy_(state.buffers[name][self._row])
        optimizer = run.optimizer(model)
        if isinstance(optimizer, CompositeOptimizer):
            optimizer.thaw(self._number / self._total)
        with seeded(self._seed, prepared.device):
            loss = Step(run, prepared, model, optimizer)(self._batch)
        after = torch.cat([parameters[name].detach().reshape(-1) for name in parameters])
        return Moved(
            self._join(after - p, dict(model.named_buffers())), loss.detach().double().reshape(())
        )

    def _as_lane(self, rate: float) -> Moved:
        """Takes the step by the cohort's own function, on copies of all lanes."""
        model, row = self._model, self._row
        coefficients = model.coefficients([self._at(rate)] * self._lanes, self._total)
        rows = coefficients.rows(self._number, self._number + 1, dtype=self._state.p.dtype)
        row_now = rows[0].to(model.prepared.device)
        copy = self._state.replace([tensor.clone() for tensor in self._state.tensors])
        step = model.step(coefficients, self._family, self._number)
        with seeded(self._seed, model.prepared.device), torch.no_grad():
            losses = step(copy, row_now, self._batch, 0)
        buffers = {name: buffer[row] for name, buffer in copy.buffers.items()}
        update = self._join(copy.p[row] - self._state.p[row], buffers)
        return Moved(update, losses[row].double())

    def _at(self, rate: float) -> TrialConfig:
        values = OPTIMIZERS["sgd"].decode({"lr": rate})
        return dataclasses.replace(self._config, optimizer_values=values)

    @property
    def _seed(self) -> int:
        return derive_seed(self._model.seed, "twin")

    @staticmethod
    def _join(update: Tensor, buffers: dict[str, Tensor]) -> Tensor:
        parts = [update, *(b.detach().reshape(-1) for b in buffers.values() if not b.is_complex())]
        return torch.cat([part.double() for part in parts])
