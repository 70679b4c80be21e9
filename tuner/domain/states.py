"""The states of a study as a whole, and of its workers."""

from __future__ import annotations

import shlex
from enum import StrEnum


class StudyState(StrEnum):
    """The state that a user has put a study in.

    >>> StudyState("paused")
    <StudyState.PAUSED: 'paused'>
    """

    RUNNING = "running"
    """Workers start trials, as many as the budget allows."""

    PAUSED = "paused"
    """No trial starts; those in training are saved and given back, and workers wait."""

    STOPPED = "stopped"
    """No trial starts; those in training end with the results they have, and workers end."""


class Activity(StrEnum):
    """The activity of a study, as a person sees it."""

    RUNNING = "running"
    """A worker trains."""

    IDLE = "idle"
    """There are trials to train, and no worker trains them."""

    DONE = "done"
    """Its budget is used up, and every trial is over."""

    PAUSED = "paused"
    """A user has paused it."""

    STOPPED = "stopped"
    """It was ended before its budget was used up."""

    DAMAGED = "damaged"
    """A row of the database is damaged and cannot be read."""


class WorkerState(StrEnum):
    """The state of a process that works on a study, or did."""

    WORKING = "working"
    """It holds a trial."""

    WAITING = "waiting"
    """It holds none, and stays for trials that others may leave behind."""

    PAUSED = "paused"
    """It holds none, since the study is paused."""

    LEAVING = "leaving"
    """It was asked to end, and has not yet said that it does."""

    SILENT = "silent"
    """It is known to have died, or was not seen for so long that others take its trials over."""

    LEFT = "left"
    """It said that it ends."""

    @property
    def is_alive(self) -> bool:
        """Whether such a worker counts as alive."""
        return self not in (WorkerState.SILENT, WorkerState.LEFT)


def announce_pause(name: str) -> str:
    """Returns the message of workers that wait on a paused study.

    >>> announce_pause("digits")
    "'digits' is paused: waiting for 'tuner study resume digits'"
    """
    return f"{name!r} is paused: waiting for 'tuner study resume {shlex.quote(name)}'"
