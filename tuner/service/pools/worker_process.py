"""A worker as a process of this machine: its command, environment, log and exit."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tuner.domain.fuse_plan import AUTO
from tuner.domain.names import to_argument
from tuner.domain.places import make_private, project_folder
from tuner.service.pools.pool import Exit

_REFUSED = 2
_OWN_ERRORS = (1, _REFUSED)
_VISIBLE = "CUDA_VISIBLE_DEVICES"


@dataclass(frozen=True)
class Job:
    """The study and the settings that the workers of a pool are started with.

    Attributes:
        study: The study's name.
        url: The database's URL. It travels in the environment of the processes, which the
            process list does not show.
        logs: The folder their output goes to.
        fuse: The number of trials that train as one, as ``--fuse`` takes it.
        environment: Further environment variables, on whichever machine they run.
    """

    study: str
    url: str = field(repr=False)
    logs: Path
    fuse: str = AUTO
    environment: Mapping[str, str] = field(default_factory=dict)


class WorkerProcess:
    """A process that runs ``tuner worker start``.

    It stops by itself when this process ends, even by a crash: it watches a pipe that is held here.
    Its output is appended to a file.

    Args:
        job: The study it works on, with its settings.
        index: Its slot.
        device: The device it trains on. Of the CUDA devices it sees only the one named, so that
            nothing of it ends up on another, and none if it trains on the CPU.
        threads: The number of threads it computes on, unless ``OMP_NUM_THREADS`` says so.
    """

    def __init__(self, job: Job, index: int, device: str, threads: int | None = None) -> None:
        self._index = index
        make_private(job.logs)
        self._log_path = job.logs / f"worker-{index}.log"
        device, environment = _see_only(device, os.environ)
        share = [] if threads is None or "OMP_NUM_THREADS" in environment else [str(threads)]
        with self._log_path.open("ab") as log:
            self._log_start = log.tell()
            self._process = subprocess.Popen(
                [
                    # -P: a tuner.py in the working directory is not the program to run.
                    *(sys.executable, "-P", "-m", "tuner", "worker", "start"),
                    *("--device", device, "--fuse", job.fuse, "--follow-stdin"),
                    *(word for number in share for word in ("--threads", number)),
                    *("--", to_argument(job.study)),
                ],
                env={**environment, **job.environment, "TUNER_STORAGE": job.url},
                stdin=subprocess.PIPE,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=project_folder(),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """The process's number."""
        return self._process.pid

    def poll(self) -> Exit | None:
        """Returns the end of the process, or None while it runs."""
        return None if self._process.poll() is None else self.wait()

    def wait(self) -> Exit:
        """Waits for the end of the process and returns it."""
        code = self._process.wait()
        self._end_children()
        if self._process.stdin is not None:
            self._process.stdin.close()
        if code == 0:
            return Exit(self._index, 0, "")
        error = self._error()
        # A deleted study takes its workers' logs along, and what they said in them.
        gave_up = code == _REFUSED or (code in _OWN_ERRORS and error is not None)
        return Exit(self._index, code, error if gave_up and error else self._fate(code), gave_up)

    def terminate(self) -> None:
        """Asks the process to save its trial and end."""
        self._process.terminate()

    def kill(self) -> None:
        """Ends the process at once."""
        self._process.kill()

    def _end_children(self) -> None:
        """Ends the processes it has left behind, which may hold memory of the device."""
        if hasattr(os, "killpg"):
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGTERM)

    def _fate(self, code: int) -> str:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"died ({code})"
        return f"Worker {self._index} {how}; see {self._log_path}."

    def _error(self) -> str | None:
        """Returns the error it ended with, or None if it named none."""
        try:
            with self._log_path.open("rb") as log:
                log.seek(self._log_start)
                text = log.read().decode("utf-8", errors="replace")
        except OSError:
            return None
        _, *errors = re.split(r"^Error: ", text, flags=re.MULTILINE)
        return errors[-1].strip()[-5000:] if errors else None


def _see_only(device: str, environment: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Returns a device as a process names it that sees no other, and its environment.

    >>> _see_only("cuda:1", {"CUDA_VISIBLE_DEVICES": "4,6"})
    ('cuda:0', {'CUDA_VISIBLE_DEVICES': '6'})
    >>> _see_only("cpu", {})
    ('cpu', {'CUDA_VISIBLE_DEVICES': ''})
    """
    kind, _, number = device.partition(":")
    if kind == "cuda" and number.isdecimal():
        if _VISIBLE not in environment:
            return "cuda:0", {**environment, _VISIBLE: number}
        names = [name.strip() for name in environment[_VISIBLE].split(",") if name.strip()]
        # One beyond what is visible stays itself: the worker refuses it by the name it was given.
        if int(number) < len(names):
            return "cuda:0", {**environment, _VISIBLE: names[int(number)]}
    if kind == "cpu":
        return device, {**environment, _VISIBLE: ""}
    return device, dict(environment)
