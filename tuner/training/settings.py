"""The ``[train]`` table of a study, with a record of the settings that a loop reads."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from tuner.domain.train import Train

APPLIED_BY_LOOPS = ("accumulate", "batch_size", "grad_clip", "precision")
"""The settings that change nothing unless the training loop reads and applies them."""


class Settings:
    """Gives the settings of the ``[train]`` table, and records which are read.

    Args:
        train: The table.
        unread: The names of settings; each is removed when it is read.
    """

    def __init__(self, train: Train, unread: set[str]) -> None:
        self._train = train
        self._unread = unread

    def __getattr__(self, name: str) -> Any:
        """Returns an attribute of the table."""
        if name.startswith("__"):
            raise AttributeError(name)  # what Python asks for to copy it
        if name in Train.model_fields:
            self._unread.discard(name)
        else:
            self._unread.clear()  # a method, which may read them all
        return getattr(self._train, name)

    def __iter__(self) -> Iterator[tuple[str, Any]]:
        self._unread.clear()
        return iter(self._train)
