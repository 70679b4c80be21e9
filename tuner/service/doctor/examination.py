"""The whole examination, each part of which may fail without the others."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterable
from pathlib import Path

from tuner.errors import TunerError, tell_error
from tuner.service.doctor.database import examine_database, examine_locks, tell_unusable
from tuner.service.doctor.devices import examine_compiler, examine_devices, try_compiling
from tuner.service.doctor.finding import Finding, Level, problem
from tuner.service.doctor.machine import (
    count_cores,
    examine_clock,
    examine_cores,
    examine_folders,
    examine_shared_memory,
    read_quota,
)
from tuner.service.doctor.software import examine_software
from tuner.store import default_url
from tuner.store.connection.urls import sqlite_path


def examine(storage: str | None = None, *, compiles: bool = False) -> list[Finding]:
    """Looks at all that trials need, and changes nothing.

    Args:
        storage: The database's URL; None for the default one.
        compiles: Whether to try the compiler too, for up to minutes.
    """

    def look_at_database() -> list[Finding]:
        try:
            url = storage or default_url()
        except TunerError as error:
            return [tell_unusable(error)]
        return examine_database(url)

    parts: list[tuple[str, Callable[[], list[Finding]]]] = [
        ("packages", examine_software),
        ("devices", lambda: examine_devices(os.environ)),
        ("compiler", lambda: examine_compiler(os.environ)),
        ("cores", lambda: examine_cores(os.environ, count_cores(), read_quota())),
        ("shared memory", examine_shared_memory),
        ("clock", examine_clock),
        ("folders", lambda: examine_folders(_find_file(storage))),
        ("database", look_at_database),
        ("workers", examine_locks),
    ]
    if compiles:
        parts.insert(3, ("compiling", try_compiling))
    return [finding for topic, look in parts for finding in _attempt(topic, look)]


def _find_file(storage: str | None) -> Path | None:
    """Returns the path of a SQLite database, None for another one or where no URL is known."""
    with contextlib.suppress(TunerError):  # which the look at the database tells
        return sqlite_path(storage or default_url())
    return None


def _attempt(topic: str, look: Callable[[], list[Finding]]) -> list[Finding]:
    """Returns the findings of a part; that it cannot be looked at is one."""
    try:
        return look()
    except Exception as error:  # noqa: BLE001 (what is broken here is what is looked for)
        return [problem(topic, f"cannot be looked at: {tell_error(error)}", "tuner --debug doctor")]


def count_levels(findings: Iterable[Finding]) -> dict[Level, int]:
    """Returns how many findings there are of each level."""
    levels = [finding.level for finding in findings]
    return {level: levels.count(level) for level in Level}
