"""The attributes that are stored of how a trial trained."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tuner.analysis.averages import LINE
from tuner.domain.confirmation import TEST
from tuner.domain.spec import StudySpec
from tuner.domain.trials import TrialConfig


def training_attributes(
    spec: StudySpec,
    config: TrialConfig,
    *,
    taken: int,
    total_steps: int | None,
    epoch_steps: int | None,
    line: Sequence[tuple[float, float]],
    test: Mapping[str, float],
    describe_groups: Callable[[], list[dict[str, Any]]],
) -> dict[str, Any]:
    """Returns the attributes to store of how a trial trained, beyond its configuration.

    Args:
        spec: The study, resolved.
        config: What it trained with.
        taken: Steps taken.
        total_steps: Steps of a full trial, or None if its loop has not said.
        epoch_steps: Steps of an epoch, or None.
        line: How the metric changes from the last weights to the averaged ones.
        test: The metrics over test data, if it confirms and is over.
        describe_groups: Tells of the parameter groups.
    """
    attributes: dict[str, Any] = {"seed": spec.search.seed, "steps": taken}
    if total_steps not in (None, taken):
        attributes["total_steps"] = total_steps
    if config.groups or config.networks or spec.train.no_decay_on_biases_and_norms:
        attributes["groups"] = describe_groups()
    if line:
        attributes[LINE] = [(place, _finite(value)) for place, value in line]
    if test:
        attributes[TEST] = {name: _finite(value) for name, value in test.items()}
    if spec.train.schedule_by == "epoch" and epoch_steps is not None:
        attributes["epoch_steps"] = epoch_steps
    return attributes


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
