"""Damaged values of a database: found where they are read, named, and left out of the rest."""

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
"""Characters of a damaged value that are shown."""

UNREADABLE = (
    *(StorageError, LookupError, TypeError, ValueError, AttributeError),
    *(ArithmeticError, RecursionError),
)
"""The errors that code raises where a value it reads has the wrong type."""


@dataclass(frozen=True)
class Damaged:
    """A damaged value, kept in place of the value that cannot be read.

    Attributes:
        text: The text found there.
    """

    text: str


_decode = json.JSONDecoder().raw_decode


def parse_value(text: Any) -> Any:
    """Returns the value of an attribute from JSON, :class:`Damaged` if the text is not JSON."""
    try:
        # Without spaces around it, as in all that we write, this reads it in half of the time.
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
    """The column type of a trial's state: a text, which SQLite does not check."""

    impl = sa.String
    cache_ok = True

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> TrialState | Damaged:
        """Returns the state, :class:`Damaged` if the text names none."""
        try:
            return TrialState[value]
        except (KeyError, TypeError):
            return Damaged(str(value))


class StoredCount(sa.types.TypeDecorator[Any]):
    """The column type of a count: an integer, which SQLite does not check; 0 if it is damaged."""

    impl = sa.Integer
    cache_ok = True

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> int | None:
        """Returns the count, 0 with a warning for anything else."""
        if value is None or (type(value) is int and value >= 0):
            return value
        warn_of_damage("A count of a trial's lease is taken for 0", f"it is damaged: {value!r}.")
        return 0


class StoredTime(sa.types.TypeDecorator[Any]):
    """The column type of a time: on SQLite a text, which is not checked."""

    impl = sa.String
    cache_ok = True

    def process_result_value(self, value: Any, dialect: sa.Dialect) -> datetime | Damaged | None:
        """Returns the time; :class:`Damaged` if the text is no time, or has a time zone."""
        if value is None or isinstance(value, datetime):
            return value
        try:
            time = datetime.fromisoformat(value)
        except (TypeError, ValueError):
            return Damaged(str(value))
        return time if time.tzinfo is None else Damaged(value)


def damage_error(what: str, value: object) -> StorageError:
    """Returns the error to raise where a damaged value is needed.

    Args:
        what: The damaged part, such as ``Its state``, as the subject of a sentence.
        value: The value found there.
    """
    text = value.text if isinstance(value, Damaged) else str(value)
    return StorageError(
        f"{what} is damaged: {text[:_SHOWN]!r}. Put a backup of the database in place, or be rid "
        "of the study in 'tuner dashboard'."
    )


def warn_of_damage(what: str, error: object) -> None:
    """Warns that a damaged part is left out.

    Args:
        what: A clause that names the part and says that it is left out.
        error: The reason that it cannot be read.
    """
    if isinstance(error, Exception):
        error = f"{type(error).__name__}: {error}"
    warnings.warn(f"{what}: {error}", DamageWarning, stacklevel=3)
