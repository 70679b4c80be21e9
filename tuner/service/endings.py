"""What is kept of how a trial ended, and what a person is told of it."""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping
from typing import Any

from optuna.trial import TrialState

from tuner.store.urls import hide_known_secrets
from tuner.training.device import is_out_of_memory
from tuner.training.loop import Ending, Outcome

STATES = {
    Ending.COMPLETE: TrialState.COMPLETE,
    Ending.PRUNED: TrialState.PRUNED,
    Ending.DIVERGED: TrialState.PRUNED,
    Ending.INTERRUPTED: TrialState.PRUNED,
}
"""How Optuna sees a trial that ended so."""


def ending_attributes(
    outcome: Outcome, metrics: Mapping[str, float], stopped_by: str | None
) -> dict[str, Any]:
    """Returns what is kept of an ending.

    Args:
        outcome: The ending.
        metrics: What was measured last.
        stopped_by: What has ended the study, or None.
    """
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    attributes: dict[str, Any] = {"metrics": finite}
    if outcome.diverged_step is not None:
        attributes["diverged_step"] = outcome.diverged_step
    if stopped_by is not None:
        attributes["stopped_by"] = stopped_by
    return attributes


def tell_ending(
    number: int, outcome: Outcome, metric: str, value: float | None, stopped_by: str | None
) -> str:
    """Returns an ending as a line for the log."""
    shown = f"{metric} {value:.6g}" if value is not None else "no evaluation"
    ending = f"stopped by {stopped_by}" if stopped_by else outcome.ending
    return f"Trial {number} {ending}: {shown}"


def error_attributes(error: BaseException) -> dict[str, Any]:
    """Returns what is kept of what a workload raised."""
    frames = traceback.extract_tb(error.__traceback__)
    text = hide_known_secrets(describe(error))
    if is_out_of_memory(error):
        text = f"Out of memory ({text}). Use a smaller batch or model, or a larger device."
    return {
        "error": text[:2000],
        "error_at": f"{frames[-1].filename}:{frames[-1].lineno}" if frames else "",
        "traceback": hide_known_secrets("".join(traceback.format_exception(error)))[-20_000:],
    }


def describe(error: BaseException) -> str:
    """Returns the kind and the message of an exception."""
    kind = type(error).__name__
    try:
        return f"{kind}: {error}"
    except Exception as second:  # noqa: BLE001 (an exception of the user's may break when shown)
        return f"{kind}: its message cannot be read, since that raises {type(second).__name__}"
