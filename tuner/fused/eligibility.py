"""Finds out which trials can train as lanes, and the reasons why others cannot."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import math
import random
import warnings
from collections.abc import Hashable, Iterable, Iterator
from typing import Any

import numpy as np
import torch

from tuner.domain.catalog.averages import NO_AVERAGE
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import CONSTANT, SCHEDULES
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialConfig
from tuner.errors import TunerError
from tuner.fused.cohort import Cohort
from tuner.fused.compiler import tracing_fault
from tuner.fused.lane import LaneStart
from tuner.fused.model import FusedModel
from tuner.fused.reachable import Reachable
from tuner.fused.update_rules import RULES, WRAPPERS
from tuner.optim.build import build_optimizer
from tuner.optim.groups import check_groups, optimizable, sparse_parameters, trainable
from tuner.training.device import autocast, cast
from tuner.training.loop import WorkloadLoop, run_trial
from tuner.training.module_modes import evaluating
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.rehearsal import Rehearsal
from tuner.training.reporting import Evaluation
from tuner.training.run import Run
from tuner.training.seeds import undisturbed
from tuner.training.workload import Data

_STEPS = 5
"""Steps by which lanes are compared with models alone."""

_ROWS = 16
"""Examples of a batch there, and of a part of an evaluation."""

_BATCHES, _PARTS = 4, 3
"""Batches that there are, so that some come twice, and parts of the evaluation."""

_PAIR = ("momentum", "adam")
"""The optimizers of these: one moves by the size of gradients, the other by their signs."""

_EXACT, _ROUGH = 1e-7, 1e-2
"""The largest relative differences: in float64, and of workloads that compute in other types."""


class Refusals:
    """Returns the reason why a trial cannot train as a lane, or None if it can.

    Some optimizers have no rule for many lanes, and some models are not for an optimizer. Whether
    a workload's models train side by side as each does alone is tried, once for each grouping of
    parameters: a few steps on a few examples, in float64, must come to the same numbers. State and
    randomness that a workload keeps in Python could escape such a trial; they are looked for.

    Args:
        prepared: The workload on its device.
        spec: The study, resolved.
    """

    def __init__(self, prepared: PreparedWorkload, spec: StudySpec) -> None:
        self._prepared, self._spec = prepared, spec
        self._unfit: dict[tuple[str, tuple[Hashable, ...]], str | None] = {}
        self._unlike: dict[Hashable, str | None] = {}

    def __call__(self, config: TrialConfig) -> str | None:
        """Returns the reason, or None if the trial can train as a lane.

        Args:
            config: The configuration of the trial.
        """
        reason = _unknown(config)
        if reason is None:
            kind = (config.optimizer, config.fuse_key)
            if kind not in self._unfit:
                with _quietly(self._prepared):
                    self._unfit[kind] = self._find_unfit(config)
            reason = self._unfit[kind]
        if reason is None:
            _, *groups = config.fuse_key
            if (key := tuple(groups)) not in self._unlike:
                with _quietly(self._prepared):
                    self._unlike[key] = self._try_lanes(config)
            reason = self._unlike[key]
        return reason

    @functools.cached_property
    def _tracing_fault(self) -> str | None:
        return tracing_fault()

    def _find_unfit(self, config: TrialConfig) -> str | None:
        """Returns the reason why the optimizer, or any lane, cannot train the model, else None."""
        if self._tracing_fault is not None:
            return self._tracing_fault
        model = self._prepared.build_model(self._spec.search.seed)
        if sparse_parameters(model):
            return "the model has sparse gradients"
        for name, parameter in trainable(model).items():
            if parameter.is_complex():
                return f"{name} is complex, and lanes have real parameters"
        try:
            build_optimizer(
                config.optimizer,
                config.optimizer_values,
                model,
                config.groups,
                spare_vectors=self._spec.train.no_decay_on_biases_and_norms,
                total_steps=1,
            )
            check_groups(optimizable(model), config.groups)
        except TunerError as error:
            return str(error)
        return None

    def _try_lanes(self, config: TrialConfig) -> str | None:
        """Returns the first difference of lanes from trials alone, or an error that ends both."""
        try:
            return self._find_unlike(config)
        except KeyboardInterrupt:
            raise
        except BaseException as error:  # noqa: BLE001 (a workload's own; alone it fails its trial)
            return f"trying it has raised {_tell(error)}"

    def _find_unlike(self, config: TrialConfig) -> str | None:
        """Returns the first difference of lanes from trials alone, in words, or None."""
        prepared, tolerance = _shrink(self._prepared, torch.float64), _EXACT
        try:
            alone = _train_alone(prepared, self._spec, config)
        except Exception:  # noqa: BLE001 (tried again, and then told)
            # It has tensors of its own, whose type is fixed.
            prepared, tolerance = _shrink(self._prepared), _ROUGH
            try:
                alone = _train_alone(prepared, self._spec, config)
            except Exception as error:  # noqa: BLE001 (a workload raises anything)
                return f"trying it has raised {_tell(error)}"
        try:
            reason = _find_peculiarity(prepared)
            if reason is not None:
                return reason
            together = _train_together(prepared, self._spec, config)
        except Exception as error:  # noqa: BLE001 (a workload raises anything)
            return f"the model cannot be stacked: {_tell(error)}"
        for name, expected in alone.items():
            found = together.get(name, math.nan)
            if not np.isclose(found, expected, rtol=tolerance, atol=tolerance, equal_nan=True):
                return (
                    "side by side its models train otherwise than alone: after "
                    f"{_STEPS} steps {name} is {found:.6g} instead of {expected:.6g}"
                )
        return None


def _unknown(config: TrialConfig) -> str | None:
    """Returns the reason why no lane can have a trial's configuration, else None."""
    for call in OPTIMIZERS[config.optimizer].calls(config.optimizer_values, 1):
        unruled = call if call.target not in RULES else call.wrapper
        if unruled is not None and unruled.target not in WRAPPERS:
            return f"{unruled.class_name} has no rule for many lanes at once"
    if config.networks:
        return "a [network] table is of a training loop's own"
    if config.own:
        return "the workload asks for hyperparameters of its own"
    return None


