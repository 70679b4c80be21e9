"""The command lines and environments of processes that run tuner, and how these end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping, MutableMapping

# -P: a tuner.py in the working directory is not the program to run.
TUNER = (sys.executable, "-P", "-m", "tuner")
"""The words that start tuner's command line in a process of its own."""

_VISIBLE = "CUDA_VISIBLE_DEVICES"

THREADS = "OMP_NUM_THREADS"
"""The variable that tells torch how many threads to compute on; a worker heeds it."""


def see_only(device: str, environment: Mapping[str, str]) -> tuple[str, dict[str, str]]:
    """Returns a device as a process names it that sees no other, and its environment.

    Nothing of such a process ends up on another CUDA device, and nothing on any if it trains on
    the CPU.

    >>> see_only("cuda:1", {"CUDA_VISIBLE_DEVICES": "4,6"})
    ('cuda:0', {'CUDA_VISIBLE_DEVICES': '6'})
    >>> see_only("cpu", {})
    ('cpu', {'CUDA_VISIBLE_DEVICES': ''})

    Args:
        device: The device, as ``--device`` takes it.
        environment: The environment of this process.
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


def share_of_cores(processes: int) -> int:
    """Returns the number of cores that each of some processes may use, at least 1."""
    return max(1, (os.cpu_count() or 1) // processes)


def threads_option(threads: int | None, environment: Mapping[str, str]) -> list[str]:
    """Returns the option that tells a worker its number of threads, if it is to be told.

    >>> threads_option(2, {}), threads_option(2, {"OMP_NUM_THREADS": "1"})
    (['--threads', '2'], [])

    Args:
        threads: The number, or None to let torch decide.
        environment: The environment of the worker.
    """
    return [] if threads is None or THREADS in environment else ["--threads", str(threads)]


def limit_spinning(environment: MutableMapping[str, str]) -> None:
    """Has torch's threads wait for each other awake for a moment only, unless it says how long.

    A thread of GNU's OpenMP waits awake for 300,000 turns, some ten milliseconds. Where others
    want the core, that is the core on which the awaited thread would run: then steps of one
    millisecond take a hundred.

    >>> environment = {}
    >>> limit_spinning(environment)
    >>> environment
    {'GOMP_SPINCOUNT': '10000'}

    Args:
        environment: The environment of this process, before it imports torch.
    """
    if not {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"} & environment.keys():
        environment["GOMP_SPINCOUNT"] = "10000"


def fate_of(code: int) -> str:
    """Returns how a process has ended, in words.

    >>> fate_of(-9), fate_of(1)
    ('was killed by SIGKILL', 'has ended (1)')

    Args:
        code: Its exit code; negative is the signal that killed it.
    """
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"has ended ({code})"


def end_group(pid: int) -> None:
    """Ends the processes that one has left behind, which may hold memory of its device.

    Args:
        pid: The process's number, which is its group's.
    """
    if hasattr(os, "killpg"):
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGTERM)
