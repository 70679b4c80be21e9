"""A pseudo-terminal, to see what a command shows on a real one."""

from __future__ import annotations

import contextlib
import fcntl
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b[=>]")
_ANEW = re.compile(r"\r\x1b\[2K(?:\x1b\[1A\x1b\[2K)*")
"""What a display writes before it draws itself anew: it clears its lines, the last first."""


@dataclass(frozen=True)
class Shown:
    """What a command has shown on a terminal, and how it ended.

    Attributes:
        raw: All that it wrote.
        code: Its exit code.
    """

    raw: str
    code: int

    @property
    def text(self) -> str:
        """What it wrote, without control codes."""
        return plain(self.raw)

    @property
    def frames(self) -> list[str]:
        """What stood there between two times that it moved up to draw anew."""
        return [plain(part) for part in _ANEW.split(self.raw) if plain(part).strip()]


def plain(raw: str) -> str:
    """Returns a text without the codes that a terminal obeys."""
    return _CONTROL.sub("", raw).replace("\r", "")


def run_on_terminal(
    *arguments: str,
    cwd: Path,
    columns: int = 100,
    lines: int = 40,
    timeout_s: float = 120.0,
    interrupt_at: Callable[[str], bool] | None = None,
) -> Shown:
    """Runs the command line on a pseudo-terminal of its own, and waits for its end.

    Args:
        arguments: What is typed after ``tuner``.
        cwd: The folder it runs in.
        columns: How wide the terminal is.
        lines: How high it is.
        timeout_s: Seconds after which it is killed, and the test fails.
        interrupt_at: Told all that was shown so far; once it returns True, Ctrl-C is pressed.
    """
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    environment = {k: v for k, v in os.environ.items() if k not in ("COLUMNS", "LINES", "NO_COLOR")}
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner", *arguments],
        cwd=cwd,
        env=environment | {"TERM": "xterm-256color"},
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        start_new_session=True,
    )
    os.close(theirs)
    raw, until = b"", time.monotonic() + timeout_s
    try:
        while time.monotonic() < until:
            if not select.select([ours], [], [], 0.1)[0]:
                continue
            try:
                read = os.read(ours, 65536)
            except OSError:  # nobody holds the other end any more
                break
            raw += read
            if interrupt_at is not None and interrupt_at(plain(raw.decode("utf-8", "replace"))):
                interrupt_at = None
                process.send_signal(signal.SIGINT)
        else:
            raise AssertionError(f"no end after {timeout_s} s: {raw.decode('utf-8', 'replace')}")
        return Shown(raw.decode("utf-8", "replace"), process.wait(10))
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        process.wait()
        os.close(ours)
