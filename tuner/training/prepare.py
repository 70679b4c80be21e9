"""From a study's workload to its training loop, seen to run before anything depends on it."""

from __future__ import annotations

import math
import traceback
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tuner.domain.dimensions import Choice, Dimension, Fixed, Value
from tuner.domain.optimizers import OPTIMIZERS, OptimizerRow
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialConfig, decode, default_proposals
from tuner.errors import SpecError, TunerError, WorkloadError
from tuner.training.bench import Bench
from tuner.training.device import autocast
from tuner.training.loop import Step, Train, run_trial, train_workload
from tuner.training.reporting import Evaluation
from tuner.training.run import Run
from tuner.training.workload import load_workload, missing_methods

_REHEARSAL_STEPS = 2


class Rehearsal:
    """Takes a run's reports where no study is, and keeps them.

    Args:
        at_most: The step from which on a loop that counts its steps itself is stopped.
    """

    def __init__(self, at_most: float = math.inf) -> None:
        self._at_most = at_most
        self.evaluations: list[Evaluation] = []

    def report(self, evaluation: Evaluation) -> bool:
        """Takes an evaluation."""
        self.evaluations.append(evaluation)
        return True

    def advance(self, step: int) -> bool:
        """Goes on, up to a point."""
        return step < self._at_most

    def suggest(self, name: str, axis: Dimension) -> Value:
        """Returns the first value of a hyperparameter."""
        match axis:
            case Choice():
                return axis.choices[0]
            case Fixed():
                return axis.value
            case _:
                return axis.low

    def save(self) -> None:
        """Writes nothing."""


def prepare(spec: StudySpec, device: torch.device) -> Train:
    """Loads a study's workload as a training loop; a class is seen to keep its contract.

    Args:
        spec: The study, resolved.
        device: Where it trains.

    Raises:
        SpecError: If the workload cannot be loaded, breaks its contract, or lacks the metric.
        WorkloadError: If its code raises.
    """
    return _explained(spec, lambda: _prepare(spec, device, check=False))


def prepare_checked(spec: StudySpec, device: torch.device) -> Train:
    """Loads a study's workload and sees it run: a few steps and one evaluation.

    A workload class is stepped once with every optimizer of the study.

    Args:
        spec: The study, resolved.
        device: Where it trains.

    Raises:
        SpecError: If the workload cannot be loaded, breaks its contract, or lacks the metric.
        WorkloadError: If its code raises, or an optimizer cannot train its model.
    """
    return _explained(spec, lambda: _prepare(spec, device, check=True))


def _prepare(spec: StudySpec, device: torch.device, *, check: bool) -> Train:
    target = load_workload(spec.study.workload)
    if not missing_methods(target):
        workload: Any = target
        bench = Bench.prepare(workload, device, spec.train.precision)
        probe(bench, spec, optimizers=check)
        return partial(train_workload, bench=bench)
    train: Any = target
    if check:
        first, *others = _defaults(spec)
        # Others ask nothing of the loop or its model that the first does not.
        demanding = [o for o in others if _is_demanding(OPTIMIZERS[o.optimizer])]
        for config in (first, *demanding):
            rehearse(train, spec, config, device)
    return train  # type: ignore[no-any-return]


def _is_demanding(row: OptimizerRow) -> bool:
    """Tells whether an optimizer needs closures, parameters of a kind, a length or a package."""
    needs = (row.closure, row.takes != "all", row.length_argument is not None)
    return any(needs) or not row.target.startswith("torch.")


def _explained(spec: StudySpec, load: Callable[[], Train]) -> Train:
    where = f"study.workload = {spec.study.workload!r}"
    try:
        return load()
    except SpecError as error:
        text = str(error)
        raise SpecError(text if text.startswith(where) else f"{where}: {text}") from error
    except TunerError:
        raise
    except (Exception, SystemExit) as error:
        frame = traceback.extract_tb(error.__traceback__)[-1]
        raise WorkloadError(
            f"{where} does not run: {type(error).__name__}: {error} "
            f"({frame.filename}:{frame.lineno}, in {frame.name})."
        ) from error


