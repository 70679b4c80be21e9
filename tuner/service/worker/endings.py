"""The ending of a trial: the attributes that are stored, and the line for the log."""

from __future__ import annotations

import math
import traceback
from typing import Any

from optuna.trial import TrialState

from tuner.errors import StorageError, tell_error, tell_place
from tuner.store.connection.urls import hide_known_secrets
from tuner.training.device import is_out_of_memory
from tuner.training.loop import OWN_OPTIMIZER, Ending, TrialResult
from tuner.training.reporting import Evaluation, StaleCheckpointError

STATES = {
    Ending.COMPLETE: TrialState.COMPLETE,
    Ending.PRUNED: TrialState.PRUNED,
    Ending.DIVERGED: TrialState.PRUNED,
    Ending.INTERRUPTED: TrialState.PRUNED,
}
"""How Optuna sees a trial that ended so."""

_LONGEST_REASON = 500


def ending_attributes(
    result: TrialResult, standing: Evaluation | None, stopped_by: str | None
) -> dict[str, Any]:
    """Returns the attributes to store of an ending.

    Args:
        result: The result of the trial.
        standing: The evaluation by which the trial stands, or None if it has none.
        stopped_by: ``stop`` or ``wall_time`` if that has ended the study, or None.
    """
    metrics = {} if standing is None else standing.metrics
    finite = {name: value for name, value in metrics.items() if math.isfinite(value)}
    attributes: dict[str, Any] = {"metrics": finite}
    if result.diverged_step is not None:
        attributes["diverged_step"] = result.diverged_step
    if stopped_by is not None:
        attributes["stopped_by"] = stopped_by
    return attributes


def explain_no_step(has_optimizer: bool) -> str:
    """Returns why a trial whose optimizer never stepped has failed.

    Args:
        has_optimizer: Whether its loop asked for that optimizer.
    """
    if not has_optimizer:
        return OWN_OPTIMIZER
    return (
        "The trial's optimizer never stepped, so nothing was trained with what it sets. "
        f"{OWN_OPTIMIZER} Where a gradient scaler skips steps, train for more of them."
    )


NOTHING_SAVED = "nothing had been saved of it"
"""Why a trial starts over that has no checkpoint."""


def explain_restart(error: BaseException) -> str:
    """Returns in one line why a trial starts over.

    Args:
        error: The fault of its checkpoint, or the error raised when it went on from there.
    """
    if isinstance(error, StorageError | StaleCheckpointError):
        reason = hide_known_secrets(str(error))
    else:
        reason = f"going on from its checkpoint raised {describe(error)}"
    return reason.splitlines()[0][:_LONGEST_REASON]


def tell_ending(number: int, how: str, metric: str, value: float | None) -> str:
    """Returns an ending as a line for the log."""
    shown = f"{metric} {value:.6g}" if value is not None else "no evaluation"
    return f"Trial {number} {how}: {shown}"


def error_attributes(error: BaseException) -> dict[str, Any]:
    """Returns the attributes to store of an error that a workload raised."""
    text = describe(error)
    if is_out_of_memory(error):
        text = f"Out of memory ({text}). Use a smaller batch or model, or a larger device."
    return {
        "error": text[:2000],
        "error_at": tell_place(error),
        "traceback": hide_known_secrets("".join(traceback.format_exception(error)))[-20_000:],
    }


def describe(error: BaseException) -> str:
    """Returns the kind and the message of an exception, without secrets."""
    try:
        return hide_known_secrets(tell_error(error))
    except BaseException as second:  # noqa: BLE001 (one of the user's may break when shown)
        kind = type(error).__name__
        return f"{kind}: its message cannot be read, since that raises {type(second).__name__}"
