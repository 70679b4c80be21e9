"""The folder of a study's checkpoints and logs: beside a SQLite file, else here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tuner.domain.places import absolute
from tuner.store import StudyHandle
from tuner.store.connection.urls import sqlite_path


def study_folder(url: str, study: StudyHandle) -> Path:
    """Returns the folder of a study's files.

    Args:
        url: The database's URL.
        study: The study.

    Returns:
        A folder below ``TUNER_HOME``, else below ``.tuner`` beside a SQLite database, else below
        ``.tuner`` in the working directory. It need not exist.

    Raises:
        SpecError: If ``TUNER_HOME`` names the home of nobody.
    """
    return studies_folder(url) / study.uuid


def studies_folder(url: str) -> Path:
    """Returns the folder that holds the folders of all studies of a database.

    Args:
        url: The database's URL.

    Raises:
        SpecError: If ``TUNER_HOME`` names the home of nobody.
    """
    configured = os.environ.get("TUNER_HOME")
    if configured:
        return absolute(configured, "TUNER_HOME")
    path = sqlite_path(url)
    base = absolute(".") if path is None else Path(os.path.realpath(path)).parent
    return base / ".tuner"


def trial_folder(folder: Path, number: int) -> Path:
    """Returns the folder of a trial's files within its study's; it need not exist."""
    return folder / "trials" / str(number)


def remove_folder(folder: Path) -> None:
    """Deletes a study's folder, but no link in its place and no file that a link in it leads to."""
    if not folder.is_symlink():
        shutil.rmtree(folder, ignore_errors=True)
