"""Where the checkpoints and logs of a study are kept: beside a SQLite file, else here."""

from __future__ import annotations

import os
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.store import Lease, StudyHandle
from tuner.store.urls import sqlite_path
from tuner.training.checkpoint import load_checkpoint, remove_checkpoint, save_checkpoint


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


class Checkpoints:
    """A trial's checkpoints, as one holder of it sees them.

    Every holder writes a file named after its token, and the database tells whose counts. So a
    holder that lost its lease without knowing cannot overwrite what another goes on from.

    Args:
        folder: The study's folder.
        lease: The holder's.
    """

    def __init__(self, folder: Path, lease: Lease) -> None:
        self._folder = folder / "checkpoints"
        self._number = lease.number
        self._own = self._path(lease.token)
        self._counting = self._path(lease.checkpoint) if lease.checkpoint else None

    def load(self) -> dict[str, Any] | None:
        """Reads the checkpoint that counts, or returns None where there is none.

        Raises:
            StorageError: If it cannot be read.
        """
        return load_checkpoint(self._counting) if self._counting is not None else None

    def save(self, state: Mapping[str, Any]) -> None:
        """Writes this holder's checkpoint; it counts once the database has been told.

        Raises:
            StorageError: If it cannot be written.
        """
        save_checkpoint(self._own, state)

    def settle(self) -> None:
        """Hears that this holder's checkpoint counts, and deletes the one before."""
        if self._counting not in (None, self._own):
            remove_checkpoint(self._counting)
        self._counting = self._own

    def drop(self) -> None:
        """Deletes this holder's checkpoint: the trial is another's."""
        remove_checkpoint(self._own)

    def clear(self) -> None:
        """Deletes every checkpoint of the trial: it is over."""
        for path in self._folder.glob(f"trial-{self._number}-*.pt"):
            remove_checkpoint(path)

    def _path(self, token: str) -> Path:
        return self._folder / f"trial-{self._number}-{token}.pt"
