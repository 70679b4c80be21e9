"""A clock for SQLite that a scene of faults.py sets.

Python imports this as it starts where this folder is on its path. Nothing but what SQLite says of
the time is changed: each connection is given a function of the name of SQLite's own.
"""

from __future__ import annotations

import os
import sqlite3
import time
from pathlib import Path
from typing import Any

_EPOCH = 2440587.5
_DAY_S = 86400.0

_ahead = Path(os.environ["FAULT_CLOCK"])
_connect = sqlite3.connect


def connect(*arguments: Any, **options: Any) -> sqlite3.Connection:
    """Connects as ever, to a database with that clock."""
    connection: sqlite3.Connection = _connect(*arguments, **options)
    connection.create_function("julianday", 1, julianday)
    return connection


def julianday(when: str) -> float:
    """Returns what SQLite's function does of "now", by the scene's clock."""
    if when != "now":
        raise ValueError(when)
    return (time.time() + int(_ahead.read_text())) / _DAY_S + _EPOCH


sqlite3.connect = sqlite3.dbapi2.connect = connect  # type: ignore[assignment]
