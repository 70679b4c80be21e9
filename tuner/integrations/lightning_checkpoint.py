"""Lightning's checkpoint of a trial, which is kept in memory instead of in a file."""

from __future__ import annotations

import copy
from typing import Any

CHECKPOINT = "the checkpoint of this trial"
"""Stands for a path where Lightning saves to, or loads from, what the run keeps."""

_UNNEEDED = ("hyper_parameters", "datamodule_hyper_parameters")
"""Parts of a checkpoint that rebuild a model without its code, and may be objects of any kind."""


class Memory:
    """Keeps a trial's checkpoint in memory, and leaves all others to Lightning's files.

    Args:
        files: What reads and writes the files of others.
        kept: The checkpoint to load, or None.
    """

    def __init__(self, files: Any, kept: dict[str, Any] | None) -> None:
        self._files, self._kept = files, kept

    def __getattr__(self, name: str) -> Any:
        return getattr(self._files, name)

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, *args: Any, **kw: Any) -> None:
        """Keeps a checkpoint, or writes it to a file."""
        if path == CHECKPOINT:
            self._kept = checkpoint
        else:
            self._files.save_checkpoint(checkpoint, path, *args, **kw)

    def load_checkpoint(self, path: Any, *args: Any, **kw: Any) -> Any:
        """Returns the kept checkpoint, or reads a file."""
        return self.take() if path == CHECKPOINT else self._files.load_checkpoint(path, *args, **kw)

    def take(self) -> Any:
        """Returns the kept checkpoint, and keeps it no longer."""
        kept, self._kept = self._kept, None
        return kept


def to_before_batch(checkpoint: dict[str, Any]) -> dict[str, Any]:
    """Returns a checkpoint taken as a batch begins, as it was before that batch was fetched."""
    kept = {key: part for key, part in checkpoint.items() if key not in _UNNEEDED}
    kept = copy.deepcopy(kept)  # training may go on before it is written
    progress = kept["loops"]["fit_loop"]["epoch_loop.batch_progress"]
    for count in (progress["total"], progress["current"]):
        count["ready"] = count["started"]
    progress["is_last_batch"] = False
    return kept
