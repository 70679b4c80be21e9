"""The folder that a command was started in, from which a user's relative paths begin.

If a user's code changes the working directory, as it is imported or trains, the database, the
checkpoints and the code that is still to be imported are found all the same.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

from tuner.errors import SpecError, StorageError

_started_in: list[Path] = []
"""The folders that commands were started in, the one at work last."""


@contextlib.contextmanager
def starting_here() -> Iterator[None]:
    """Keeps the present working directory as the project's folder while a command runs."""
    try:
        _started_in.append(Path.cwd())
    except OSError:  # it has been deleted, which matters only once something is looked for in it
        yield
        return
    try:
        yield
    finally:
        _started_in.pop()


def project_folder() -> Path:
    """Returns the folder that the command was started in; without one, the working directory.

    Raises:
        SpecError: If it has been deleted.
    """
    if _started_in:
        return _started_in[-1]
    try:
        return Path.cwd()
    except OSError:
        raise SpecError(
            "The working directory has been deleted: go to one that exists (cd …)."
        ) from None


def absolute(path: str | Path, where: str = "") -> Path:
    """Returns a path of a user's, from the folder that the command was started in.

    Args:
        path: The path; ``~`` begins a home.
        where: The option or variable that names it, for the message.

    Raises:
        SpecError: If there is no such user, or the working directory has been deleted.
    """
    try:
        expanded = Path(path).expanduser()
    except RuntimeError:
        raise SpecError(f"{where} = {path}: there is no such user: name a folder.") from None
    return expanded if expanded.is_absolute() else project_folder() / expanded


def make_private(folder: Path) -> Path:
    """Makes a folder, and those above it that are missing, for this user alone.

    Args:
        folder: The folder; one that is there already stays as it is.

    Raises:
        StorageError: If it cannot be made.
    """
    try:
        for missing in reversed([path for path in (folder, *folder.parents) if not path.exists()]):
            missing.mkdir(mode=0o700, exist_ok=True)
        if not folder.is_dir():
            raise NotADirectoryError(None, "Not a directory")
    except OSError as error:
        raise StorageError(
            f"{folder}: the folder cannot be made: {error.strerror}. TUNER_HOME names another "
            "place for checkpoints and logs."
        ) from None
    return folder


def is_private(folder: Path) -> bool:
    """Tells whether a folder is this user's, no link, and nobody else may write into it."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    ours = not hasattr(os, "getuid") or found.st_uid == os.getuid()
    return ours and stat.S_ISDIR(found.st_mode) and not found.st_mode & 0o022