def rehearse(
    train: Train, spec: StudySpec, config: TrialConfig, device: torch.device
) -> tuple[dict[str, float], Run]:
    """Runs a training loop for two steps.

    Args:
        train: The loop.
        spec: The study, resolved.
        config: What to train with.
        device: Where it trains.

    Returns:
        The metrics it reported or returned, and the run.

    Raises:
        SpecError: If it neither reports nor returns the study's metric.
        WorkloadError: If the optimizer needs a closure and the loop gives none.
    """
    reporter = Rehearsal(_REHEARSAL_STEPS)
    run = Run(spec, config, device=device, reporter=reporter, at_most=_REHEARSAL_STEPS)
    try:
        outcome = run_trial(train, run)
    except TypeError as error:
        if "closure" not in str(error):
            raise
        raise WorkloadError(
            f"{config.optimizer} needs a closure: call optimizer.step(closure), where closure() "
            "clears the gradients, computes the loss, calls its backward() and returns it; or "
            f"leave {config.optimizer} out of space.optimizers."
        ) from error
    metrics = reporter.evaluations[-1].metrics if reporter.evaluations else {}
    if outcome.value is not None:
        metrics = {spec.study.metric: outcome.value} | metrics
    if not metrics and outcome.diverged_step is None:
        raise SpecError(
            f"the training loop neither reported nor returned {spec.study.metric}: call "
            f"run.report(step, {spec.study.metric}=...) where run.due(step), or return it."
        )
    return metrics, run


def probe(bench: Bench, spec: StudySpec, *, optimizers: bool = True) -> dict[str, float]:
    """Runs a workload class: a loss, an evaluation, and a step with every optimizer.

    Args:
        bench: The workload on its device.
        spec: The study it is to train in, resolved.
        optimizers: Whether to step the optimizers too.

    Returns:
        The metrics of the untrained model.

    Raises:
        SpecError: If the workload breaks its contract or lacks the study's metric.
        WorkloadError: If an optimizer cannot train its model.
    """
    choices = getattr(spec.train.batch_size, "choices", None)
    sizes = choices or [getattr(spec.train.batch_size, "value", 1)]
    largest = max(int(size) for size in sizes)
    if largest > bench.train_examples:
        raise SpecError(
            f"train.batch_size = {largest}: the workload has only {bench.train_examples} "
            "training examples; use a smaller batch."
        )
    batch = bench.batch(torch.arange(largest, device=bench.device))
    model = bench.build_model(spec.search.seed)
    with autocast(bench.precision, bench.device):
        loss = bench.workload.loss(model, batch)
    if not isinstance(loss, Tensor) or loss.ndim != 0 or not loss.requires_grad:
        raise SpecError("loss() must return a scalar tensor with a gradient.")
    metrics = bench.evaluate(model)
    if spec.study.metric not in metrics:
        raise SpecError(
            f"study.metric = {spec.study.metric!r}: the workload returns "
            f"{', '.join(sorted(metrics))}; name one of these."
        )
    for config in _defaults(spec) if optimizers else []:
        _try_optimizer(bench, spec, config, batch)
    return metrics


def _try_optimizer(
    bench: Bench, spec: StudySpec, config: TrialConfig, batch: tuple[Tensor, ...]
) -> None:
    run = Run(spec, config, device=bench.device, reporter=Rehearsal())
    run.measure(max(1, bench.train_examples // config.batch_size))
    model = bench.build_model(spec.search.seed)
    optimizer = run.optimizer(model)
    run.check_groups()
    try:
        Step(run, bench, model, optimizer)(batch)
    except Exception as error:  # packages have errors of their own
        raise WorkloadError(
            f"{config.optimizer} cannot train this model: {error}. "
            f"Leave {config.optimizer} out of space.optimizers."
        ) from error


def _defaults(spec: StudySpec) -> list[TrialConfig]:
    every = spec.with_budget(spec.budget.model_copy(update={"trials": 10**6}))
    return [decode(spec, proposal) for proposal in default_proposals(every)]
