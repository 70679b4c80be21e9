"""Checks of the values read from a database, since SQLite keeps any value in any column.

Whoever can write the file can plant a text for a number; that costs the trial, and not the report.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Mapping
from typing import Any, TypeGuard

from optuna.trial import TrialState

from tuner.domain.catalog.dimensions import Choice, Dimension, Float, Int
from tuner.domain.confirmation import SPLIT_SEED, TEST


def is_count(value: object) -> bool:
    """Tells whether a value is an integer from 0 to 2**63 - 1, as a database keeps it exactly."""
    return type(value) is int and 0 <= value < 2**63


def is_number(value: object) -> TypeGuard[float]:
    """Tells whether a value is a finite number."""
    if not isinstance(value, int | float) or isinstance(value, bool):
        return False
    return -sys.float_info.max <= value <= sys.float_info.max


def is_time(value: object) -> bool:
    """Tells whether a value is a time in seconds since 1970, before the year 10000."""
    return is_number(value) and 0 <= value < _YEAR_10000_S


_YEAR_10000_S = 253_402_300_800

_Check = Callable[[object], bool]


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _or_none(check: _Check) -> _Check:
    return lambda value: value is None or check(value)


def _list_of(check: _Check) -> _Check:
    return lambda value: isinstance(value, list) and all(map(check, value))


def _record_of(**checks: _Check) -> _Check:
    """Returns the check of a mapping that has these keys, each with a value of its kind."""
    return lambda value: (
        isinstance(value, Mapping)
        and value.keys() == checks.keys()
        and all(check(value[key]) for key, check in checks.items())
    )


def _are_metrics(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(is_number, value.values()))


def _are_test_metrics(value: object) -> bool:
    return isinstance(value, Mapping) and all(map(_or_none(is_number), value.values()))


def _is_point(value: object) -> bool:
    return isinstance(value, list) and len(value) == 2 and all(map(_or_none(is_number), value))


_GROUP = _record_of(
    name=_is_text,
    parameters=is_count,
    **dict.fromkeys(("lr", "weight_decay", "momentum", "frozen_until"), _or_none(is_number)),
)
_CALLS = _record_of(calls=is_count, steps=_or_none(is_count), optimizer_steps=_or_none(is_count))

_KINDS: dict[str, _Check] = {
    **dict.fromkeys(("steps", "total_steps", "epoch_steps", "diverged_step"), is_count),
    **dict.fromkeys(("seed", SPLIT_SEED, "best_step"), is_count),
    **dict.fromkeys(("train_s", "eval_s", "optimizer_steps"), is_number),
    **dict.fromkeys(("error", "error_at", "traceback", "stopped_by", "stopped_early"), _is_text),
    "reached": _is_text,
    "metrics": _are_metrics,
    TEST: _are_test_metrics,
    "average_line": _list_of(_is_point),
    "groups": _list_of(_GROUP),
    "last_cost": is_count,
    "networks": _list_of(_or_none(_is_text)),
    "schedule_calls": _list_of(_CALLS),
    "unread": _list_of(_is_text),
}
"""The check of each attribute that tuner reads, by key; others are only shown."""


def is_sound(key: str, value: object) -> bool:
    """Tells whether the value of a trial's attribute has the right type, and is valid as UTF-8."""
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
    """Returns the name of the first damaged part of a trial, None if all parts are sound.

    Args:
        number: The trial's number.
        state: The trial's state.
        params: The trial's parameters by name.
        axes: The axes of the search space by name.
        value: The value that ranks the trial, or None.
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
            return is_number(value) and (not axis.log or value > 0)
        case _:
            return not isinstance(value, float) or math.isfinite(value)


def _is_utf8(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
