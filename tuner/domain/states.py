"""What a study as a whole is asked to do."""

from __future__ import annotations

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
