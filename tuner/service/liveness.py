"""Tells which workers on this machine live, by a file lock of each that ends with its process.

A worker that may leave a trial behind leaves the lock's file, too, so that its death is known.

The operating system releases a file lock however a process ends, so unlike a process number it
cannot be mistaken for another's. A worker of another machine has no lock here, and nothing is
known of it: its lease has to expire.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import platformdirs
from filelock import FileLock, Timeout

from tuner.domain.places import is_private, make_private
from tuner.errors import StorageError
from tuner.store.connection.file_systems import find_network_file_system
from tuner.store.identifiers import fault_of


class WorkerLock:
    """Holds a worker's lock for as long as the process lives.

    Args:
        worker_id: The worker, by 32 hexadecimal digits.

    Raises:
        StorageError: If every folder for locks could be another user's.
    """

    def __init__(self, worker_id: str) -> None:
        self._path = _own_folder() / f"{worker_id}.lock"
        self._lock = FileLock(self._path)
        self._keeps_file = False

    def keep_file(self) -> None:
        """Keeps the file at the end, which marks the worker as dead: it still holds trials."""
        self._keeps_file = True

    def __enter__(self) -> WorkerLock:
        self._lock.acquire(timeout=0)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # An error may come while a trial is held; without a lock nobody could know of this end.
        if kind is None and not self._keeps_file:
            self._path.unlink(missing_ok=True)
        self._lock.release()


def is_dead(worker_id: str) -> bool:
    """Tells whether a worker is known to have died on this machine."""
    if fault_of(worker_id) is not None:
        return False
    return any(
        _is_left(folder / f"{worker_id}.lock") for folder in _folders() if is_private(folder)
    )


def find_left() -> list[Path]:
    """Returns the lock files on this machine whose workers have died, or left trials behind."""
    folders = [folder for folder in _folders() if is_private(folder)]
    files = [path for folder in folders for path in sorted(folder.glob("*.lock"))]
    return [path for path in files if _is_left(path)]


def _is_left(path: Path) -> bool:
    """Tells whether a lock's file exists and no process holds the lock."""
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except (Timeout, PermissionError):
        return False
    lock.release()
    return True


def _own_folder() -> Path:
    """Returns a folder for locks in which no other user can make a file or a link."""
    for folder in _folders():
        with contextlib.suppress(StorageError):
            make_private(folder)
        if is_private(folder) and os.access(folder, os.W_OK):
            return folder
    raise StorageError(
        f"{folder}: another user may write there, so it cannot tell which workers live. Set "
        "XDG_RUNTIME_DIR to a folder of yours alone (chmod 700)."
    )


def _folders() -> Iterator[Path]:
    """Yields the folders that may hold locks, the best first; a lock is looked for in all of them.

    They are the folder of the login session; the user's cache, if it is on this machine; and, for
    users without either, the folder for temporary files, where others may have been first.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    session = Path(os.environ.get("XDG_RUNTIME_DIR") or f"/run/user/{user}")
    if is_private(session):
        yield session / "tuner"
    cache = Path(platformdirs.user_cache_dir("tuner", appauthor=False))
    if find_network_file_system(cache) is None:
        yield cache / "workers"
    yield Path(tempfile.gettempdir()) / f"tuner-{user}"
