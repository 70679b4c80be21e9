"""The checkpoint file of a trial: written whole or not at all, read without running code."""

from __future__ import annotations

import contextlib
import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from tuner.errors import StorageError

_FORMAT = 3


def save_checkpoint(path: Path, state: Mapping[str, Any]) -> None:
    """Writes a checkpoint, replacing an older one only when it is complete.

    Args:
        path: The file; missing folders are made, readable by their owner alone.
        state: Tensors, numbers, text and containers of them.

    Raises:
        StorageError: If the file cannot be written, or :func:`load_checkpoint` would refuse its
            content; an older checkpoint is left as it was.
    """
    temporary = path.with_suffix(f".{os.getpid()}.part")
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        torch.save({"format": _FORMAT, **state}, temporary)
        _check_plain(temporary)
        temporary.replace(path)
    except Exception as error:  # a state that cannot be pickled raises anything
        raise StorageError(f"The checkpoint {path} cannot be written: {error}") from error
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """Reads a checkpoint.

    Args:
        path: The file.

    Returns:
        The state given to :func:`save_checkpoint`, or None if there is no such file.

    Raises:
        StorageError: If the file is damaged, holds anything but plain data, or is of
            another format.
    """
    if not path.exists():
        return None
    try:
        _check_whole(path)
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a damaged file makes the unpickler raise anything
        raise StorageError(f"The checkpoint {path} cannot be read: {error}") from error
    found = state.get("format") if isinstance(state, dict) else None
    if type(found) is not int or found != _FORMAT:
        raise StorageError(f"The checkpoint {path} is not of this version of tuner.")
    return state


def remove_checkpoint(path: Path) -> None:
    """Deletes a checkpoint; one that is missing or not this user's to delete is ignored."""
    with contextlib.suppress(OSError):
        path.unlink()


def _check_plain(path: Path) -> None:
    # What names a class is refused when it is read, which would be too late to learn of it.
    refused = torch.serialization.get_unsafe_globals_in_checkpoint(path)
    if refused:
        raise ValueError(
            f"the state holds {', '.join(sorted(refused))}, which cannot be read back without "
            "running code. Let state_dict() give tensors, numbers, text and containers of them."
        )


def _check_whole(path: Path) -> None:
    # torch reads tensors without looking at the checksums it wrote.
    with zipfile.ZipFile(path) as archive:
        damaged = archive.testzip()
    if damaged is not None:
        raise ValueError(f"{damaged} is damaged")
