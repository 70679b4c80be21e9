"""Whether what is read of a trial is of its kind: SQLite keeps anything in any column.

Whoever can write the file can plant a text for a number; that costs the trial, and not the report.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from optuna.trial import TrialState

from tuner.domain.dimensions import Choice, Dimension, Float, Int


def is_count(value: object) -> bool:
    """Tells whether something is a whole number from 0 on that a database keeps exactly."""
    return type(value) is int and 0 <= value < 2**63


def is_number(value: object) -> bool:
    """Tells whether something is a finite number."""
    return type(value) in (int, float) and -_LARGEST <= value <= _LARGEST  # type: ignore[operator]


def is_time(value: object) -> bool:
    """Tells whether something is a time of this era, in seconds since 1970."""
    return is_number(value) and 0 <= value < _YEAR_10000_S  # type: ignore[operator]


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are_metrics(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(is_number, value.values()))


def _are_texts(value: object) -> bool:
    return isinstance(value, list) and all(isinstance(text, str) for text in value)


def _are_names(value: object) -> bool:
    return isinstance(value, list) and all(text is None or _is_text(text) for text in value)


def _are_calls(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(call, dict)
        and set(call) == {"calls", "steps", "optimizer_steps"}
        and is_count(call["calls"])
        and all(number is None or is_count(number) for number in call.values())
        for call in value
    )


def _are_groups(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(group, dict)
        and set(group) >= _OF_GROUPS
        and _is_text(group["name"])
        and is_count(group["parameters"])
        and all(
            number is None or is_number(number) for key, number in group.items() if key != "name"
        )
        for group in value
    )


def _is_line(value: object) -> bool:
    return isinstance(value, list) and all(
        isinstance(point, list)
        and len(point) == 2
        and is_number(point[0])
        and (point[1] is None or is_number(point[1]))
        for point in value
    )


_OF_GROUPS = {"name", "parameters", "lr", "weight_decay", "momentum", "frozen_until"}
_YEAR_10000_S = 253_402_300_800
_LARGEST = 1.7976931348623157e308

_KINDS: dict[str, Callable[[object], bool]] = {
    **dict.fromkeys(("steps", "total_steps", "epoch_steps", "diverged_step", "seed"), is_count),
    **dict.fromkeys(("train_s", "eval_s", "optimizer_steps"), is_number),
    **dict.fromkeys(("error", "error_at", "traceback", "stopped_by", "stopped_early"), _is_text),
    "metrics": _are_metrics,
    "average_line": _is_line,
    "groups": _are_groups,
    "last_cost": is_count,
    "networks": _are_names,
    "schedule_calls": _are_calls,
    "unread": _are_texts,
}
"""What an attribute has to be; of others nothing is worked out."""


def is_sound(key: str, value: object) -> bool:
    """Tells whether an attribute of a trial is of its kind, and can be written as UTF-8."""
    if key in _KINDS and not _KINDS[key](value):
        return False
    return not isinstance(value, str) or value.isascii() or _is_utf8(value)


def find_fault(
    number: object,
    state: TrialState,
    params: Mapping[str, Any],
    axes: Mapping[str, Dimension],
    value: object,
) -> str | None:
    """Returns which part of a trial is not of its kind, None if all is.

    Args:
        number: The trial's number.
        state: Its state.
        params: Its parameters by name.
        axes: The axes of the search space by name.
        value: What ranks it, or None.
    """
    unranked = value is None and state is not TrialState.COMPLETE
    faults = {
        "number": not is_count(number),
        "value": not (unranked or is_number(value)),
        "parameter optimizer": state is not TrialState.WAITING and "optimizer" not in params,
        **{f"parameter {name}": not _fits(params[name], axes.get(name)) for name in params},
    }
    return next((part for part, is_there in faults.items() if is_there), None)


def _fits(value: object, axis: Dimension | None) -> bool:
    match axis:
        case Choice():
            return value in axis.choices
        case Float() | Int():
            return is_number(value) and (not axis.log or value > 0)  # type: ignore[operator]
        case _:
            return not isinstance(value, float) or math.isfinite(value)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
