"""The machine: cores and threads, memory that processes share, disks, folders and their rights."""

from __future__ import annotations

import os
import shutil
import tempfile
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from tuner.domain.places import absolute, is_private
from tuner.service.doctor.finding import Finding, ok, problem, warning
from tuner.training.datasets import data_folder

_SHARED = Path("/dev/shm")  # noqa: S108 (it is only looked at)
_CGROUP = Path("/sys/fs/cgroup/cpu.max")
_LEAST_SHARED = 2**28
_LEAST_DISK, _FULL_DISK = 2**30, 2**27
_OLDEST = datetime(2025, 1, 1, tzinfo=UTC)
_GIB = 2**30


def examine_cores(environment: Mapping[str, str], cores: int, quota: float | None) -> list[Finding]:
    """Returns whether as many threads compute as there are cores.

    Args:
        environment: The environment of this process.
        cores: The cores that this process may run on.
        quota: The cores' worth of time that its container gets; None for all of them.
    """
    threads = environment.get("OMP_NUM_THREADS")
    usable = cores if quota is None else max(1, round(min(cores, quota)))
    told = f"{cores} cores" if usable == cores else f"{cores} cores, time for {quota:g} of them"
    if threads is not None and (not threads.isdecimal() or not int(threads)):
        return [
            problem(
                "cores",
                f"{told}; OMP_NUM_THREADS={threads!r} is no number of threads",
                "unset OMP_NUM_THREADS",
            )
        ]
    if threads is not None and int(threads) > usable:
        return [
            warning(
                "cores",
                f"{told}, but OMP_NUM_THREADS={threads}: threads wait for each other",
                f"export OMP_NUM_THREADS={usable}",
            )
        ]
    if threads is None and usable < cores:
        return [
            warning(
                "cores",
                f"{told}, and each worker starts a thread a core",
                f"export OMP_NUM_THREADS={usable}",
            )
        ]
    return [ok("cores", told if threads is None else f"{told}, OMP_NUM_THREADS={threads}")]


def count_cores() -> int:
    """Returns the number of cores that this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def read_quota(path: Path = _CGROUP) -> float | None:
    """Returns the cores' worth of time that a container gets, None where nothing limits it."""
    try:
        granted, _, period = path.read_text(encoding="ascii").strip().partition(" ")
        return int(granted) / int(period)
    except (OSError, ValueError, ZeroDivisionError):  # without a limit it says "max"
        return None


def examine_clock() -> list[Finding]:
    """Returns whether the machine's clock can be right."""
    now = datetime.now(UTC)
    told = f"{now:%Y-%m-%d %H:%M:%S} UTC, {time.tzname[0]} here"
    if now < _OLDEST:
        return [problem("clock", f"{told}: before tuner was made", "timedatectl set-ntp true")]
    return [ok("clock", told)]


def examine_shared_memory(path: Path = _SHARED) -> list[Finding]:
    """Returns whether the processes that load batches can hand them over."""
    if not path.is_dir():
        return []
    total, _, free = shutil.disk_usage(path)
    told = f"{path}: {free / _GIB:.2g} of {total / _GIB:.2g} GiB free"
    if free < _LEAST_SHARED:
        return [
            warning(
                "shared memory",
                f"{told}: a DataLoader's workers hand batches over there, and die without room",
                "docker run --shm-size=2g …, or num_workers=0",
            )
        ]
    return [ok("shared memory", told)]


def examine_folders(database: Path | None) -> list[Finding]:
    """Returns whether the folders that tuner writes to can be written, are private and have room.

    Args:
        database: The file of a SQLite database, None for another server.
    """
    base = absolute(".") if database is None else absolute(database).parent
    home = os.environ.get("TUNER_HOME")
    work = absolute(home, "TUNER_HOME") if home else base / ".tuner"
    cache = Path(os.environ.get("TORCHINDUCTOR_CACHE_DIR") or tempfile.gettempdir())
    findings = [
        *_examine_folder("checkpoints", work, "TUNER_HOME", secret=True),
        *_examine_folder("data", data_folder(), "TUNER_DATA"),
        *_examine_folder("compiled code", cache, "TORCHINDUCTOR_CACHE_DIR"),
        *_examine_data(data_folder()),
    ]
    return [*findings, *(_examine_file(database) if database is not None else ())]


def _examine_folder(
    topic: str, folder: Path, variable: str, *, secret: bool = False
) -> list[Finding]:
    """Returns whether a folder, or the one it would be made in, can be written and has room."""
    there = next(path for path in (folder, *folder.parents) if path.exists())
    elsewhere = f"export {variable}=… # a folder of yours"
    if not there.is_dir():
        return [problem(topic, f"{folder}: {there} is no folder", elsewhere)]
    if not os.access(there, os.W_OK | os.X_OK):
        return [problem(topic, f"{folder}: {there} cannot be written", elsewhere)]
    free = shutil.disk_usage(there).free
    told = f"{folder}: {free / _GIB:.3g} GiB free" + ("" if there == folder else ", not made yet")
    if free < _FULL_DISK:
        return [problem(topic, f"{told}: no room", f"tuner study clean, or {elsewhere}")]
    if free < _LEAST_DISK:
        return [warning(topic, f"{told}: little room", f"tuner study clean, or {elsewhere}")]
    if secret and there == folder and not is_private(folder):
        return [
            warning(topic, f"{told}; others may write there", f"chmod go-w {folder}"),
        ]
    return [ok(topic, told)]


def _examine_data(folder: Path) -> list[Finding]:
    """Returns which data sets lie in the data folder."""
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:
        return []
    return [ok("data", f"in it: {', '.join(names[:12]) or 'nothing'}")]


def _examine_file(path: Path) -> list[Finding]:
    """Returns whether a SQLite file is this user's alone, and can be written."""
    try:
        mode = path.stat().st_mode
    except OSError:
        return []
    if not os.access(path, os.W_OK) or not os.access(path.parent, os.W_OK):
        return [problem("database file", f"{path} cannot be written", f"ls -l {path}")]
    if mode & 0o077:
        return [
            warning(
                "database file",
                f"{path} can be read by others of this machine",
                f"chmod 600 {path}",
            )
        ]
    return [ok("database file", f"{path} is yours alone")]
