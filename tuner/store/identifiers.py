"""Identifiers from the database, checked before a file or a study is named after one.

Studies, workers and leases are told apart by 32 hexadecimal digits each, and folders and files are
called after them. Whoever can write the database could put a path there instead.
"""

from __future__ import annotations

import re

from tuner.domain.printable import cut

_DIGITS = re.compile(r"[0-9a-f]{32}")


def fault_of(value: object) -> str | None:
    """Returns the fault of an identifier, as the rest of a sentence; None if it has none."""
    if isinstance(value, str) and _DIGITS.fullmatch(value):
        return None
    return (
        "is damaged in the database, or somebody has changed it: its identity is "
        f"{cut(repr(value))}, not 32 hexadecimal digits. No file is read or deleted by that."
    )
