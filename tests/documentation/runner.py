"""Runs the blocks of a page as a reader would type them: in order, in one folder.

``python -m tests.documentation.runner PAGE...`` does it with the ``tuner`` of the search path, each
page in a folder of its own: ``scripts/check-wheel`` does so with the wheel's. It needs no package
besides Python's own.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from tests.documentation.blocks import Block, Part, read_parts

ROOT = Path(__file__).parents[2]
BESIDE = Path(__file__).parent / "beside"
"""What pages leave to their reader: ``mine.py`` to all, and the files of a folder of its name to
a page."""

LONGEST_S = 120
"""Seconds that a block may take."""

RUN = ("sh", "console", "python")
"""The languages of what is run; blocks of others are files, parts of files, or output."""


class BlockError(AssertionError):
    """A block did not end as its page says."""


class PartRun:
    """A part of a page whose blocks are run in a folder, each with what the ones before have left.

    Args:
        part: The part.
        folder: The folder it begins in.
        stand_ins: What is run instead of some words of the page, such as the URL of a database.
    """

    def __init__(
        self, part: Part, folder: Path, stand_ins: Mapping[str, str] | None = None
    ) -> None:
        self._part = part
        self._top = folder.resolve()
        self._folder = self._top
        self._stand_ins = dict(stand_ins or {})
        self._environment = _clean_environment()
        self._beside: list[subprocess.Popen[str]] = []

    def run(self) -> int:
        """Runs all blocks, and returns how many there were to run.

        Raises:
            BlockError: If one ends otherwise than the page says.
        """
        shutil.copy(BESIDE / "mine.py", self._top)
        beside = BESIDE / self._part.page.stem
        if beside.is_dir():
            shutil.copytree(beside, self._top, dirs_exist_ok=True)
        count = 0
        try:
            for block in self._part.programs():
                count += self._take(block)
        finally:
            self._end_others()
        return count

    def _take(self, block: Block) -> bool:
        """Writes a block to its file, or runs it; returns whether it did."""
        if block.first is not None:
            self._type(block, block.first)
        text = block.text
        for word, stand_in in self._stand_ins.items():
            text = text.replace(word, stand_in)
        if block.among is not None:
            text = f"from {Path(block.among).stem} import *\n{text}"
        if block.file is not None:
            path = self._folder / block.file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
            if block.then is not None:
                self._type(block, block.then)
            return True
        if block.language not in RUN:
            return False
        if block.language == "python":
            self._await(block, ["python", "-"], text)
        elif block.language == "console":
            self._converse(block, text)
        elif block.beside:
            self._beside.append(self._start(["bash", "-euo", "pipefail", "-c", text]))
        else:
            self._type(block, text)
        return True

    def _type(self, block: Block, text: str) -> str:
        """Runs a block of shell; its folder and variables are those of the next one, too."""
        state = self._top.parent / f"{self._top.name}.state"
        keep = f"trap 'code=$?; {{ pwd; env -0; }} >{state}; exit $code' EXIT"
        output = self._await(block, ["bash", "-euo", "pipefail", "-c", f"{keep}\n{text}"])
        if state.exists():
            folder, _, variables = state.read_bytes().decode().partition("\n")
            self._folder = Path(folder)
            pairs = (entry.split("=", 1) for entry in variables.split("\0") if "=" in entry)
            self._environment = dict(pairs)
            state.unlink()
        return output

    def _converse(self, block: Block, text: str) -> None:
        """Runs each command of a session, and compares what it says with what the page shows."""
        for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
            command, _, shown = part.partition("\n")
            said = _squeeze(self._type(block, command))
            place = 0
            for piece in filter(None, map(_squeeze, shown.split("…"))):
                place = said.find(piece, place)
                if place < 0:
                    raise self._error(block, f"does not say {piece!r}", said)
                place += len(piece)

    def _await(self, block: Block, command: list[str], text: str | None = None) -> str:
        """Runs a command to its end, and returns what it said."""
        process = self._start(command)
        try:
            said, _ = process.communicate(text, timeout=LONGEST_S)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            said, _ = process.communicate()
            raise self._error(block, f"takes more than {LONGEST_S} s", said) from None
        if process.returncode != block.code:
            raise self._error(block, f"exits with {process.returncode}, not {block.code}", said)
        return said

    def _start(self, command: list[str]) -> subprocess.Popen[str]:
        return subprocess.Popen(
            command,
            cwd=self._folder,
            env=self._environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def _end_others(self) -> None:
        """Ends what goes on in other terminals, as Ctrl-C would."""
        for process in self._beside:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
            try:
                process.communicate(timeout=LONGEST_S)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.communicate()

    def _error(self, block: Block, what: str, said: str) -> BlockError:
        return BlockError(
            f"{self._part.page}:{block.line}: the block {what}.\n{block.text}\n{said}"
        )


def _clean_environment() -> dict[str, str]:
    """Returns the variables that a reader's shell has: none of tuner's, none of these tests'.

    The browser that opens pages is a command that does nothing.
    """
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith(("TUNER_", "PYTEST_", "COV_", "PYTHONPATH", "PYTHONSAFEPATH"))
    }
    here = str(Path(sys.executable).parent)
    ours = {"OMP_NUM_THREADS": "1", "COLUMNS": "120", "BROWSER": "true"}
    return kept | ours | {"PATH": f"{here}{os.pathsep}{kept['PATH']}"}


def _squeeze(text: str) -> str:
    """Returns text with each run of white space as one space: terminals wrap lines."""
    return " ".join(text.split())


def main() -> None:
    """Runs the pages that are named on the command line, as far as they begin in empty folders."""
    for name in sys.argv[1:]:
        count = 0
        for part in read_parts(Path(name)):
            if part.beginning != "empty":
                continue
            with tempfile.TemporaryDirectory() as parent:
                folder = Path(parent) / "page"
                folder.mkdir()
                count += PartRun(part, folder).run()
        print(f"{name}: {count} blocks run as typed.")  # noqa: T201


if __name__ == "__main__":
    main()
