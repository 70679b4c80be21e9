"""The state in a checkpoint: checked, and given back to each object as the loop builds it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import nn

from tuner.domain.trials import TrialConfig
from tuner.optim.eval_mode import parts_of
from tuner.optim.groups import optimizable
from tuner.training.reporting import StaleCheckpointError
from tuner.training.seeds import restore_random_state
from tuner.training.steps import Steps


class Snapshot:
    """Holds the state of an earlier attempt, or nothing.

    A file may hold anything, so its parts are checked here for type and range. The inside of an
    optimizer's or a model's state is checked when the object loads it.

    Args:
        state: A ``Run.state_dict()``, or None for a trial from its start.

    Raises:
        StaleCheckpointError: If a part is missing, of another type, or out of range.
    """

    def __init__(self, state: Mapping[str, Any] | None) -> None:
        # Checkpoints of earlier versions lack some parts.
        self._state = {} if state is None else {**_LATER, **state}
        if state is not None:
            check_parts(self._state, _PARTS)

    def __bool__(self) -> bool:
        return bool(self._state)

    def __getitem__(self, key: str) -> Any:
        return self._state[key]

    def restore(self, kind: str, index: int, target: Any) -> None:
        """Restores a model, an optimizer or another object that the loop has built.

        Args:
            kind: The part of the state, such as ``models``.
            index: Its place among the objects of this kind.
            target: The object.

        Raises:
            StaleCheckpointError: If the state is of something else.
        """
        if not self._state or (kind in _LEFT_TO_TRAINERS and self._state["kept"] is not None):
            return
        if index >= len(self._state[kind]):
            raise StaleCheckpointError(f"The checkpoint has fewer {kind} than the loop builds.")
        with fitting(type(target).__name__):
            target.load_state_dict(self._state[kind][index])
            for optimizer in parts_of(target) if kind == "optimizers" else ():
                _check_fused(optimizer)

    def restore_object(self, name: str, target: Any) -> None:
        """Restores an object that the loop has named.

        Args:
            name: Its name.
            target: The object.

        Raises:
            StaleCheckpointError: If the state is of something else.
        """
        if name in self._state.get("objects", {}):
            with fitting(type(target).__name__):
                target.load_state_dict(self._state["objects"][name])

    def restore_trained(self, models: Iterable[nn.Module]) -> None:
        """Makes those parameters require gradients that did; a loop may have thawed some.

        Args:
            models: The models, in the order of their optimizers.

        Raises:
            StaleCheckpointError: If the state is of something else.
        """
        if self._state:
            with fitting("which parameters train"):
                for model, names in zip(models, self._state["trained"], strict=True):
                    for name, parameter in optimizable(model).items():
                        parameter.requires_grad_(name in names)

    def restore_randomness(self, device: torch.device) -> None:
        """Restores every source of randomness.

        Args:
            device: The device whose generator is restored, besides those of the CPU.

        Raises:
            StaleCheckpointError: If the state is of something else.
        """
        if self._state:
            with fitting("the sources of randomness"):
                restore_random_state(self._state["rng"], device)

    def check(self, config: TrialConfig, seed: int, length: int | None) -> None:
        """Checks that the state is of a trial of these settings and, where known, length.

        Args:
            config: The trial's settings.
            seed: The study's seed.
            length: Steps of a full trial, or None while nobody has measured an epoch.

        Raises:
            StaleCheckpointError: If it is not.
        """
        if not self._state:
            return
        state = self._state
        own = {name: state["own"].get(name, value) for name, value in config.own.items()}
        if state["config"] != describe(config) or own != config.own:
            raise StaleCheckpointError("The checkpoint is of a trial of other hyperparameters.")
        if state["seed"] != seed or length not in (None, state["steps"]["length"]):
            raise StaleCheckpointError("The checkpoint is of a trial of another seed or length.")

    def check_evaluated(self, steps: Steps) -> None:
        """Checks that no more evaluations were reported than were due.

        Args:
            steps: The trial's steps, restored from the state.

        Raises:
            StaleCheckpointError: If more were.
        """
        if self._state["evaluated"] > steps.evaluations_by(steps.taken):
            raise StaleCheckpointError("The checkpoint has more evaluations than were due.")


def check_parts(state: Mapping[str, Any], parts: Mapping[str, Callable[[Any], bool]]) -> None:
    """Checks that a state has all of its parts, and each of the right type and range.

    Args:
        state: The state, which may hold anything.
        parts: By the name of a part, the function that tells whether a value may be it.

    Raises:
        StaleCheckpointError: If a part is missing, of another type, or out of range.
    """
    for part, is_sound in parts.items():
        if part not in state:
            raise StaleCheckpointError(f"The checkpoint lacks {part}.")
        if not is_sound(state[part]):
            raise StaleCheckpointError(f"The checkpoint's {part} are malformed.")


def describe(config: TrialConfig) -> str:
    """Returns a trial's settings as text, without the values that its loop has asked for."""
    return json.dumps(dataclasses.asdict(dataclasses.replace(config, own={})), sort_keys=True)


