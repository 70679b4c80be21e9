"""What in a database cannot be read: the damaged part is told, and the rest goes on without it."""

from __future__ import annotations

import json
import warnings
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import sqlalchemy as sa
from optuna.trial import TrialState

from tuner.errors import DamageWarning, StorageError

_SHOWN = 60
"""How many characters of what is damaged are shown."""

UNREADABLE = (
    *(StorageError, LookupError, TypeError, ValueError, AttributeError),
    *(ArithmeticError, RecursionError),
)
"""Whatever a value of another kind than it should be makes the code that reads it raise."""


@dataclass(frozen=True)
class Damaged:
    """What stands where a value should be.

    Attributes:
        text: What is there.
    """

    text: str


_decode = json.JSONDecoder().raw_decode


def parse_value(text: Any) -> Any:
    """Returns the value of an attribute, :class:`Damaged` where it is no JSON."""
    try:
        # This reads what has no space around it, as all that we write, in half of the time.
        value, end = _decode(text)
        if end == len(text):
            return value
    except (TypeError, ValueError, RecursionError):
        pass
    try:
        return json.loads(text, parse_constant=_refuse)
    except (TypeError, ValueError, RecursionError):
        return Damaged(str(text))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no JSON")


class StoredState(sa.types.TypeDecorator[Any]):
    """A trial's state as it is stored: a text, which SQLite does not check."""

    impl = sa.String
    cache_ok = True

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> TrialState | Damaged:
        """Returns the state, :class:`Damaged` where it is none."""
        try:
            return TrialState[value]
        except (KeyError, TypeError):
            return Damaged(str(value))


class StoredTime(sa.types.TypeDecorator[Any]):
    """A time as it is stored: on SQLite a text, which is not checked."""

    impl = sa.String
    cache_ok = True

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | Damaged | None:
        """Returns the time, :class:`Damaged` where it is none."""
        if value is None or isinstance(value, datetime):
            return value
        try:
            time = datetime.fromisoformat(value)
        except (TypeError, ValueError):
            return Damaged(str(value))
        return time if time.tzinfo is None else Damaged(value)


def tell_damage(what: str, value: object) -> StorageError:
    """Returns what is raised where something that is damaged is needed.

    Args:
        what: What is damaged, such as ``its state``.
        value: What is there.
    """
    text = value.text if isinstance(value, Damaged) else str(value)
    return StorageError(
        f"{what} is damaged: {text[:_SHOWN]!r}. Put a backup of the database in place, or be rid "
        "of the study in 'tuner dashboard'."
    )


def warn_of_damage(what: str, error: object) -> None:
    """Tells that something is left out since it is damaged.

    Args:
        what: What, and that it is left out.
        error: Why it cannot be read.
    """
    if isinstance(error, Exception):
        error = f"{type(error).__name__}: {error}"
    warnings.warn(f"{what}: {error}", DamageWarning, stacklevel=3)
