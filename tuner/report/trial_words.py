"""A trial as people read it: settings in torch's terms, how it went, and the rest folded away."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tuner.domain.catalog.calls import Call
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, TrialConfig, TrialRecord, decode

_TOLD = ("seed", "steps", "best_step", "lanes", "reached", "stopped_early", "error", "error_at")
"""Attributes that are told as they are, in this order."""


def describe_trial(
    spec: StudySpec, record: TrialRecord, device: str | None = None
) -> dict[str, Any]:
    """Returns what people want to read of a trial, by name; numbers stay numbers.

    Its settings come as the arguments of torch's constructors, such as ``momentum`` and ``betas``,
    defaults included; then how it ended, its metrics, and where it trained. What tuner keeps for
    itself is one entry, ``bookkeeping``.

    Args:
        spec: Its study, resolved.
        record: The trial.
        device: The device that it trained on last, None where that is not known.
    """
    attributes = record.attributes
    config = decode(spec, record.proposal)
    metrics = attributes.get("metrics")
    told: dict[str, Any] = {
        **({"ended": tell_ending(record)} if record.outcome.is_over else {}),
        **_tell_settings(config),
        **(metrics if isinstance(metrics, Mapping) else {}),
        **({} if device is None else {"device": device}),
        **({"lanes": attributes.get("lanes", 1)} if "steps" in attributes else {}),
        **{key: attributes[key] for key in _TOLD if key in attributes},
    }
    hidden = {key: value for key, value in attributes.items() if key not in (*_TOLD, "metrics")}
    if record.proposal.preset is not None:
        told["origin"] = record.proposal.preset
    return {**told, "bookkeeping": hidden} if hidden else told


def tell_ending(record: TrialRecord) -> str:
    """Returns how a trial ended, in a few words.

    Args:
        record: The trial; one that is not over is told by the name of its state.
    """
    attributes = record.attributes
    step = attributes.get("steps")
    at = "" if step is None else f" at step {step}"
    match record.outcome:
        case Outcome.DIVERGED:
            return f"diverged at step {attributes.get('diverged_step')}"
        case Outcome.PRUNED if "stopped_by" in attributes:
            return f"stopped by {attributes['stopped_by']}{at}"
        case Outcome.PRUNED:
            return f"pruned{at}"
        case Outcome.COMPLETE if "reached" in attributes:
            return f"reached {attributes['reached']}{at}"
        case Outcome.FAILED:
            error = tell_error(record)
            return f"failed: {error}" if error else "failed"
        case outcome:
            return outcome.value


def tell_error(record: TrialRecord) -> str:
    """Returns the first line of the exception that a trial raised; an empty text without one."""
    lines = str(record.attributes.get("error", "")).strip().splitlines()
    return lines[0] if lines else ""


def _tell_settings(config: TrialConfig) -> dict[str, Any]:
    """Returns the arguments of a trial's constructors, then its other settings."""
    first, *others = OPTIMIZERS[config.optimizer].calls(config.optimizer_values)
    arguments = _tell_call(first, "")
    for call in others:
        arguments |= _tell_call(call, f"{call.class_name}.")
    rest = {k: v for k, v in config.to_json().items() if k not in config.optimizer_values}
    return arguments | rest


def _tell_call(call: Call, prefix: str) -> dict[str, Any]:
    arguments = {f"{prefix}{name}": value for name, value in call.arguments.items()}
    if call.wrapper is None:
        return arguments
    return arguments | _tell_call(call.wrapper, f"{call.wrapper.class_name}.")
