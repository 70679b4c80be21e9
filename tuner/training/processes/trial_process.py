"""The process of a command: it is started under a guard, heard, and ended with its children."""

from __future__ import annotations

import contextlib
import fcntl
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

from tuner.domain.places import project_folder
from tuner.errors import SpecError
from tuner.training.processes import guard
from tuner.training.processes.output import Output

_WAIT_S = 0.1
_DRAIN_S = 5.0


def find_program(name: str) -> str:
    """Returns the path of a program: on ``PATH``, else beside the Python that runs tuner.

    Args:
        name: Its name, or a path from the project's folder.

    Raises:
        SpecError: If there is none.
    """
    folder = project_folder()
    if os.sep in name:
        found = shutil.which(str(folder / name))
    else:
        found = shutil.which(name) or shutil.which(name, path=str(Path(sys.executable).parent))
    if found is None:
        where = folder if os.sep in name else "any folder of PATH"
        raise SpecError(
            f"study.command = [{name!r}, …]: there is no program of this name in {where} that can "
            "be run: correct the name, or give a path, such as ./train.sh, which is executable."
        )
    return found


def tell_other_program(name: str) -> str:
    """Returns a sentence where ``PATH`` has another program than the environment of tuner.

    Args:
        name: The program's name, as the command has it.

    Returns:
        The sentence, with the remedy; nothing where both are one, or there is no such program in
        the environment.
    """
    own = Path(sys.executable).parent / name
    found = None if os.sep in name else shutil.which(name)
    if found is None or not own.exists() or Path(found).parent.resolve() == own.parent.resolve():
        return ""
    return (
        f"Here {name!r} is {found}, found on PATH, while tuner runs in the environment that has "
        f"{own}. Calling .venv/bin/tuner leaves PATH as it is: activate the environment, or "
        f"write {own} in the command."
    )


@contextlib.contextmanager
def holding(folder: Path, waits: Callable[[], object]) -> Iterator[int]:
    """Holds a trial's folder, so that no two attempts of the trial write to it at once.

    Args:
        folder: The folder.
        waits: Called again and again while another attempt has yet to end; it may raise.

    Yields:
        The number of a file. The folder is held until the last process has closed it.
    """
    file = os.open(folder / ".lock", os.O_RDWR | os.O_CREAT, 0o600)
    try:
        while True:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                waits()
                time.sleep(_WAIT_S)
            except OSError:  # this file system knows no locks
                break
        yield file
    finally:
        os.close(file)


class TrialProcess:
    """A command that runs under a guard; it ends with the context, by force if need be.

    Args:
        command: The program, by its path, and its arguments.
        environment: Its environment.
        output: Where its output goes.
        grace_s: Seconds from SIGTERM to SIGKILL.
        held: Files that are to stay open until it has ended with all its children.

    Attributes:
        asked: Whether it has been asked to end.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        output: Output,
        *,
        grace_s: float,
        held: Sequence[int] = (),
    ) -> None:
        self._output = output
        orders, self._orders = os.pipe()
        self._words, words = os.pipe()
        try:
            self._process = subprocess.Popen(
                [sys.executable, "-I", "-S", guard.__file__, str(grace_s), "--", *command],
                stdin=orders,
                stdout=words,
                stderr=words,
                env=dict(environment),
                cwd=project_folder(),
                start_new_session=True,
                pass_fds=held,
            )
        except BaseException:
            os.close(self._orders)
            os.close(self._words)
            raise
        finally:
            os.close(orders)
            os.close(words)
        os.set_blocking(self._words, False)
        self._ended = False
        self.asked = False

    def fileno(self) -> int:
        """Returns the number of the pipe that its output comes from, to wait on."""
        return self._words

    def read(self) -> Iterator[str]:
        """Yields the lines that have arrived."""
        yield from self._output.take(self._read())

    @property
    def is_silent(self) -> bool:
        """Whether no more output can come: it and its children have closed theirs."""
        return self._ended

    def poll(self) -> int | None:
        """Returns the exit code, negative for a signal's number; None while it runs."""
        return self._process.poll()

    def drain(self) -> Iterator[str]:
        """Yields what is left to read of a process that has ended."""
        until = time.monotonic() + _DRAIN_S
        while (data := self._read()) and time.monotonic() < until:
            yield from self._output.take(data)
        yield from self._output.close()

    def ask_to_end(self) -> None:
        """Asks the command to end, by SIGTERM; it is killed after the grace time."""
        if not self.asked:
            self.asked = True
            self._order(b"t")

    def kill(self) -> None:
        """Kills the command and all that it has started, and waits for that."""
        self._order(b"k")
        self._process.wait()

    def __enter__(self) -> TrialProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()
        for _line in self.drain():
            pass  # it is in the log
        os.close(self._orders)
        os.close(self._words)

    def _read(self) -> bytes:
        """Returns what has arrived; nothing at the end, or where nothing has arrived yet."""
        try:
            data = os.read(self._words, 1 << 16)
        except BlockingIOError:
            return b""
        self._ended = self._ended or not data
        return data

    def _order(self, letter: bytes) -> None:
        with contextlib.suppress(OSError):  # it may have ended by itself
            os.write(self._orders, letter)
