"""The guard of a command, as the process that it is."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tuner.training.processes import guard

SLEEPS = "import time; print('up', flush=True); time.sleep(300)"
STUBBORN = f"import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); {SLEEPS}"
SAVES = (
    "import signal, sys\n"
    "signal.signal(signal.SIGTERM, lambda *_: (print('saved', flush=True), sys.exit(7)))\n" + SLEEPS
)
ORPHAN = (
    "import subprocess, sys\n"
    "child = subprocess.Popen(['sleep', '300'], start_new_session=True)\n"
    "print(child.pid, flush=True)\n"
)


@contextmanager
def guarded(script: str, grace_s: float = 20.0) -> Iterator[subprocess.Popen[str]]:
    """Runs a script of Python under a guard."""
    command = [sys.executable, "-I", "-S", guard.__file__, str(grace_s), "--"]
    process = subprocess.Popen(
        [*command, sys.executable, "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    with process:
        yield process


def order(process: subprocess.Popen[str], letter: str) -> None:
    assert process.stdin is not None
    process.stdin.write(letter)
    process.stdin.flush()


def read_line(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize(
    ("script", "code"),
    [
        ("", 0),
        ("raise SystemExit(3)", 3),
        ("import os; os.kill(os.getpid(), 9)", -9),
        ("import os; os.kill(os.getpid(), 15)", -15),
        ("import os; os.abort()", -6),
    ],
)
def test_it_ends_as_its_command_has(script: str, code: int) -> None:
    with guarded(script) as process:
        assert process.wait() == code


def test_a_command_that_heeds_sigterm_may_save() -> None:
    with guarded(SAVES) as process:
        assert read_line(process) == "up"
        order(process, "t")
        assert (read_line(process), process.wait()) == ("saved", 7)


def test_one_that_does_not_is_killed_after_the_grace_time() -> None:
    with guarded(STUBBORN, grace_s=0.2) as process:
        assert read_line(process) == "up"
        order(process, "t")
        assert process.wait() == -signal.SIGKILL


@pytest.mark.parametrize("how", ["order", "end of the pipe"])
def test_it_kills_at_once_when_told_so_or_when_the_worker_has_gone(how: str) -> None:
    with guarded(STUBBORN) as process:
        assert read_line(process) == "up"
        began = time.monotonic()
        if how == "order":
            order(process, "k")
        else:
            assert process.stdin is not None
            process.stdin.close()
        assert process.wait() == -signal.SIGKILL
        assert time.monotonic() - began < 15


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to a guard")
@pytest.mark.parametrize("rest", ["", SLEEPS])
def test_what_has_left_the_session_ends_too(rest: str) -> None:
    with guarded(ORPHAN + rest) as process:
        orphan = int(read_line(process))
        if rest:
            order(process, "k")
        process.wait()
    with pytest.raises(ProcessLookupError):
        os.kill(orphan, 0)


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux gives orphans to a guard")
@pytest.mark.parametrize("killed", ["guard", "the one below", "their group"])
def test_a_guard_that_is_killed_leaves_nothing_behind(killed: str) -> None:
    with guarded(ORPHAN + SLEEPS) as process:
        orphan = int(read_line(process))
        if killed == "guard":
            process.kill()
        elif killed == "the one below":
            [below] = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
            os.kill(int(below), signal.SIGKILL)
        else:
            os.killpg(process.pid, signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL
        assert process.stdout is not None
        process.stdout.read()  # until the last one has ended
    with pytest.raises(ProcessLookupError):
        os.kill(orphan, 0)


def test_signals_of_a_terminal_do_not_end_it() -> None:
    with guarded(SLEEPS) as process:
        assert read_line(process) == "up"
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            process.send_signal(number)
        with pytest.raises(subprocess.TimeoutExpired):
            process.wait(timeout=0.3)
        order(process, "k")


def test_a_program_that_cannot_start_is_told() -> None:
    done = subprocess.run(
        [sys.executable, "-I", "-S", guard.__file__, "1", "--", "/no/such/program"],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (127, "/no/such/program: No such file or directory\n")
