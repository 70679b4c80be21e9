"""Workers as processes of this machine."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import IO


@dataclass(frozen=True)
class Exit:
    """How a worker's process ended.

    Attributes:
        index: Which worker, from 0.
        code: Its exit code; negative is the signal that killed it.
        message: The last thing it said, empty if it ended well.
    """

    index: int
    code: int
    message: str


class LocalPool:
    """Some worker processes on one study.

    The processes stop by themselves when this one ends, however it ends: they watch a pipe that
    it holds. The database's URL travels in their environment, where the process list does not
    show it.

    Args:
        url: The database's URL.
        study: The study's name.
        workers: How many processes.
        device: Where they train, as ``--device`` takes it.
        logs: The folder their output goes to.
    """

    def __init__(self, url: str, study: str, *, workers: int, device: str, logs: Path) -> None:
        self._url = url
        self._study = study
        self._device = device
        self._logs = logs
        self._count = workers
        self._processes: dict[int, subprocess.Popen[bytes]] = {}
        self._log_starts: dict[int, int] = {}

    def start(self) -> None:
        """Starts the processes."""
        self._logs.mkdir(parents=True, exist_ok=True, mode=0o700)
        for index in range(self._count):
            with self._log_path(index).open("ab") as log:
                self._log_starts[index] = log.tell()
                self._processes[index] = self._spawn(log)

    @property
    def alive(self) -> int:
        """How many processes have not been seen to end."""
        return len(self._processes)

    def reap(self) -> list[Exit]:
        """Returns the processes that ended since the last call."""
        ended = []
        for index, process in list(self._processes.items()):
            code = process.poll()
            if code is not None:
                del self._processes[index]
                if process.stdin is not None:
                    process.stdin.close()
                ended.append(Exit(index, code, self._last_words(index, code) if code else ""))
        return ended

    def stop(self) -> None:
        """Asks every process to save its trial and end; does not wait."""
        for process in self._processes.values():
            process.terminate()

    def kill(self) -> None:
        """Ends every process at once; their trials are taken over later."""
        for process in self._processes.values():
            process.kill()

    def _spawn(self, log: IO[bytes]) -> subprocess.Popen[bytes]:
        share = max(1, (os.cpu_count() or 1) // self._count)
        threads = [] if "OMP_NUM_THREADS" in os.environ else ["--threads", str(share)]
        return subprocess.Popen(
            [
                # -P: a tuner.py in the working directory is not the program to run.
                *(sys.executable, "-P", "-m", "tuner", "worker", "start"),
                *("--device", self._device, *threads, "--follow-stdin"),
                *("--", self._study),
            ],
            env=os.environ | {"TUNER_STORAGE": self._url},
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,
        )

    def _log_path(self, index: int) -> Path:
        return self._logs / f"worker-{index}.log"

    def _last_words(self, index: int, code: int) -> str:
        if code < 0:
            return f"Worker {index} was killed by {signal.Signals(-code).name}."
        try:
            with self._log_path(index).open("rb") as log:
                log.seek(self._log_starts[index])
                text = log.read().decode("utf-8", errors="replace")
        except OSError:
            return f"Worker {index} ended with exit code {code}; its log is gone."
        *_, message = re.split(r"^Error: ", text, flags=re.MULTILINE)
        return message.strip()[-5000:]
