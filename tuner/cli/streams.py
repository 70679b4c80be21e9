"""Standard output and error of a process whose work matters more than its words."""

from __future__ import annotations

import io
import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Lossy(io.FileIO):
    """A file that drops what it cannot take: its disk is full, or whoever read it has gone."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Writes bytes, or drops them; returns how many are dealt with."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def lose_rather_than_fail() -> None:
    """Has whatever prints in this process, a workload too, never fail for it.

    Otherwise a full disk would fail every trial that says something, and once more the end of the
    process, when Python writes out what it has kept.
    """
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            raw = Lossy(stream.fileno(), "wb", closefd=False)
            lossy = io.TextIOWrapper(
                io.BufferedWriter(raw),
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=True,
            )
            setattr(sys, name, lossy)
