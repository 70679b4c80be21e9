"""What a study as a whole is asked to do, and what its workers are at."""

from __future__ import annotations

import shlex
from enum import StrEnum


class StudyState(StrEnum):
    """Whether a study is worked on.

    >>> StudyState("paused")
    <StudyState.PAUSED: 'paused'>
    """

    RUNNING = "running"
    """Workers start what the budget allows."""

    PAUSED = "paused"
    """Nothing new starts; what was in training is saved and given back, and workers wait."""

    STOPPED = "stopped"
    """Nothing new starts; what was in training ends with what it has, and workers end."""


class Activity(StrEnum):
    """What a study does, as a person sees it."""

    RUNNING = "running"
    """Somebody trains."""

    IDLE = "idle"
    """There is something to do, and nobody does it."""

    DONE = "done"
    """Its budget is used up, and every trial is over."""

    PAUSED = "paused"
    """It is to wait."""

    STOPPED = "stopped"
    """It was ended before its budget was used up."""

    DAMAGED = "damaged"
    """A row of the database is damaged and cannot be read."""


class WorkerState(StrEnum):
    """What is known of a process that works on a study, or did."""

    WORKING = "working"
    """It holds a trial."""

    WAITING = "waiting"
    """It holds none, and stays for what others may leave behind."""

    PAUSED = "paused"
    """It holds none, since the study is paused."""

    LEAVING = "leaving"
    """It was asked to end, and has not yet said that it does."""

    SILENT = "silent"
    """It is known to have died, or was not seen for so long that others take its trials over."""

    LEFT = "left"
    """It said that it ends."""

    @property
    def present(self) -> bool:
        """Whether such a worker counts as alive."""
        return self not in (WorkerState.SILENT, WorkerState.LEFT)


def announce_pause(name: str) -> str:
    """Returns what those who work on a paused study say.

    >>> announce_pause("digits")
    "'digits' is paused: waiting for 'tuner study resume digits'"
    """
    return f"{name!r} is paused: waiting for 'tuner study resume {shlex.quote(name)}'"
