"""Whether a worker on this machine still lives, as told by a lock that dies with its process.

The lock's file stays behind wherever a trial may, so that its worker is known to have died.

The operating system releases a file lock however a process ends, so unlike a process number it
cannot be mistaken for another's. A worker of another machine has no lock here, and nothing is
known of it: its lease has to expire.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from filelock import FileLock, Timeout

from tuner.errors import StorageError


class Presence:
    """Holds a worker's lock for as long as the process lives.

    Args:
        worker_id: The worker.
    """

    def __init__(self, worker_id: str) -> None:
        self._path = _lock_path(worker_id)
        self._lock = FileLock(self._path)
        self._leaves_work = False

    def leave_behind(self) -> None:
        """Says that the worker could not give back what it holds, and is to be known as dead."""
        self._leaves_work = True

    def __enter__(self) -> Presence:
        folder = self._path.parent
        folder.mkdir(mode=0o700, exist_ok=True)
        if hasattr(os, "getuid") and folder.stat().st_uid != os.getuid():
            raise StorageError(f"{folder} belongs to another user: remove it.")
        self._lock.acquire(timeout=0)
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        # An error may come while a trial is held; without a lock nobody could know of this end.
        if kind is None and not self._leaves_work:
            self._path.unlink(missing_ok=True)
        self._lock.release()


def is_dead(worker_id: str) -> bool:
    """Tells whether a worker is known to have died on this machine."""
    path = _lock_path(worker_id)
    if not path.exists():
        return False
    lock = FileLock(path)
    try:
        lock.acquire(timeout=0)
    except (Timeout, PermissionError):
        return False
    lock.release()
    return True


def _lock_path(worker_id: str) -> Path:
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir()) / f"tuner-{user}" / f"{worker_id}.lock"
