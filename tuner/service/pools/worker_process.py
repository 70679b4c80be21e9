"""A worker as a process of this machine: its command, environment, log and exit."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tuner.domain.fuse_plan import AUTO
from tuner.domain.names import to_argument
from tuner.domain.places import make_private, project_folder
from tuner.service.pools.pool import Exit, Slot
from tuner.service.pools.standby import Standby
from tuner.service.processes import TUNER, end_group, see_only, threads_option

_REFUSED = 2
_OWN_ERRORS = (1, _REFUSED)


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
        code: The workload, packed, if it was passed as an object. It travels in the pipes of
            processes of this machine.
    """

    study: str
    url: str = field(repr=False)
    logs: Path
    fuse: str = AUTO
    environment: Mapping[str, str] = field(default_factory=dict)
    code: str = field(default="", repr=False)


class WorkerProcess:
    """A process that runs ``tuner worker start``.

    It stops by itself when this process ends, even by a crash: it watches a pipe that is held here.
    Its output is appended to a file.

    Args:
        job: The study it works on, with its settings.
        index: Its slot.
        device: The device it trains on; see :func:`see_only`.
        threads: The number of threads it computes on, unless ``OMP_NUM_THREADS`` says so.
        standby: The process that is to do it, which was started beforehand for this slot.
    """

    def __init__(
        self,
        job: Job,
        index: int,
        device: str,
        threads: int | None = None,
        standby: Standby | None = None,
    ) -> None:
        self._index = index
        make_private(job.logs)
        self._log_path = job.logs / f"worker-{index}.log"
        with self._log_path.open("ab") as log:
            self._log_start = log.tell()
            if standby is None and job.code:
                standby = Standby(Slot(index, device), threads, job.fuse, job.url, job.code)
            if standby is not None:
                self._process = standby.begin_work(job.study, job.url, self._log_path)
                return
            device, environment = see_only(device, os.environ)
            self._process = subprocess.Popen(
                [
                    *(*TUNER, "worker", "start"),
                    *("--device", device, "--fuse", job.fuse, "--follow-stdin"),
                    *threads_option(threads, environment),
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
        end_group(self._process.pid)
        if self._process.stdin is not None:
            self._process.stdin.close()
        said = self._read_log()
        warned = tuple(dict.fromkeys(_WARNING.findall(said)))
        if code == 0:
            return Exit(self._index, 0, "", warnings=warned)
        error = _find_error(said)
        # A deleted study takes its workers' logs along, and what they said in them.
        gave_up = code == _REFUSED or (code in _OWN_ERRORS and error is not None)
        message = error if gave_up and error else self._fate(code)
        return Exit(self._index, code, message, gave_up, warnings=warned)

    def terminate(self) -> None:
        """Asks the process to save its trial and end."""
        self._process.terminate()

    def kill(self) -> None:
        """Ends the process at once."""
        self._process.kill()

    def _fate(self, code: int) -> str:
        how = f"was killed by {signal.Signals(-code).name}" if code < 0 else f"died ({code})"
        return f"Worker {self._index} {how}; see {self._log_path}."

    def _read_log(self) -> str:
        """Returns what it has said, as far as that can be read."""
        try:
            with self._log_path.open("rb") as log:
                log.seek(self._log_start)
                return log.read().decode("utf-8", errors="replace")
        except OSError:
            return ""


_WARNING = re.compile(r"^(?:.*:\d+: )?(\w*Warning: .*)$", re.MULTILINE)
"""A line that a warning of Python's begins with, behind its place."""


def _find_error(said: str) -> str | None:
    """Returns the error that a worker ended with, or None if it named none."""
    _, *errors = re.split(r"^Error: ", said, flags=re.MULTILINE)
    return errors[-1].strip()[-5000:] if errors else None
