"""The display of a study in a notebook: a piece of the cell's output, which is drawn anew."""

from __future__ import annotations

import importlib
import io
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console

from tuner.domain.trials import TrialRecord
from tuner.report.terminal import TextConsole
from tuner.service.display.live import LiveView
from tuner.service.display.progress import Lines, LiveDisplay, choose_display
from tuner.service.pools.pool import Exit, Seat
from tuner.service.study_progress import StudyProgress

_EVERY_S = 0.5
"""Seconds between two drawings, at least: each is a message to the browser."""

_WIDTH, _HEIGHT = 100, 40
"""Columns and lines of a drawing."""

_FORMAT = '<pre style="line-height:1.2;white-space:pre;overflow-x:auto">{code}</pre>'


def is_notebook() -> bool:
    """Tells whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return getattr(shell, "kernel", None) is not None


def open_console() -> Console:
    """Returns the console that a program's user reads: standard error, the cell in a notebook."""
    return TextConsole(sys.stdout if is_notebook() else sys.stderr)


def show_here(*, quiet: bool = False) -> Lines | LiveDisplay | NotebookDisplay:
    """Returns a display for a program's user: in a notebook's cell, on a terminal, or as lines.

    Args:
        quiet: Whether to show warnings only.
    """
    out = open_console()
    if is_notebook() and not quiet:
        return NotebookDisplay(out)
    return choose_display(out, quiet=quiet)


class NotebookDisplay(Lines):
    """Draws in the output of a cell what a terminal would show, and prints lines below.

    Args:
        out: The console that prints lines.
    """

    def __init__(self, out: Console) -> None:
        super().__init__(out)
        self._seats: Sequence[Seat] = ()
        self._handle: Any = None
        self._progress: StudyProgress | None = None
        self._drawn_at_s = float("-inf")

    def __enter__(self) -> NotebookDisplay:
        self.open()
        shown = importlib.import_module("IPython.display")
        self._handle = shown.display(shown.HTML(""), display_id=True)
        return self

    def __exit__(self, *error: object) -> None:
        self._draw()
        self.close()

    def show_workers(self, seats: Sequence[Seat], exits: Sequence[Exit]) -> None:
        """Keeps the workers for the table."""
        self._seats = seats

    def show(self, progress: StudyProgress, finished: Iterable[TrialRecord]) -> None:
        """Draws the study as it is now, unless it was drawn a moment ago."""
        for _ in finished:
            pass  # it is counted in what is drawn
        self._progress = progress
        now_s = time.monotonic()
        if now_s - self._drawn_at_s >= _EVERY_S:
            self._drawn_at_s = now_s
            self._draw()

    def _draw(self) -> None:
        if self._progress is None or self._handle is None:
            return
        shown = importlib.import_module("IPython.display")
        self._handle.update(shown.HTML(draw(LiveView(self._progress, self._seats))))


def draw(view: LiveView) -> str:
    """Returns a view as HTML that brings its colours along, and takes the page's for the rest."""
    console = Console(
        file=io.StringIO(),
        record=True,
        force_terminal=True,
        force_jupyter=False,
        color_system="truecolor",
        legacy_windows=False,
        width=_WIDTH,
        height=_HEIGHT,
        markup=False,
        emoji=False,
        highlight=False,
    )
    console.print(view)
    return console.export_html(inline_styles=True, code_format=_FORMAT)
