"""The note of a study in Optuna Dashboard: tuner's answer, and below it what people write.

Only what people write is stored. The answer is put above it whenever the note is read, and taken
off again where the page has saved it along.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

_VERSION = "dashboard:note_ver"
_PART = "dashboard:note_str:"
_MARK = re.compile(r"^\[//\]: # \(tuner ([0-9a-f]{16}): [^\n]*\)$", re.MULTILINE)


def compose(answer: str, own: str) -> str:
    """Returns a note: the answer, a mark that Markdown does not show, and what people wrote.

    Args:
        answer: tuner's answer as Markdown.
        own: The text that people wrote, may be empty.
    """
    answer = answer.strip("\n")
    mark = f"[//]: # (tuner {_digest(answer)}: the above is written anew; write your own below)"
    return f"{answer}\n\n{mark}\n\n{own}"


def strip(note: str) -> str:
    r"""Returns what people wrote of a note, all of it: an answer that they have edited is theirs.

    >>> strip(compose("Use adam.", "Tried on Monday.")), strip("Mine.")
    ('Tried on Monday.', 'Mine.')
    >>> strip(compose("Use adam.", "Tried on Monday.").replace("Use", "Never use"))
    'Never use adam.\n\nTried on Monday.'
    """
    note = note.replace("\r\n", "\n")
    found = _MARK.search(note)
    if found is None:
        return note
    above, below = note[: found.start()].strip("\n"), note[found.end() :].removeprefix("\n\n")
    return below if _digest(above) == found[1] else f"{above}\n\n{below}"


def with_answer(attributes: Mapping[str, Any], answer: str) -> dict[str, Any]:
    """Returns a study's system attributes with the answer in its note.

    Args:
        attributes: The attributes as Optuna Dashboard stores them, its note in parts.
        answer: tuner's answer as Markdown.
    """
    parts = {key: text for key, text in attributes.items() if key.startswith(_PART)}
    stored = "".join(str(parts.get(f"{_PART}{at}", "")) for at in range(len(parts)))
    others = {key: value for key, value in attributes.items() if key not in parts}
    return {_VERSION: 0, **others, f"{_PART}0": compose(answer, strip(stored))}


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:16]
