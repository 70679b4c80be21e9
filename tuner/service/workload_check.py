"""Checks of workloads: each is imported, trained for a few steps and evaluated."""

from __future__ import annotations

import contextlib
import dataclasses
import inspect
import traceback
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tuner.domain.imports import import_module
from tuner.domain.regimes import Arrival
from tuner.domain.spec import StudySpec
from tuner.domain.study_file import parse_spec
from tuner.domain.trials import decode, default_proposals
from tuner.errors import ExhaustedError, SpecError, TunerError, tell_error
from tuner.search import Proposer, build_pruner
from tuner.service.open_study import StudyCheck
from tuner.service.orders import Answer, Check
from tuner.service.passing import unpack
from tuner.service.ranks import read_processes
from tuner.service.worker.ranks.limits import check_ranks
from tuner.service.worker.ranks.rank_process import lone_rank
from tuner.training.arrival import detect_arrival
from tuner.training.device import resolve_device
from tuner.training.forks import ending_forks
from tuner.training.loop import TrainingLoop, WorkloadLoop, run_trial, train_workload
from tuner.training.prepared_workload import PreparedWorkload
from tuner.training.processes.command_loop import CommandLoop
from tuner.training.rehearsal import Rehearsal, prepare, prepare_checked, rehearse
from tuner.training.run import Run
from tuner.training.seeds import split_seed
from tuner.training.workload import load_workload, missing_methods

_STEPS = 5


@dataclass(frozen=True)
class WorkloadCheck:
    """The result of checking a workload.

    Attributes:
        workload: Its import string.
        error: The reason it does not run, or None.
        parameters: Trainable parameters of the model.
        train_examples: Size of the training set.
        val_examples: Size of the validation set.
        step_s: Seconds a step took.
        metrics: Its metrics after a few steps.
    """

    workload: str
    error: str | None = None
    parameters: int = 0
    train_examples: int = 0
    val_examples: int = 0
    step_s: float = 0.0
    metrics: dict[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, Any]:
        """Returns the result as plain values, for JSON."""
        return dataclasses.asdict(self)

    def cells(self) -> tuple[str, ...]:
        """Returns the result as the cells of a table's row."""
        if self.error:
            return (self.workload, "no", *("–",) * 4)
        return (
            self.workload,
            "yes",
            f"{self.parameters:,}",
            f"{self.train_examples:,} + {self.val_examples:,}" if self.train_examples else "–",
            f"{self.step_s * 1000:.2f} ms",
            ", ".join(self.metrics),
        )


def find_workloads() -> tuple[list[str], list[WorkloadCheck]]:
    """Finds the workloads in ``./models``: classes with all methods of one, and training loops.

    Returns:
        Their import strings, and a failed check for every file that cannot be imported.
    """
    found, broken = [], []
    for path in sorted(Path("models").glob("*.py")):
        if path.stem.startswith("_"):
            continue
        name = f"models.{path.stem}"
        try:
            module = import_module(name, str(path))
        except SpecError as error:
            broken.append(WorkloadCheck(name, error=str(error)))
            continue
        for attribute, member in vars(module).items():
            if getattr(member, "__module__", None) == module.__name__ and _is_trainable(member):
                found.append(f"{name}:{attribute}")
    return found, broken


def _is_trainable(member: object) -> bool:
    """Tells whether an object is a workload class, or a training loop: a function of ``run``."""
    if inspect.isfunction(member):
        return list(inspect.signature(member).parameters) == ["run"]
    return isinstance(member, type) and not missing_methods(member)


def check_workload(import_string: str, device: str) -> WorkloadCheck:
    """Trains a workload for a few steps with SGD and evaluates it.

    Args:
        import_string: The workload; a training loop is run whole, for a few steps.
        device: The device to train on, as ``--device`` takes it.

    Raises:
        SpecError: If there is no such device.
    """
    place = resolve_device(device)
    try:
        with ending_forks():
            target = load_workload(import_string)
            check = _check_loop if missing_methods(target) else _check_class
            return check(import_string, target, place)
    except TunerError as error:
        return WorkloadCheck(import_string, error=str(error))
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # noqa: BLE001 (a workload may raise anything)
        return WorkloadCheck(import_string, error=tell_error(error))


