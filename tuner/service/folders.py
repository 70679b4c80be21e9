"""Where the checkpoints and logs of a study are kept: beside a SQLite file, else here."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

from tuner.store import StudyHandle
from tuner.store.urls import sqlite_path


def study_folder(url: str, study: StudyHandle) -> Path:
    """Returns the folder of a study's files.

    Args:
        url: The database's URL.
        study: The study.

    Returns:
        A folder below ``TUNER_HOME``, else below ``.tuner`` beside a SQLite database, else below
        ``.tuner`` in the working directory. It need not exist.
    """
    configured = os.environ.get("TUNER_HOME")
    if configured:
        return Path(configured).expanduser() / study.uuid
    path = sqlite_path(url)
    base = path.resolve().parent if path is not None else Path.cwd()
    return base / ".tuner" / study.uuid


def remove_folder(folder: Path) -> None:
    """Deletes a study's files."""
    shutil.rmtree(folder, ignore_errors=True)
