"""The guard of a command: it starts it, and ends it with all that it has started.

It is a script of its own, ``python -I -S guard.py GRACE_S -- PROGRAM ARGUMENT…``, which needs the
standard library alone and starts in a few hundredths of a second. Its standard input is a pipe that
the worker holds: ``t`` asks it to end the command by SIGTERM, and by SIGKILL after the grace time;
``k``, or the end of the pipe, which is what the death of the worker looks like, by SIGKILL at once.
It ends as the command has ended: with its exit code, or by the signal that has killed it.

On Linux it becomes the parent of every orphan below it, so that nothing escapes it, in whatever
session that may be; elsewhere what has left the command's process group does. And there it is two
processes, one below the other, so that a guard that is killed leaves nothing behind: each ends the
command where the other has gone.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable

_SUBREAPER, _DEATH_SIGNAL = 36, 1
"""The numbers of two requests of Linux's prctl."""

_LEFTOVER_S = 2.0
"""Seconds that processes have to end which a command has left behind."""

_LOOK_S = 0.02
_KILLING_S = 10.0


def main(arguments: list[str]) -> int:
    """Runs a command to its end; returns what waiting for it has returned.

    Args:
        arguments: Seconds of grace, ``--``, and the command.
    """
    grace_s, command = float(arguments[0]), arguments[2:]
    _control(_SUBREAPER)
    wake = _wake_on_signals()
    outer = None
    if sys.platform == "linux":
        outer = os.getpid()
        inner_pid = os.fork()
        if inner_pid:
            return _stand_behind(inner_pid, grace_s)
        os.setsid()  # what ends a process group is not to end both
        _control(_SUBREAPER)
        wake = _wake_on_signals()
        _control(_DEATH_SIGNAL, signal.SIGTERM)
    try:
        child = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_die_with_guard,  # noqa: PLW1509 (there is one thread)
        )
    except OSError as error:
        sys.stderr.write(f"{command[0]}: {error.strerror}\n")
        return 127 << 8
    status = _attend(child.pid, wake, grace_s, outer)
    _clear(child.pid, min(grace_s, _LEFTOVER_S))
    return status


def _stand_behind(inner_pid: int, grace_s: float) -> int:
    """Waits for the guard below this one; returns its status, which is that of the command.

    Where it was killed, its orphans are children of this one, and end.
    """
    _, status = os.waitpid(inner_pid, 0)
    _clear(inner_pid, min(grace_s, _LEFTOVER_S))
    return status


def _attend(main_pid: int, wake: int, grace_s: float, outer: int | None) -> int:
    """Waits for a command, or ends it where that is asked for; returns its status.

    Args:
        main_pid: The command.
        wake: What signals wake.
        grace_s: Seconds from SIGTERM to SIGKILL.
        outer: The guard above this one, without which the command ends; None where there is none.
    """
    listening, deadline = [0, wake], None
    while True:
        for pid, status in _reap():
            if pid == main_pid:
                return status
        if outer is not None and os.getppid() != outer:
            outer, deadline = None, time.monotonic()
        left = None if deadline is None else max(0.0, deadline - time.monotonic())
        ready, _, _ = select.select(listening, [], [], left)
        if 0 in ready:
            asked = os.read(0, 64)
            if asked == b"t" and deadline is None:
                _signal(main_pid, signal.SIGTERM)
                deadline = time.monotonic() + grace_s
            elif asked != b"t":
                deadline = time.monotonic()
                listening = [wake]
        if wake in ready:
            os.read(wake, 1024)
        if deadline is not None and time.monotonic() >= deadline:
            _kill(main_pid)
            deadline = time.monotonic() + _LOOK_S


def _clear(main_pid: int, grace_s: float) -> None:
    """Ends what a command has left behind, which its process group or its orphans are."""
    left = _descendants()
    if not left and not _has_group(main_pid):
        _reap()
        return
    for pid in left:
        _signal(pid, signal.SIGTERM)
    _signal_group(main_pid, signal.SIGTERM)
    _wait_for(main_pid, grace_s, lambda: None)
    _wait_for(main_pid, _KILLING_S, lambda: _kill(main_pid))


def _wait_for(main_pid: int, limit_s: float, act: Callable[[], None]) -> None:
    """Waits until a command has left nothing behind, acting now and then; reaps what has ended."""
    until = time.monotonic() + limit_s
    while (_descendants() or _has_group(main_pid)) and time.monotonic() < until:
        act()
        time.sleep(_LOOK_S)
        _reap()
    _reap()


def _kill(main_pid: int) -> None:
    for pid in _descendants():
        _signal(pid, signal.SIGKILL)
    _signal_group(main_pid, signal.SIGKILL)


def _reap() -> list[tuple[int, int]]:
    """Returns the children that have ended since the last call, with their statuses."""
    ended = []
    with contextlib.suppress(ChildProcessError):
        while (found := os.waitpid(-1, os.WNOHANG)) != (0, 0):
            ended.append(found)
    return ended


def _descendants() -> list[int]:
    """Returns the processes below this one that run, on Linux."""
    parents: dict[int, int] = {}
    for name in os.listdir("/proc") if os.path.isdir("/proc/self") else ():
        if name.isdecimal():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                # The name in brackets may hold anything.
                state, parent = file.read().rpartition(b")")[2].split()[:2]
                if state not in (b"Z", b"X"):
                    parents[int(name)] = int(parent)
    found: list[int] = []
    below = {os.getpid()}
    while below:
        below = {pid for pid, parent in parents.items() if parent in below}
        found += below
    return found


def _has_group(leader: int) -> bool:
    """Tells whether a process group has members, where its orphans cannot be found otherwise."""
    if os.path.isdir("/proc/self"):
        return False
    try:
        os.killpg(leader, 0)
    except OSError:
        return False
    return True


def _signal(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.kill(pid, number)


def _signal_group(leader: int, number: int) -> None:
    with contextlib.suppress(OSError):
        os.killpg(leader, number)


def _wake_on_signals() -> int:
    """Has SIGCHLD wake a wait; returns what to wait on. Nobody but the pipe ends a guard."""
    reads, writes = os.pipe()
    os.set_blocking(writes, False)
    signal.set_wakeup_fd(writes, warn_on_full_buffer=False)
    signal.signal(signal.SIGCHLD, lambda number, frame: None)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, frame: None)  # a handler is no child's, once it execs
    return reads


def _control(request: int, value: int = 1) -> None:
    """Asks something of Linux's prctl; elsewhere, does nothing."""
    if sys.platform == "linux":
        import ctypes

        with contextlib.suppress(OSError, AttributeError):
            ctypes.CDLL(None, use_errno=True).prctl(request, value, 0, 0, 0)


def _die_with_guard() -> None:
    _control(_DEATH_SIGNAL, signal.SIGKILL)


def _end_as(status: int) -> None:
    """Ends this process as one has ended whose status is known."""
    if not os.WIFSIGNALED(status):
        os._exit(os.waitstatus_to_exitcode(status))
    import resource

    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    number = os.WTERMSIG(status)
    with contextlib.suppress(OSError, ValueError):  # SIGKILL has no handler
        signal.signal(number, signal.SIG_DFL)
    os.kill(os.getpid(), number)
    os._exit(128 + number)


if __name__ == "__main__":
    _end_as(main(sys.argv[1:]))
