"""What a checkpoint gives back, each thing as the training loop builds it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tuner.domain.trials import TrialConfig
from tuner.optim.eval_mode import parts_of
from tuner.optim.groups import optimizable
from tuner.training.reporting import StaleCheckpointError
from tuner.training.seeds import restore_random_state
from tuner.training.steps import Steps


class Snapshot:
    """The state of an earlier attempt, or nothing.

    A file may hold anything, so what it says is looked at before it is believed. What only shows
    when it is used, such as the inside of an optimizer, is a matter of whoever trains with it.

    Args:
        state: What ``Run.state_dict()`` gave, or None for a trial from its start.

    Raises:
        StaleCheckpointError: If a part is missing, of another type, or out of range.
    """

    def __init__(self, state: Mapping[str, Any] | None) -> None:
        self._state = state or {}
        if state is not None:
            _check_parts(state, _PARTS)

    def __bool__(self) -> bool:
        return bool(self._state)

    def __getitem__(self, key: str) -> Any:
        return self._state[key]

    def restore(self, kind: str, index: int, target: Any) -> None:
        """Puts the next model, optimizer or schedule where it was.

        Raises:
            StaleCheckpointError: If the state is of something else.
        """
        if not self._state:
            return
        if index >= len(self._state[kind]):
            raise StaleCheckpointError(f"The checkpoint has fewer {kind} than the loop builds.")
        with fitting(type(target).__name__):
            target.load_state_dict(self._state[kind][index])
            for optimizer in parts_of(target) if kind == "optimizers" else ():
                _check_fused(optimizer)

    def restore_object(self, name: str, target: Any) -> None:
        """Puts an object that the loop has named where it was.

        Raises:
            StaleCheckpointError: If the state is of something else.
        """
        if name in self._state.get("objects", {}):
            with fitting(type(target).__name__):
                target.load_state_dict(self._state["objects"][name])

    def restore_trained(self, models: Iterable[nn.Module]) -> None:
        """Has those parameters require gradients that did; a loop may have thawed some.

        Raises:
            StaleCheckpointError: If the state is of something else.
        """
        if self._state:
            with fitting("which parameters train"):
                for model, names in zip(models, self._state["trained"], strict=True):
                    for name, parameter in optimizable(model).items():
                        parameter.requires_grad_(name in names)

    def restore_randomness(self, device: torch.device) -> None:
        """Puts every source of randomness where it was.

        Raises:
            StaleCheckpointError: If the state is of something else.
        """
        if self._state:
            with fitting("the sources of randomness"):
                restore_random_state(self._state["rng"], device)

    def check(self, config: TrialConfig, seed: int, length: int | None) -> None:
        """Makes sure that the state is of a trial of these settings and, where known, length.

        Args:
            config: What the trial trains with.
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
        """Makes sure that no more evaluations were reported than were due.

        Args:
            steps: The trial's steps, where the state has put them.

        Raises:
            StaleCheckpointError: If more were.
        """
        if self._state["evaluated"] > steps.evaluations_by(steps.taken):
            raise StaleCheckpointError("The checkpoint has more evaluations than were due.")


def check_lane(state: Mapping[str, Any]) -> None:
    """Makes sure that a state may be one of a lane.

    Args:
        state: What ``Cohort.state_dict()`` gave, or anything.

    Raises:
        StaleCheckpointError: If a part is missing, of another type, or out of range.
    """
    _check_parts(state, _LANE_PARTS)


def _check_parts(state: Mapping[str, Any], parts: Mapping[str, Callable[[Any], bool]]) -> None:
    for part, is_sound in parts.items():
        if part not in state:
            raise StaleCheckpointError(f"The checkpoint lacks {part}.")
        if not is_sound(state[part]):
            raise StaleCheckpointError(f"The checkpoint's {part} are malformed.")


def describe(config: TrialConfig) -> str:
    """Returns what a trial was started with as text: all but what its loop asks for."""
    return json.dumps(dataclasses.asdict(dataclasses.replace(config, own={})), sort_keys=True)


@contextlib.contextmanager
def fitting(what: str) -> Iterator[None]:
    """Puts down to the checkpoint what goes wrong while something is put where it was.

    Args:
        what: What that is.

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


def _is_mapping(part: Any) -> bool:
    return isinstance(part, dict)


def _is_list(part: Any) -> bool:
    return isinstance(part, list)


def _is_switch(part: Any) -> bool:
    return type(part) is bool


def _is_count(part: Any) -> bool:
    return type(part) is int and part >= 0


def _are_values(part: Any) -> bool:
    return isinstance(part, dict) and all(
        isinstance(name, str) and isinstance(value, str | int | float | None)
        for name, value in part.items()
    )


def _are_steps(part: Any) -> bool:
    # One is written between two steps, when one has been taken and one is left.
    return (
        isinstance(part, dict)
        and all(_is_count(part.get(name)) for name in ("turns", "done", "length"))
        and bool(part["turns"] <= part["done"] < part["length"])
    )


def _are_amounts(part: Any, names: set[str]) -> bool:
    return (
        isinstance(part, dict)
        and part.keys() == names
        and all(type(n) is float and math.isfinite(n) and n >= 0 for n in part.values())
    )


def _are_seconds(part: Any) -> bool:
    return _are_amounts(part, {"train_s", "eval_s"})


def _are_costs(part: Any) -> bool:
    return _are_amounts(part, {"train_s", "eval_s", "places"})


def _are_cuts(part: Any) -> bool:
    return isinstance(part, list) and all(
        isinstance(cut, list) and len(cut) == 2 and _is_count(cut[0]) and type(cut[1]) is float
        for cut in part
    )


def _are_tensors(part: Any) -> bool:
    return isinstance(part, dict) and all(isinstance(value, Tensor) for value in part.values())


def _is_line(part: Any) -> bool:
    return isinstance(part, Tensor) and part.ndim == 1


_EVERY_PART: dict[str, Callable[[Any], bool]] = {
    "seed": _is_count,
    "steps": _are_steps,
    "evaluated": _is_count,
    "timing": _are_seconds,
    "rng": _is_mapping,
}

_PARTS = _EVERY_PART | {
    "config": _is_text,
    "models": _is_list,
    "trained": _is_list,
    "optimizers": _is_list,
    "schedules": _is_list,
    "paces": _is_list,
    "averages": _is_list,
    "objects": _is_mapping,
    "own": _are_values,
    "stepped": _is_switch,
}

_LANE_PARTS = _EVERY_PART | {
    "config": _is_mapping,
    "costs": _are_costs,
    "cuts": _are_cuts,
    "tensors": _are_tensors,
    "losses": _is_line,
}
