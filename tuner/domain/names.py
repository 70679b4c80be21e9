"""Names a person types: checked against what is known, with the nearest one suggested."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


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
    """Returns what to say about an unknown name.

    >>> suggest("adm", ["sgd", "adam"])
    "did you mean 'adam'?"
    """
    known = list(known)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    return f"did you mean {nearest[0]!r}?" if nearest else f"choose from {', '.join(known)}"
