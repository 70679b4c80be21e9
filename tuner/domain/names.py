"""Checks names that a person types, and suggests the nearest known one."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from tuner.domain.printable import printable
from tuner.errors import SpecError


@runtime_checkable
class Adviser(Protocol):
    """A collection of names that gives its own advice about an unknown one."""

    def advise(self, name: str) -> str:
        """Returns the advice to a user who typed an unknown name."""


IMPORT_STRING = r"^[A-Za-z_][\w.]*:[A-Za-z_]\w*$"
"""The pattern of a name to import, ``module:attribute``."""

LONGEST_NAME = 255
"""Characters that the name of a number may have, logged, measured or suggested."""

_NEAR = 0.6
"""How alike two names are, from 0 to 1, for one to be taken for the other misspelt."""

_COMPARED = 64
"""Characters of a typed name that are compared with known ones."""


def check_names(names: tuple[str, ...], known: Mapping[str, Any], kind: str) -> tuple[str, ...]:
    """Returns the names if each is known and none stands twice.

    Raises:
        ValueError: With the nearest known name.
    """
    for name in names:
        if name not in known:
            raise ValueError(f"there is no {kind} {name!r}: {suggest(name, known)}")
    if len(set(names)) < len(names):
        raise ValueError(f"{list(names)} names one {kind} twice: name each once")
    return names


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns the advice to a user who typed an unknown name.

    >>> suggest("adm", ["sgd", "adam"])
    "did you mean 'adam'?"
    """
    if isinstance(known, Adviser):
        return known.advise(name)
    known = list(known)
    nearest = find_nearest(name, known)
    if nearest is None:
        return f"choose from {', '.join(map(printable, known))}"
    return f"did you mean {nearest!r}?"


def find_nearest(name: str, known: Iterable[str]) -> str | None:
    """Returns the known name that is meant by one misspelt, None if none is near enough.

    Capitals do not count. Among those that are near enough, it is the one that the fewest slips
    lead to.

    >>> find_nearest("adma", ["adamax", "adam"]), find_nearest("SGD", ["rprop", "sgd"])
    ('adam', 'sgd')
    >>> find_nearest("mine", ["nope"]) is None
    True
    """
    typed = name.casefold()
    near: list[tuple[int, float, str]] = []
    for each in known:
        meant = each.casefold()
        alike = difflib.SequenceMatcher(None, meant, typed).ratio()
        if alike >= _NEAR or sorted(meant) == sorted(typed):
            slips = count_slips(typed[:_COMPARED], meant[:_COMPARED])
            near.append((slips, -alike, each))
    return min(near)[2] if near else None


def count_slips(one: str, other: str) -> int:
    """Returns the fewest slips that turn one text into another: their Damerau-Levenshtein distance.

    A slip adds, drops or replaces a letter, or swaps two neighbours (F. J. Damerau, 1964: A
    technique for computer detection and correction of spelling errors). No letter is touched twice.

    >>> count_slips("adma", "adam"), count_slips("adma", "adamax"), count_slips("sgd", "sgd")
    (1, 2, 0)
    """
    before: list[int] = []
    row = list(range(len(other) + 1))
    for i, letter in enumerate(one, start=1):
        above, before, row = before, row, [i]
        for j, goal in enumerate(other, start=1):
            slips = min(before[j] + 1, row[j - 1] + 1, before[j - 1] + (letter != goal))
            if i > 1 and j > 1 and letter == other[j - 2] and one[i - 2] == goal:
                slips = min(slips, above[j - 2] + 1)
            row.append(slips)
    return row[-1]


def name_some(names: Sequence[str], most: int = 4) -> str:
    """Returns names in a row, only the first of very many.

    Args:
        names: The names.
        most: How many are named at most.

    >>> name_some(["a", "b", "c", "d", "e", "f"])
    'a, b, c, d and 2 more'
    """
    more = f" and {len(names) - most} more" if len(names) > most else ""
    return f"{', '.join(names[:most])}{more}"


def is_keepable(name: object) -> bool:
    r"""Tells whether a database can keep something as a name.

    >>> is_keepable("train_loss"), is_keepable(""), is_keepable("a\0b"), is_keepable(3)
    (True, False, False, False)
    """
    if not isinstance(name, str) or not 0 < len(name) <= LONGEST_NAME or "\0" in name:
        return False
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def read_typed(text: str) -> str:
    """Returns a text as it was typed, where the locale's encoding could not read it.

    Python keeps unreadable bytes as lone surrogates, which no database takes; they are UTF-8 then.

    Raises:
        SpecError: If it is no UTF-8.
    """
    try:
        text.encode()
    except UnicodeEncodeError:
        try:
            return os.fsencode(text).decode()
        except UnicodeError:
            raise SpecError(
                f"{text!r} is no text in UTF-8: use a terminal of that encoding, or plain letters."
            ) from None
    return text


def to_argument(text: str) -> str:
    """Returns a text as the argument of a process that reads it by :func:`read_typed`."""
    try:
        os.fsencode(text)
    except UnicodeEncodeError:
        return os.fsdecode(text.encode())
    return text


def to_study_name(name: str) -> str:
    """Returns a study's name, which a database may hold in any form, as a study file takes it."""
    return re.sub(r"[/\\\x00-\x1f\x7f-\x9f]", "-", name[:190]).lstrip("- ") or "study"