@contextlib.contextmanager
def fitting(what: str) -> Iterator[None]:
    """Turns any error within the block into one that blames the checkpoint.

    Args:
        what: The object that is restored in the block, for the message.

    Raises:
        StaleCheckpointError: If anything is raised.
    """
    try:
        yield
    except Exception as error:  # a state of another shape makes what loads it raise anything
        raise StaleCheckpointError(
            f"The checkpoint does not fit {what}: {type(error).__name__}: {error}"
        ) from error


def _check_fused(optimizer: torch.optim.Optimizer) -> None:
    # A fused kernel looks at no shapes: it reads on beyond a state that is too small.
    for group in optimizer.param_groups:
        for parameter in group["params"] if group.get("fused") else ():
            for name, value in optimizer.state.get(parameter, {}).items():
                shape = torch.Size() if name == "step" else parameter.shape
                if isinstance(value, torch.Tensor) and value.shape != shape:
                    raise ValueError(f"{name} is of shape {tuple(value.shape)}, not {tuple(shape)}")


def _is_text(part: Any) -> bool:
    return isinstance(part, str)


def is_mapping(part: Any) -> bool:
    """Returns whether a part of a state is a mapping."""
    return isinstance(part, dict)


def _is_mapping_or_none(part: Any) -> bool:
    return part is None or is_mapping(part)


def _is_list(part: Any) -> bool:
    return isinstance(part, list)


def _is_switch(part: Any) -> bool:
    return type(part) is bool


def is_count(part: Any) -> bool:
    """Returns whether a part of a state is a whole number of at least 0."""
    return type(part) is int and part >= 0


def _are_values(part: Any) -> bool:
    return isinstance(part, dict) and all(
        isinstance(name, str) and isinstance(value, str | int | float | None)
        for name, value in part.items()
    )


def _are_numbers(part: Any) -> bool:
    return isinstance(part, dict) and all(
        isinstance(name, str) and type(value) is float for name, value in part.items()
    )


def _are_steps(part: Any) -> bool:
    # One is written between two steps, when one has been taken and one is left.
    return (
        isinstance(part, dict)
        and all(is_count(part.get(name)) for name in ("turns", "done", "length"))
        and bool(part["turns"] <= part["done"] < part["length"])
    )


def are_amounts(part: Any, names: set[str]) -> bool:
    """Returns whether a part of a state has an amount of at least 0 for each of some names."""
    return (
        isinstance(part, dict)
        and part.keys() == names
        and all(type(n) is float and math.isfinite(n) and n >= 0 for n in part.values())
    )


def _are_seconds(part: Any) -> bool:
    return are_amounts(part, {"train_s", "eval_s"})


COMMON_PARTS: dict[str, Callable[[Any], bool]] = {
    "seed": is_count,
    "steps": _are_steps,
    "evaluated": is_count,
    "timing": _are_seconds,
    "rng": is_mapping,
}
"""The parts of every trial's state, each with the function that checks it."""

_LEFT_TO_TRAINERS = ("models", "optimizers", "schedules")
"""The parts that a trainer with checkpoints of its own restores itself."""

_PARTS = COMMON_PARTS | {
    "config": _is_text,
    "models": _is_list,
    "trained": _is_list,
    "optimizers": _is_list,
    "schedules": _is_list,
    "paces": _is_list,
    "averages": _is_list,
    "objects": is_mapping,
    "own": _are_values,
    "stepped": _is_switch,
    "test": _are_numbers,
    "kept": _is_mapping_or_none,
}

_LATER: dict[str, Any] = {"test": {}, "kept": None}
"""The parts that an earlier version did not write, as a trial has them that is at its start."""
