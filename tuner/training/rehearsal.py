"""A study's workload as a training loop, run for a few steps before a trial depends on it."""

from __future__ import annotations

import contextlib
import math
import re
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace
from typing import Any, TypeVar, cast

import torch
from torch import Tensor, nn

from tuner.domain.catalog.averages import NO_AVERAGE
from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Value
from tuner.domain.catalog.optimizers import OPTIMIZERS, OptimizerRow
from tuner.domain.command import OPTIMIZER_NAMES, placeholders_of
from tuner.domain.passed import refuse_passed
from tuner.domain.spec import StudySpec
from tuner.domain.train import FULL
from tuner.domain.trials import TrialConfig, decode, default_proposals
from tuner.errors import SpecError, TunerError, WorkloadError, find_place, tell_error
from tuner.training.device import autocast
from tuner.training.forks import ending_forks
from tuner.training.loop import OWN_OPTIMIZER, Step, TrainingLoop, WorkloadLoop, run_trial, split
from tuner.training.module_modes import evaluating
from tuner.training.numbers import check_name
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.processes.command_loop import CommandLoop
from tuner.training.reporting import Diverged, Evaluation
from tuner.training.run import Run
from tuner.training.seeds import split_seed
from tuner.training.workload import Batch, construct_workload, load_workload, missing_methods

T = TypeVar("T")

_REHEARSAL_STEPS = 2

_HARDLY = 1e-12
"""A learning rate at which two steps change no metric."""

_UNSOUND = "Look for NaN in the data, the logarithm of 0, or a division by 0."

_KEY = re.compile(r"[a-z_]+(\.[a-z_]+)+( = .*)?:")
"""The beginning of a message that names a key of the study file already."""


class Rehearsal:
    """Takes reports where no study is, and keeps the last of every lane.

    Args:
        at_most: The step from which on a loop that counts its steps itself is stopped, once it
            has reported.

    Attributes:
        last: The last evaluation of each lane that has not diverged; a run is lane 0.
    """

    def __init__(self, at_most: float = math.inf) -> None:
        self._at_most = at_most
        self.last: dict[int, Evaluation] = {}

    @property
    def metrics(self) -> dict[str, float]:
        """The metrics that a run has reported last, by name; none if it has not reported."""
        return self.last[0].metrics if 0 in self.last else {}

    def report(self, evaluations: Sequence[Evaluation | None]) -> Sequence[bool]:
        """Takes an evaluation of every lane; all go on."""
        self.last |= {lane: found for lane, found in enumerate(evaluations) if found is not None}
        return [True] * len(evaluations)

    def diverged(self, lane: int, step: int) -> None:
        """Forgets a lane."""
        self.last.pop(lane, None)

    def advance(self, step: int) -> bool:
        """Goes on, up to a point."""
        return step < self._at_most or not self.last

    def left(self) -> Collection[int]:
        """Returns nothing: all lanes go on."""
        return ()

    def suggest(self, name: str, axis: Dimension) -> Value:
        """Returns the first value of a hyperparameter."""
        match axis:
            case Choice():
                return axis.choices[0]
            case Fixed():
                return axis.value
            case _:
                return axis.low

    def warn(self, text: str) -> None:
        """Ignores a warning, which trials of the study repeat."""

    def save(self) -> None:
        """Writes nothing."""


def prepare(spec: StudySpec, device: torch.device, passed: Any = None) -> TrainingLoop:
    """Loads a study's workload as a training loop, and checks the contract of a workload class.

    Args:
        spec: The study, resolved.
        device: The device it trains on.
        passed: The workload, if it was passed as an object; None to import it.

    Raises:
        SpecError: If the workload cannot be loaded, breaks its contract, or lacks the metric.
        WorkloadError: If its code raises.
    """
    return explained(spec, lambda: _prepare(spec, device, passed, check=False))


def prepare_checked(spec: StudySpec, device: torch.device, passed: Any = None) -> TrainingLoop:
    """Loads a study's workload, and checks it by running a few steps and one evaluation.

    A workload class is stepped once with every optimizer of the study.

    Args:
        spec: The study, resolved.
        device: The device it trains on.
        passed: The workload, if it was passed as an object; None to import it.

    Raises:
        SpecError: If the workload cannot be loaded, breaks its contract, or lacks the metric.
        WorkloadError: If its code raises, or an optimizer cannot train its model.
    """
    return explained(spec, lambda: _prepare(spec, device, passed, check=True))


