"""The place of a trial: its study and number, and the folder for its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Place:
    """The place of a trial.

    Attributes:
        study: The study's name.
        number: The trial's number in its study.
        folder: The folder for its files, which need not exist. All who train the trial have the
            same one, where they share the study's folder.
    """

    study: str
    number: int
    folder: Path
