"""The search spaces of the bench: what plain Optuna searches, what tuner does, and their union."""

from __future__ import annotations

import functools
from typing import Any

from tuner.domain.budget import Budget
from tuner.domain.spec import StudySpec

EVALUATIONS = 10
TRIALS = 60


@functools.cache
def former_space() -> StudySpec:
    """Returns the space that plain Optuna searches.

    It is tuner's own as it was before good rates were seen to crowd at the upper ends of ranges.
    """
    adam = {"lr": _log_range(1e-4, 0.1)}
    muon = {"lr": _log_range(5e-3, 0.1), "adamw_lr": _log_range(1e-4, 3e-3)}
    space = {"schedules": ("constant", "cosine", "step")}
    return _spec(space, {"adam": adam, "adamw": adam, "muon": muon})


def _log_range(low: float, high: float) -> dict[str, Any]:
    return {"low": low, "high": high, "log": True}


@functools.cache
def present_space() -> StudySpec:
    """Returns the space of a study whose file names neither optimizers nor schedules."""
    return _spec({}, {})


@functools.cache
def whole_space(batch_size: int = 32, seed: int = 0) -> StudySpec:
    """Returns the union of both, which configurations of either are decoded in.

    Args:
        batch_size: Examples a step.
        seed: The seed of weights and batches.
    """
    schedules = ("constant", "linear", "cosine", "stable_decay", "step")
    return _spec({"schedules": schedules}, {}, batch_size, seed)


def _spec(
    space: dict[str, Any], optimizer: dict[str, Any], batch_size: int = 32, seed: int = 0
) -> StudySpec:
    tree = {
        "study": {"name": "bench", "workload": "a:B"},
        "budget": {"steps": 1, "trials": TRIALS, "evaluations": EVALUATIONS},
        "space": space,
        "optimizer": optimizer,
        "train": {"batch_size": batch_size},
        "search": {"seed": seed},
    }
    return StudySpec.model_validate(tree).resolve(breadth=2)


def with_length(spec: StudySpec, steps: int, evaluations: int = EVALUATIONS) -> StudySpec:
    """Returns a space for trials of a length, in optimizer steps."""
    budget = Budget(trials=TRIALS, steps=steps, evaluations=evaluations)
    return spec.with_budget(budget)
