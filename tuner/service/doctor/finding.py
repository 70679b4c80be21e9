"""A finding: what was looked at, how it stands, and the remedy."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Level(StrEnum):
    """How a finding stands."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at.

    Attributes:
        topic: What it belongs to, such as ``database``.
        level: Whether it works, may not, or does not.
        text: What was found.
        remedy: What to do, with a command where there is one; empty where nothing need be done.
    """

    topic: str
    level: Level
    text: str
    remedy: str = ""


def ok(topic: str, text: str) -> Finding:
    """Returns a finding that asks for nothing."""
    return Finding(topic, Level.OK, text)


def warning(topic: str, text: str, remedy: str) -> Finding:
    """Returns a finding of something that works, but may not go well."""
    return Finding(topic, Level.WARNING, text, remedy)


def problem(topic: str, text: str, remedy: str) -> Finding:
    """Returns a finding of something that does not work."""
    return Finding(topic, Level.PROBLEM, text, remedy)