def _prepare(spec: StudySpec, device: torch.device, passed: Any, *, check: bool) -> TrainingLoop:
    if spec.study.command is not None:
        return _prepare_command(spec, device, check=check)
    if passed is None:
        refuse_passed(spec.passed, spec.study.name)
        target = load_workload(spec.study.workload)
    else:
        target = construct_workload(passed, f"study.workload = {spec.study.workload!r}")
    if not missing_methods(target):
        workload: Any = target
        seed = split_seed(spec.search.seed)
        prepared = PreparedWorkload.prepare(workload, device, spec.train.precision, seed)
        probe(prepared, spec, optimizers=check)
        return WorkloadLoop(prepared)
    loop = cast("TrainingLoop", target)
    if check:
        first, *others = default_configs(spec)
        # Others ask nothing of the loop or its model that the first does not.
        demanding = [o for o in others if _is_demanding(OPTIMIZERS[o.optimizer])]
        runs = [rehearse(loop, spec, c, device)[1] for c in (first, *demanding, *_variants(spec))]
        if any(isinstance(run.evaluations.over, Diverged) for run in runs):
            _check_metric(loop, spec, _at_rest(first), device)
    return loop


def _prepare_command(spec: StudySpec, device: torch.device, *, check: bool) -> TrainingLoop:
    """Returns the loop of a command; a check runs it until its first evaluation.

    It does so with every optimizer that the command is told the name of: it has to know them.
    """
    loop = CommandLoop.of(spec)
    configs = default_configs(spec)
    told = not set(OPTIMIZER_NAMES).isdisjoint(placeholders_of(loop.words))
    tried = check and loop.process.check_s > 0
    if not tried:
        return loop
    runs = [
        rehearse(loop, spec, config, device)[1] for config in (configs if told else configs[:1])
    ]
    return replace(loop, ends_at_once=all(run.taken >= run.total_steps for run in runs))


def _check_metric(
    loop: TrainingLoop, spec: StudySpec, config: TrialConfig, device: torch.device
) -> None:
    """Refuses a loop whose metric is infinite or NaN where hardly anything is trained."""
    _, run = rehearse(loop, spec, config, device)
    if isinstance(run.evaluations.over, Diverged):
        raise WorkloadError(
            f"{spec.study.workload} gives a {spec.study.metric} that is infinite or NaN after its "
            f"first step, at any learning rate, so that every trial would diverge. {_UNSOUND}"
        )


def _at_rest(config: TrialConfig) -> TrialConfig:
    """Returns a configuration with a learning rate that hardly changes a weight."""
    rate: dict[str, Value] = {OPTIMIZERS[config.optimizer].rate: _HARDLY}
    return replace(config, optimizer_values=config.optimizer_values | rate)


def _is_demanding(row: OptimizerRow) -> bool:
    """Returns whether an optimizer needs closures, parameters of a kind, a length or a package."""
    needs = (row.closure, row.takes != "all", row.length_argument is not None)
    return any(needs) or row.package != "torch"


def explained(spec: StudySpec, act: Callable[[], T]) -> T:
    """Returns what a call of a workload's code returns; its errors name the workload.

    Args:
        spec: The study.
        act: The call.

    Raises:
        SpecError: If the workload breaks its contract.
        WorkloadError: If its code raises.
    """
    key = "workload" if spec.study.command is None else "command"
    where = f"study.{key} = {spec.study.workload!r}"
    try:
        with ending_forks():
            return act()
    except SpecError as error:
        text = str(error)
        raise SpecError(text if _KEY.match(text) else f"{where}: {text}") from error
    except TunerError:
        raise
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        place = find_place(error)
        at = f" ({place.filename}:{place.lineno}, in {place.name})" if place else ""
        raise WorkloadError(f"{where} does not run: {tell_error(error)}{at}.") from error


