"""The command lines and environments of processes that run tuner, and how these end."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
from collections.abc import Mapping, MutableMapping, Sequence

from tuner.errors import SpecError

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
    >>> see_only("cuda:1+0", {"CUDA_VISIBLE_DEVICES": "4,6"})
    ('cuda:0', {'CUDA_VISIBLE_DEVICES': '6,4'})
    >>> see_only("cpu", {})
    ('cpu', {'CUDA_VISIBLE_DEVICES': ''})

    Args:
        device: The device, as ``--device`` takes it; or several for the ranks of a trial, as
            :func:`group_devices` names them.
        environment: The environment of this process.
    """
    kind, _, number = device.partition(":")
    numbers = number.split("+")
    if kind == "cuda" and all(part.isdecimal() for part in numbers):
        if _VISIBLE not in environment:
            return "cuda:0", {**environment, _VISIBLE: ",".join(numbers)}
        names = [name.strip() for name in environment[_VISIBLE].split(",") if name.strip()]
        # One beyond what is visible stays itself: the worker refuses it by the name it was given.
        if max(map(int, numbers)) < len(names):
            seen = ",".join(names[int(part)] for part in numbers)
            return "cuda:0", {**environment, _VISIBLE: seen}
    if kind == "cpu":
        return device, {**environment, _VISIBLE: ""}
    return device, dict(environment)


def group_devices(devices: Sequence[str], size: int) -> list[str]:
    """Returns devices as workers get them whose trials are trained by several ranks.

    Each gets as many CUDA devices as ranks; others are shared by all.

    >>> group_devices(["cuda:0", "cuda:1", "cuda:2"], 2), group_devices(["cpu"], 2)
    (['cuda:0+1'], ['cpu'])

    Args:
        devices: The devices, as ``--device`` takes them.
        size: Ranks of a trial.

    Raises:
        SpecError: If there are fewer CUDA devices than ranks.
    """
    numbers = [device.partition(":")[2] for device in devices]
    if size == 1 or not all(number.isdecimal() for number in numbers):
        return list(devices)
    groups = [numbers[i : i + size] for i in range(0, len(numbers) - size + 1, size)]
    if not groups:
        raise SpecError(
            f"--processes {size}: each process of a trial has a CUDA device of its own, and there "
            f"are {len(numbers)}: lower it, or add --devices."
        )
    return [f"cuda:{'+'.join(group)}" for group in groups]


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
