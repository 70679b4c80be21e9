from __future__ import annotations

import contextlib
import signal
import subprocess
import sys
import uuid

import pytest

from tuner.errors import StorageError
from tuner.service.presence import Presence, is_dead

_HOLD = """
import sys, time
from tuner.service.presence import Presence
with Presence(sys.argv[1]):
    print("held", flush=True)
    time.sleep(60)
"""


def test_worker_of_this_process_lives() -> None:
    worker = uuid.uuid4().hex
    with Presence(worker):
        assert not is_dead(worker)


def test_nothing_is_known_of_a_worker_that_left_properly_or_never_was_here() -> None:
    worker = uuid.uuid4().hex
    assert not is_dead(worker)
    with Presence(worker):
        pass
    assert not is_dead(worker)


@pytest.mark.parametrize("how", ["error", "work left behind"])
def test_worker_that_ended_with_a_trial_in_hand_is_known_to_be_dead(how: str) -> None:
    worker = uuid.uuid4().hex
    with contextlib.suppress(StorageError), Presence(worker) as presence:
        if how == "error":
            raise StorageError("the disk is full")
        presence.leave_behind()
    assert is_dead(worker)


def test_killed_worker_is_known_to_be_dead() -> None:
    worker = uuid.uuid4().hex
    with subprocess.Popen(
        [sys.executable, "-c", _HOLD, worker], stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        assert not is_dead(worker)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert is_dead(worker)
