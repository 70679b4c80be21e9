"""Standard output and error: texts are made fit for a terminal, and secrets in them are hidden.

Whatever this process prints goes through :class:`Clean`, a workload's words and tracebacks too, so
no command needs to ask where a text comes from. Only the consoles of Rich write below it, since
they draw with control characters of their own; they clean the text that they draw.
"""

from __future__ import annotations

import io
import os
import sys
from typing import TYPE_CHECKING, TextIO

from tuner.domain.printable import printable

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer


class Clean(io.BufferedIOBase):
    """Writes text to a stream, made printable and without secrets that this process knows.

    Args:
        stream: Where to.
    """

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    @property
    def name(self) -> object:
        """The stream's name."""
        return getattr(self.stream, "name", "")

    def writable(self) -> bool:
        """Returns True: text can be written."""
        return True

    def isatty(self) -> bool:
        """Tells whether a terminal shows the text."""
        return self.stream.isatty()

    def fileno(self) -> int:
        """Returns the number of the stream's file."""
        return self.stream.fileno()

    def write(self, data: ReadableBuffer, /) -> int:
        """Writes text in UTF-8; a carriage return, which would write over a line, ends it."""
        raw = bytes(data)
        text = raw.decode("utf-8", "backslashreplace").replace("\r\n", "\n").replace("\r", "\n")
        self.stream.write(printable(hide_secrets(text), lines=True))
        return len(raw)

    def flush(self) -> None:
        """Flushes the stream below."""
        if not self.stream.closed:
            self.stream.flush()


class Lossy(io.FileIO):
    """Drops the bytes that a file cannot take: its disk is full, or its reader has gone."""

    def write(self, data: ReadableBuffer, /) -> int:
        """Writes bytes, or drops them; returns how many were written or dropped."""
        try:
            return super().write(data)
        except OSError:
            return memoryview(data).nbytes


def clean_streams() -> None:
    """Replaces standard output and error by :class:`Clean` streams over them."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if isinstance(stream, io.TextIOWrapper):
            # A terminal that cannot show a letter gets a question mark instead of an error.
            stream.reconfigure(errors="replace")
            setattr(sys, name, _clean(stream))


def lose_rather_than_fail() -> None:
    """Makes printing in this process never fail, in a workload's code neither.

    Otherwise a full disk would fail every trial that says something, and once more the end of the
    process, when Python flushes its buffers.
    """
    for name in ("stdout", "stderr"):
        stream = below(getattr(sys, name))
        if isinstance(stream, io.TextIOWrapper):
            raw = Lossy(stream.fileno(), "wb", closefd=False)
            lossy = io.TextIOWrapper(
                io.BufferedWriter(raw),
                encoding=stream.encoding,
                errors=stream.errors,
                line_buffering=True,
            )
            setattr(sys, name, _clean(lossy))


def keep_output_apart() -> int:
    """Returns the number of the file that is standard output, which becomes standard error's.

    What is printed from now on goes there, by a workload's code too, so that nothing but the bytes
    that are written to the number returned reaches who reads standard output.
    """
    apart = os.dup(sys.stdout.fileno())
    sys.stdout.flush()
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
    return apart


def append_output(path: str) -> None:
    """Appends all output of this process to a file from now on; a missing file is made."""
    log = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
        os.dup2(log, stream.fileno())
    os.close(log)


def below(stream: TextIO) -> TextIO:
    """Returns the stream that a clean stream writes to; any other stream is returned itself."""
    buffer = getattr(stream, "buffer", None)
    return buffer.stream if isinstance(buffer, Clean) else stream


def hide_secrets(text: str) -> str:
    """Returns a text in which the secrets that this process knows are hidden."""
    urls = sys.modules.get("tuner.store.connection.urls")  # without it no URL has been read
    return str(urls.hide_known_secrets(text)) if urls else text


def _clean(stream: io.TextIOWrapper) -> io.TextIOWrapper:
    return io.TextIOWrapper(
        Clean(below(stream)),
        encoding="utf-8",
        errors="backslashreplace",
        newline="\n",
        line_buffering=True,
    )
