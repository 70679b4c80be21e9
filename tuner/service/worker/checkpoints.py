"""The checkpoints of a study's trials: every holder of a lease writes its own file."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuner.domain.places import make_private
from tuner.errors import StorageError
from tuner.service.ownership import claimed_at
from tuner.store import Database, Lease, StudyHandle
from tuner.store.identifiers import fault_of
from tuner.store.leases.rows import read_leases
from tuner.training.checkpoint_file import load_checkpoint, remove_checkpoint, save_checkpoint
from tuner.training.reporting import StaleCheckpointError

_CHECKPOINTS = "checkpoints"
_YOUNG_S = 86400.0
_NAME = re.compile(r"trial-\d+-(?P<token>[0-9a-f]+)\.")
"""Of a checkpoint, and of one that is being written."""


def sweep(folder: Path, database: Database, study: StudyHandle) -> None:
    """Deletes the checkpoints that can never count: of ended trials and of former holders.

    Those that were there before the folder became this database's are left for a day: they may
    belong to another database.

    Args:
        folder: The study's folder.
        database: The database that holds the study.
        study: The study.

    Raises:
        UnavailableError: If the database is away.
    """
    # Listed first: a holder that is unknown to leases read later has lost its trial for good.
    found = find_checkpoints(folder)
    with database.read() as connection:
        rows = read_leases(connection, study.uuid)
    alive = {row.token for row in rows} | {row.checkpoint for row in rows}
    since = claimed_at(folder)
    for path in found:
        named = _NAME.match(path.name)
        if named and named["token"] not in alive and not _may_be_anothers(path, since):
            remove_checkpoint(path)


def find_checkpoints(folder: Path) -> list[Path]:
    """Returns the checkpoints in a study's folder, half-written ones too."""
    return _list(folder, "trial-*")


def _may_be_anothers(path: Path, claimed_at: float | None) -> bool:
    try:
        written_at = path.stat().st_mtime
    except OSError:
        return False
    former = claimed_at is not None and written_at < claimed_at
    return former and written_at > time.time() - _YOUNG_S


def _list(folder: Path, pattern: str) -> list[Path]:
    """Returns files among a study's checkpoints; none if a link leads elsewhere."""
    checkpoints = folder / _CHECKPOINTS
    if folder.is_symlink() or checkpoints.is_symlink():
        return []
    return list(checkpoints.glob(pattern))


class Checkpoints:
    """A trial's checkpoints, read and written for one holder of its lease.

    Every holder writes a file named after its token, and the database says whose counts. So a
    holder that lost its lease without knowing cannot overwrite the checkpoint that another goes on
    from. Each file names its trial, so that it is not taken for another's under a wrong name.

    Args:
        folder: The study's folder.
        study_uuid: The study.
        lease: The lease of the holder.
    """

    def __init__(self, folder: Path, study_uuid: str, lease: Lease) -> None:
        self._study_folder = folder
        self._folder = folder / _CHECKPOINTS
        self._number = lease.number
        self._study_uuid = study_uuid
        self._owner = f"trial {lease.number} of study {study_uuid}"
        self._own = self._path(lease.token)
        self._damaged = None if lease.checkpoint is None else fault_of(lease.checkpoint)
        counts = lease.checkpoint is not None and self._damaged is None
        self._counting = self._path(str(lease.checkpoint)) if counts else None

    def load(self) -> dict[str, Any] | None:
        """Returns the checkpoint that counts, or None where there has been none.

        Raises:
            StorageError: If it is not there, or cannot be read.
            StaleCheckpointError: If it is another trial's.
        """
        if self._damaged is not None:
            raise StorageError(f"Its checkpoint {self._damaged}")
        if self._counting is None:
            return None
        state = load_checkpoint(self._find(self._counting))
        if state is None:
            raise StorageError(
                f"Its checkpoint {self._counting} is not on this machine. Give all workers of a "
                "study one TUNER_HOME that each of them sees."
            )
        owner = state.pop("owner", None)
        if not isinstance(owner, str) or owner != self._owner:
            raise StaleCheckpointError(
                f"The checkpoint {self._counting} is of {owner}, not of {self._owner}."
            )
        return state

    def save(self, state: Mapping[str, Any]) -> None:
        """Writes this holder's checkpoint; it counts once the database has been told.

        Raises:
            StorageError: If it cannot be written.
        """
        make_private(self._folder)
        save_checkpoint(self._own, {**state, "owner": self._owner})

    def drop_former(self) -> None:
        """Deletes the former holder's checkpoint, once the database counts this holder's."""
        if self._counting not in (None, self._own):
            remove_checkpoint(self._counting)
        self._counting = self._own

    def clear(self) -> None:
        """Deletes every checkpoint of the trial, half-written ones too, since it has ended."""
        for path in _list(self._study_folder, f"trial-{self._number}-*"):
            remove_checkpoint(path)

    def _find(self, path: Path) -> Path:
        """Returns where a checkpoint is, maybe with a database that this one is a copy of."""
        if path.exists():
            return path
        others = self._folder.parent.parent.glob(f"{self._study_uuid}*/{_CHECKPOINTS}/{path.name}")
        return next(others, path)

    def _path(self, token: str) -> Path:
        return self._folder / f"trial-{self._number}-{token}.pt"
