"""The files of a trainer's checkpoint, as parts of a trial's."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tuner.training.reporting import StaleCheckpointError


def pack(folder: Path) -> dict[str, Tensor]:
    """Returns the files of a folder, each as bytes of dtype uint8, by their path in it.

    Args:
        folder: The folder.

    Raises:
        OSError: If a file cannot be read.
    """
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): torch.from_numpy(np.fromfile(path, dtype=np.uint8))
        for path in paths
    }


def unpack(files: Mapping[str, Any], folder: Path) -> None:
    """Writes the files of :func:`pack` into a folder.

    Args:
        files: The bytes of each file by its path.
        folder: An empty folder.

    Raises:
        StaleCheckpointError: If one has no bytes, or a path would leave the folder.
        OSError: If a file cannot be written.
    """
    for name, content in files.items():
        place = PurePosixPath(name)
        sound = isinstance(content, Tensor) and content.dtype == torch.uint8
        if not sound or place.is_absolute() or ".." in place.parts or "\\" in name:
            raise StaleCheckpointError(f"The checkpoint's file {name[:80]!r} is malformed.")
        path = folder / place
        path.parent.mkdir(parents=True, exist_ok=True)
        content.cpu().numpy().tofile(path)