def check_study(
    spec: StudySpec, device: torch.device, passed: Any = None, *, looks: bool = True
) -> tuple[StudyCheck, TrainingLoop]:
    """Trains a study's workload for a few steps and evaluates it, before the study is created.

    Args:
        spec: The study, resolved.
        device: The device to train on.
        passed: The workload, if it was passed as an object; None to import it.
        looks: Whether to look if its model arrives with trained weights, by building it twice more.

    Returns:
        What was seen of it, and the workload as a training loop, which can go on to train. A
        training loop may ask for hyperparameters of its own; a class does not.

    Raises:
        SpecError: If it does not run as the study says, or a sampler or pruner of the user's own
            cannot be built.
        WorkloadError: If its code raises.
    """
    with contextlib.suppress(ExhaustedError):  # there may be no more than the openings
        Proposer(spec, seed=0).propose()
    build_pruner(spec)
    with lone_rank():
        loop = prepare_checked(spec, device, passed)
    check_ranks(loop, read_processes(), device)
    if isinstance(loop, CommandLoop):
        return StudyCheck(asks_nothing=not spec.own, ends_at_once=loop.ends_at_once), loop
    with lone_rank():
        arrival = detect_arrival(loop, spec, device) if looks else Arrival.FRESH
    return StudyCheck(isinstance(loop, WorkloadLoop), arrival), loop


def answer_check(order: Check, device: str) -> tuple[Answer, TrainingLoop | None]:
    """Checks a study's workload for another process.

    Args:
        order: The order of that process.
        device: Where to train, as ``--device`` takes it here.

    Returns:
        The answer, and the workload as a training loop if it runs.
    """
    try:
        place = resolve_device(device, typed=order.device)
        spec = parse_spec(order.spec, origin="the study to check")
        passed = unpack(order.code) if order.code else None
        seen, loop = check_study(spec, place, passed, looks=order.looks)
    except TunerError as error:
        return Answer(kind=type(error).__name__, error=str(error)), None
    except Exception:  # noqa: BLE001 (a fault of tuner, which the other process tells)
        return Answer(kind="RuntimeError", error=traceback.format_exc()), None
    return Answer(seen.asks_nothing, seen.arrival.value, seen.ends_at_once), loop


def _check_class(import_string: str, workload: Any, device: torch.device) -> WorkloadCheck:
    seed = split_seed(_spec_for(import_string, 1).search.seed)
    prepared = PreparedWorkload.prepare(workload, device, "float32", seed)
    spec = _spec_for(import_string, min(32, prepared.train_examples))
    config = decode(spec, default_proposals(spec)[0])
    reporter = Rehearsal()
    run = Run(spec, config, device=device, reporter=reporter)
    run_trial(partial(train_workload, prepared=prepared), run)
    return WorkloadCheck(
        import_string,
        parameters=run.state.parameters,
        train_examples=prepared.train_examples,
        val_examples=len(prepared.data.val[0]),
        step_s=run.timing.train_s / _STEPS,
        metrics=reporter.metrics,
    )


def _check_loop(import_string: str, _loop: Any, device: torch.device) -> WorkloadCheck:
    spec = _spec_for(import_string, 32)
    train = prepare(spec, device)
    metrics, run = rehearse(train, spec, decode(spec, default_proposals(spec)[0]), device)
    return WorkloadCheck(
        import_string,
        parameters=run.state.parameters,
        step_s=run.timing.train_s / max(1, run.taken),
        metrics=metrics,
    )


def _spec_for(import_string: str, batch_size: int) -> StudySpec:
    tree = {
        "study": {"name": "check", "workload": import_string},
        "budget": {"steps": _STEPS, "trials": 1, "evaluations": 1},
        "space": {"optimizers": ["sgd"], "schedules": ["constant"]},
        "train": {"batch_size": batch_size},
    }
    return parse_spec(tree, origin="workload check").resolve()
