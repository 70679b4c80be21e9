"""Sending in a process of its own, while this one has a study trained.

The clients of sinks load slowly, wait for servers and start threads and processes: none of that is
to touch the process that tends workers.
"""

from __future__ import annotations

import contextlib
import os
import shlex
import subprocess
import threading
from collections.abc import Callable, Iterator, Sequence

from tuner.service.ordered_process import OrderedProcess
from tuner.service.orders import Send, Told
from tuner.sinks.targets import Target
from tuner.store import Database, StudyHandle

_GRACE_S = 60.0
"""Seconds for which the end of a run waits until all has been sent."""

Say = Callable[[str], object]


@contextlib.contextmanager
def sending(
    database: Database,
    study: StudyHandle,
    targets: Sequence[Target],
    *,
    say: Say,
    warn: Say,
) -> Iterator[None]:
    """Sends a study to targets during a block, and what is left of it at the block's end.

    Args:
        database: The database that holds the study.
        study: The study.
        targets: Where to; none to send nothing.
        say: Takes a line that tells what has been sent.
        warn: Takes a line that tells what could not be sent.
    """
    if not targets:
        yield
        return
    process = OrderedProcess(("worker", "send"), {**os.environ, "TUNER_STORAGE": database.url})
    try:
        process.give(Send(study.name, tuple(target.text for target in targets)))
        relay = threading.Thread(target=_relay, args=(process, say, warn), daemon=True)
        relay.start()
        try:
            yield
        finally:
            fate = _finish(process, relay)
            if fate:
                names = " ".join(f"--to {shlex.quote(str(target))}" for target in targets)
                warn(
                    f"The process that sends curves {fate}. Send what is left: "
                    f"tuner study log {shlex.quote(study.name)} {names}"
                )
    finally:
        process.end()


def _finish(process: OrderedProcess, relay: threading.Thread) -> str:
    """Waits until the process has sent the rest; returns how it failed to, empty if it did not."""
    process.stop_ordering()
    try:
        code = process.process.wait(_GRACE_S)
    except subprocess.TimeoutExpired:
        return f"was not done after {_GRACE_S:.0f} s"
    relay.join()
    return process.fate if code else ""


def _relay(process: OrderedProcess, say: Say, warn: Say) -> None:
    """Hands on what the process tells, until it ends."""
    for line in process.read_lines():
        told = Told.from_line(line)
        (warn if told.warns else say)(told.text)