@contextlib.contextmanager
def _quietly(prepared: PreparedWorkload) -> Iterator[None]:
    """Tries a workload without warnings or lasting effect on randomness."""
    with undisturbed(prepared.device), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _tell(error: BaseException) -> str:
    reason = str(error).strip().splitlines() or [""]
    return f"{type(error).__name__}: {reason[0]:.200}"


# Trying.


def _shrink(prepared: PreparedWorkload, dtype: torch.dtype | None = None) -> PreparedWorkload:
    """Returns a workload with a few examples from all over its data, which may be cast."""

    def take(tensor: torch.Tensor, rows: int) -> torch.Tensor:
        few = tensor[:: max(1, len(tensor) // rows)][:rows].clone()
        return few if dtype is None else cast(few, dtype)

    return dataclasses.replace(
        prepared,
        data=Data(
            train=tuple(take(tensor, _BATCHES * _ROWS) for tensor in prepared.data.train),
            val=tuple(take(tensor, _PARTS * _ROWS) for tensor in prepared.data.val),
        ),
        precision=prepared.precision if dtype is None else "float64",
        evaluation_rows=_ROWS,
    )


def _pair(config: TrialConfig, examples: int) -> list[TrialConfig]:
    """Returns the configurations to try: plain optimizers, with the same groups of parameters."""
    return [
        dataclasses.replace(
            config,
            batch_size=min(_ROWS, examples),
            optimizer=name,
            optimizer_values=OPTIMIZERS[name].decode({}),
            schedule=CONSTANT,
            schedule_values=SCHEDULES[CONSTANT].decode({}),
            average=NO_AVERAGE,
            momentum_warmup=0.0,
        )
        for name in _PAIR
    ]


def _train_alone(
    prepared: PreparedWorkload, spec: StudySpec, config: TrialConfig
) -> dict[str, float]:
    """Returns the metrics and logged numbers of models trained one after the other, by name."""
    found: dict[str, float] = {}
    for one in _pair(config, prepared.train_examples):
        reporter = Rehearsal()
        run = Run(spec, one, device=prepared.device, reporter=reporter, at_most=_STEPS)
        run_trial(WorkloadLoop(prepared), run)
        found |= _name(one, reporter.last.get(0), run.state.take_logged())
    return found


def _train_together(
    prepared: PreparedWorkload, spec: StudySpec, config: TrialConfig
) -> dict[str, float]:
    """Returns the same of models trained as lanes."""
    plain = spec.model_copy(update={"space": spec.space.model_copy(update={"optimizers": _PAIR})})
    configs, reporter = _pair(config, prepared.train_examples), Rehearsal()
    model = FusedModel(prepared, plain)
    cohort = Cohort(model, [LaneStart(one) for one in configs], reporter, at_most=_STEPS)
    cohort.train()
    found: dict[str, float] = {}
    for lane, one in enumerate(configs):
        found |= _name(one, reporter.last.get(lane), cohort.take_logged(lane))
    return found


def _name(
    config: TrialConfig, last: Evaluation | None, logged: Iterable[tuple[int, str, float]]
) -> dict[str, float]:
    """Returns the last metrics and logged numbers of a trial, by name."""
    values = {name: value for _, name, value in logged} | ({} if last is None else last.metrics)
    return {f"{name} by {config.optimizer}": value for name, value in values.items()}


# Looking.


def _find_peculiarity(prepared: PreparedWorkload) -> str | None:
    """Returns why a step is not a pure tensor function, else None.

    The reasons are Python state, NumPy or Python randomness, gradient hooks, parameters that a step
    freezes or thaws, and unused parameters or sparse gradients.
    """
    model = prepared.build_model(0)
    for name, parameter in trainable(model).items():
        if parameter._backward_hooks:  # noqa: SLF001 (torch tells of hooks in no other way)
            return f"a hook is on the gradient of {name}"
    trained = set(trainable(model))
    reachable = Reachable({"the workload": prepared.workload, "the model": model})
    known: dict[str, Any] = {}
    for turn in range(3):
        drawn = _drawn_outside_torch()
        rows = torch.arange(min(_ROWS, prepared.train_examples), device=prepared.device)
        with autocast(prepared.precision, prepared.device):
            loss = prepared.loss(model, prepared.batch(rows))
        loss.backward()
        with evaluating(model), torch.no_grad(), autocast(prepared.precision, prepared.device):
            prepared.metrics(model, next(prepared.chunks())[0])
        if _drawn_outside_torch() != drawn:
            return "it draws random numbers by Python or NumPy: draw them by torch"
        before, known = known, reachable.values()
        for name, value in known.items():
            # The first turn may set state up, which then stays.
            if turn > 1 and before.get(name) != value:
                return f"a step changes {name}: keep what changes in a buffer"
    if changed := trained ^ trainable(model).keys():
        return f"a step freezes or thaws {min(changed)}"
    for name, parameter in trainable(model).items():
        if parameter.grad is None or parameter.grad.is_sparse:
            none = f"{name} gets no gradient: freeze it (requires_grad_(False))"
            return none if parameter.grad is None else f"{name} has sparse gradients"
    return None


def _drawn_outside_torch() -> tuple[Any, ...]:
    name, keys, *rest = np.random.get_state()
    return random.getstate(), name, np.asarray(keys).tobytes(), *rest