def rehearse(
    loop: TrainingLoop, spec: StudySpec, config: TrialConfig, device: torch.device
) -> tuple[dict[str, float], Run]:
    """Runs a training loop for two steps, a command until its first evaluation.

    Args:
        loop: The loop.
        spec: The study, resolved.
        config: The settings to train with.
        device: The device it trains on.

    Returns:
        The metrics it reported or returned, and the run.

    Raises:
        SpecError: If it neither reports nor returns the study's metric.
        WorkloadError: If it asks for no optimizer, or gives no closure where that needs one.
    """
    reporter = Rehearsal(_REHEARSAL_STEPS)
    # A command is asked for a full trial, and ended at its first evaluation: how often it evaluates
    # is its own matter.
    at_most = None if isinstance(loop, CommandLoop) else _REHEARSAL_STEPS
    run = Run(spec, config, device=device, reporter=reporter, at_most=at_most)
    try:
        with _norms_explained(f"in batches of {config.batch_size}"):
            outcome = run_trial(loop, run)
    except TypeError as error:
        if "closure" not in str(error):
            raise
        raise WorkloadError(
            f"{config.optimizer} needs a closure: call optimizer.step(closure), where closure() "
            "clears the gradients, computes the loss, calls its backward() and returns it; or "
            f"leave {config.optimizer} out of space.optimizers."
        ) from error
    metrics = reporter.metrics
    if outcome.value is not None:
        metrics = {spec.study.metric: outcome.value} | metrics
    if not metrics and outcome.diverged_step is None:
        raise SpecError(
            f"the training loop neither reported nor returned {spec.study.metric}: call "
            f"run.report({spec.study.metric}=...) where run.due(), or return it."
        )
    if not run.state.has_optimizer:
        raise WorkloadError(OWN_OPTIMIZER)
    if metrics:
        _check_shown(spec, metrics)
    return metrics, run


def probe(
    prepared: PreparedWorkload, spec: StudySpec, *, optimizers: bool = True
) -> dict[str, float]:
    """Runs a workload class: a loss, an evaluation, and a step with every optimizer.

    Args:
        prepared: The workload on its device.
        spec: The study it is to train in, resolved.
        optimizers: Whether to step the optimizers too.

    Returns:
        The metrics of the untrained model.

    Raises:
        SpecError: If the workload breaks its contract or lacks the study's metric.
        WorkloadError: If an optimizer cannot train its model.
    """
    sizes = [prepared.train_examples if n == FULL else n for n in spec.train.batch_sizes]
    if max(sizes) > prepared.train_examples:
        raise SpecError(
            f"train.batch_size = {max(sizes)}: {spec.study.workload} has only "
            f"{prepared.train_examples} training examples; use a smaller batch."
        )
    batch = prepared.batch(torch.arange(max(sizes), device=prepared.device))
    model = prepared.build_model(spec.search.seed)
    parts = [part for part, _ in split(batch, spec.train.accumulate)]
    _check_smallest(prepared, model, batch, min(sizes), spec.train.accumulate)
    loss = _loss_of(prepared, model, parts[0])
    if not isinstance(loss, Tensor) or loss.ndim != 0 or not loss.requires_grad:
        raise SpecError("loss() must return a scalar tensor with a gradient.")
    if optimizers:
        _check_loss(spec, float(loss.detach()))
    _check_parts(prepared, model, parts[:2])
    metrics = prepared.evaluate(model)
    for name in metrics:
        check_name("metrics()", name)
    if spec.study.metric not in metrics:
        raise SpecError(
            f"study.metric = {spec.study.metric!r}: {spec.study.workload} returns "
            f"{', '.join(sorted(metrics))}; name one of these."
        )
    _check_shown(spec, metrics)
    for config in default_configs(spec) if optimizers else []:
        _try_optimizer(prepared, spec, config, batch)
    return metrics


def _check_shown(spec: StudySpec, metrics: Collection[str]) -> None:
    """Refuses a study that shows a metric which its workload does not give."""
    for name in spec.study.show:
        if name not in metrics:
            raise SpecError(
                f"study.show: {name!r} is no metric of {spec.study.workload}, which gives "
                f"{', '.join(sorted(metrics))}: name one of these, or leave it out."
            )


