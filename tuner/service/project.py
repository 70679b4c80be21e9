"""A project to start from: copies of the workloads and studies that come with tuner."""

from __future__ import annotations

import os
import shutil
from contextlib import ExitStack
from pathlib import Path

from tuner.errors import NotFoundError, SpecError, StorageError

_PACKAGE = Path(__file__).parents[1]
_PARTS = ("README.md", "models", "studies")


def write_project(folder: Path) -> list[Path]:
    """Writes a project that runs as it is.

    Args:
        folder: The folder to write to; it is made if it does not exist.

    Returns:
        The files written, relative to the folder.

    Raises:
        SpecError: If one of them exists already; nothing is written then.
        StorageError: If the folder cannot be written; files written before are removed.
    """
    files = _template_files()
    existing = [str(name) for name in files if os.path.lexists(folder / name)]
    if existing:
        raise SpecError(
            f"{folder}: {', '.join(existing)} already there: nothing has been written. "
            "Choose an empty folder."
        )
    try:
        with ExitStack() as undo:
            for name, source in files.items():
                target = folder / name
                for parent in reversed(target.parents):
                    if not parent.is_dir():
                        parent.mkdir()
                        undo.callback(parent.rmdir)
                undo.callback(target.unlink, missing_ok=True)
                shutil.copyfile(source, target)
            undo.pop_all()
    except OSError as error:
        where = error.filename or folder
        raise StorageError(
            f"{where}: cannot be written: {error.strerror}. Nothing has been left there."
        ) from error
    return list(files)


def _template_files() -> dict[Path, Path]:
    """Returns the paths of the template's files by their paths in a project."""
    files: dict[Path, Path] = {}
    for part in _PARTS:
        # The wheel carries the folders inside; in a checkout they lie beside the package.
        homes = (_PACKAGE / "template" / part, _PACKAGE.parent / part)
        source = next((home for home in homes if home.exists()), None)
        if source is None:
            raise NotFoundError(f"This installation of tuner lacks its template ({part}).")
        found = [source] if source.is_file() else sorted(source.iterdir())
        for path in found:
            if path.suffix in (".md", ".py", ".toml"):
                files[path.relative_to(source.parent)] = path
    return files
