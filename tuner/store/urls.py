"""Database URLs: where the database is, told without its password."""

from __future__ import annotations

import os
from pathlib import Path

import sqlalchemy
from sqlalchemy.exc import ArgumentError

from tuner.errors import SpecError

_DEFAULT = "sqlite:///tuner.db"
_BACKENDS = ("sqlite", "postgresql")


def default_url() -> str:
    """Returns ``TUNER_STORAGE``, else a SQLite file in the working directory."""
    return os.environ.get("TUNER_STORAGE") or _DEFAULT


def parse_url(url: str) -> sqlalchemy.URL:
    """Returns a checked database URL.

    Raises:
        SpecError: If it is no URL, or of a database tuner does not run on.
    """
    try:
        parsed = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):
        remedy = f"sqlite:///{url}" if "/" not in url and url else _DEFAULT
        raise SpecError(f"--storage is no database URL: write it as {remedy}.") from None
    if parsed.get_backend_name() not in _BACKENDS:
        raise SpecError(
            f"--storage {redact(url)}: tuner runs on {' and '.join(_BACKENDS)}, "
            f"not on {parsed.get_backend_name()}."
        )
    if parsed.get_backend_name() == "sqlite" and parsed.query:
        raise SpecError("--storage: a SQLite URL takes no options: write sqlite:///tuner.db.")
    if parsed.get_backend_name() == "sqlite" and parsed.database in (None, "", ":memory:"):
        raise SpecError(f"--storage {url}: workers cannot share memory; name a file: {_DEFAULT}.")
    return parsed


def sqlite_path(url: str) -> Path | None:
    """Returns the file of a SQLite database, or None for another database."""
    parsed = parse_url(url)
    is_file = parsed.get_backend_name() == "sqlite" and parsed.database
    return Path(str(parsed.database)) if is_file else None


def redact(url: str) -> str:
    """Returns the URL with its password hidden.

    >>> redact("postgresql://ann:secret@db/tuner")
    'postgresql://ann:***@db/tuner'
    """
    try:
        parsed = sqlalchemy.make_url(url)
    except (ArgumentError, ValueError):
        return "(not a database URL)"
    secrets = {key: "***" for key in parsed.query if "pass" in key.lower()}
    return parsed.update_query_dict(secrets).render_as_string(hide_password=True)