def _check_loss(spec: StudySpec, loss: float) -> None:
    """Refuses a loss that is infinite or NaN before any setting of a trial can be the cause."""
    if not math.isfinite(loss):
        raise WorkloadError(
            f"The loss of {spec.study.workload} is {loss:g} on its first batch, before anything "
            f"is trained, so that every trial would diverge. {_UNSOUND}"
        )


def _loss_of(prepared: PreparedWorkload, model: nn.Module, batch: Batch) -> Tensor:
    with autocast(prepared.precision, prepared.device):
        return prepared.loss(model, batch)


def _check_smallest(
    prepared: PreparedWorkload, model: nn.Module, batch: Batch, batch_size: int, accumulate: int
) -> None:
    """Checks that a single example can be a batch, or a part of one, where some are."""
    if batch_size // min(accumulate, batch_size) == 1:
        with torch.no_grad(), _norms_explained("1 at a time"):
            _loss_of(prepared, model, tuple(tensor[:1] for tensor in batch))


def _check_parts(prepared: PreparedWorkload, model: nn.Module, parts: list[Batch]) -> None:
    """Checks that the loss of a batch is the mean of the losses of its parts."""
    if len(parts) == 1:
        return
    joint = tuple(torch.cat(tensors) for tensors in zip(*parts, strict=True))
    with evaluating(model), torch.no_grad():
        whole = float(_loss_of(prepared, model, joint))
        losses = [len(part[0]) * float(_loss_of(prepared, model, part)) for part in parts]
    mean = sum(losses) / len(joint[0])
    # Wide enough for a loss that draws random numbers; one that is a sum is off by a factor.
    if not math.isclose(whole, mean, rel_tol=0.2, abs_tol=1e-6):
        raise SpecError(
            f"train.accumulate: loss() is {whole:.4g} over two parts of a batch, and {mean:.4g} "
            "on average over each of them, so it is no mean over examples: have it return one, "
            "or leave accumulate out."
        )


@contextlib.contextmanager
def _norms_explained(examples: str) -> Iterator[None]:
    """Replaces BatchNorm's error about a single value by one that names the cause."""
    try:
        yield
    except ValueError as error:
        if "more than 1 value per channel" not in str(error):
            raise
        raise WorkloadError(
            f"The model has BatchNorm, which cannot train on examples {examples}: it needs more "
            "than one value a channel. Use a larger train.batch_size, a smaller "
            "train.accumulate, or another normalisation such as GroupNorm."
        ) from error


def _try_optimizer(
    prepared: PreparedWorkload, spec: StudySpec, config: TrialConfig, batch: Batch
) -> None:
    run = Run(spec, config, device=prepared.device, reporter=Rehearsal())
    run.measure(examples=prepared.train_examples)
    run.measure(max(1, prepared.train_examples // run.batch_size))
    takes = OPTIMIZERS[config.optimizer].takes
    model = prepared.build_model(spec.search.seed, tells_sparse=takes == "sparse")
    try:
        optimizer = run.optimizer(model)
        run.state.check_groups()
        Step(run, prepared, model, optimizer)(batch)
    except TunerError:
        raise
    except Exception as error:  # packages have errors of their own
        raise WorkloadError(
            f"{config.optimizer} cannot train this model: {error}. "
            f"Leave {config.optimizer} out of space.optimizers."
        ) from error


def default_configs(spec: StudySpec) -> list[TrialConfig]:
    """Returns the default settings of every optimizer of a study."""
    return [decode(spec, proposal) for proposal in default_proposals(spec)]


def _variants(spec: StudySpec) -> list[TrialConfig]:
    """Returns settings with the averages and unusual batch sizes that the first default lacks."""
    default = default_proposals(spec)[0]
    averages = [("average", name) for name in spec.train.averages if name != NO_AVERAGE]
    sizes = [("batch_size", size) for size in spec.train.batch_sizes if size in (1, FULL)]
    first = decode(spec, default)
    others = [
        decode(spec, replace(default, params=default.params | {key: v}))
        for key, v in averages + sizes
    ]
    return [config for config in others if config != first]
