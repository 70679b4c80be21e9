"""The settings of one trial, by the names that a command's placeholders have for them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.domain.catalog.averages import NO_AVERAGE
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.command import Setting, optimizer_settings
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialConfig


def unit_of(spec: StudySpec) -> str:
    """Returns what the budget of a study with a command counts: ``steps`` or ``epochs``."""
    return "steps" if spec.budget.epochs is None else "epochs"


def length_of(spec: StudySpec) -> int:
    """Returns the length of a full trial of a study with a command, in what its budget counts."""
    budget = spec.budget
    return int(budget.steps if budget.steps is not None else budget.epochs or 1)


def settings_of_trial(
    spec: StudySpec, config: TrialConfig, own: Mapping[str, Any]
) -> dict[str, Setting]:
    """Returns the settings that a trial trains with, by name; None where it has none.

    Args:
        spec: The study, resolved.
        config: The trial's settings.
        own: The values of the study's own hyperparameters.
    """
    average = {f"average.{key}": value for key, value in config.average_values.items()}
    return {
        "optimizer": config.optimizer,
        "optimizer.class": OPTIMIZERS[config.optimizer].torch_class,
        **optimizer_settings(config.optimizer, config.optimizer_values),
        "schedule": config.schedule,
        **{f"schedule.{key}": value for key, value in config.schedule_values.items()},
        "average": config.average,
        **(average if config.average != NO_AVERAGE else {}),
        "batch_size": config.batch_size,
        "accumulate": spec.train.accumulate,
        "grad_clip": spec.train.grad_clip,
        "precision": spec.train.precision,
        "momentum_warmup": config.momentum_warmup,
        unit_of(spec): length_of(spec),
        **own,
    }
