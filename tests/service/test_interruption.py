from __future__ import annotations

import os
import signal
import subprocess
import sys

import pytest

from tests.conftest import FORKS
from tuner.errors import WorkloadError
from tuner.service.interruption import Interruption, holding_signals


@pytest.mark.parametrize(
    ("number", "name"), [(signal.SIGINT, "Ctrl-C"), (signal.SIGTERM, "SIGTERM")]
)
def test_signal_asks_for_a_stop_and_is_named(number: signal.Signals, name: str) -> None:
    with Interruption() as interruption:
        signal.raise_signal(number)
        assert interruption.wait(60)
    assert interruption.requested_by == name


def test_code_that_raises_it_itself_has_not_been_asked_to_stop() -> None:
    interruption = Interruption()
    said = "KeyboardInterrupt, though nobody asked"
    with pytest.raises(WorkloadError, match=said), interruption.raising():
        raise KeyboardInterrupt
    assert not interruption.requested


def test_whoever_asked_first_is_named() -> None:
    interruption = Interruption()
    interruption.request("Ctrl-C")
    interruption.request("SIGTERM")
    assert interruption.requested_by == "Ctrl-C"


def test_signal_that_the_parent_had_blocked_is_heard() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.raise_signal(signal.SIGTERM)
    with Interruption() as interruption:
        assert interruption.wait(60)
    assert signal.SIGTERM not in before


def test_signal_ends_at_once_what_has_nothing_to_save() -> None:
    with Interruption() as interruption:
        with pytest.raises(KeyboardInterrupt), interruption.raising():
            signal.raise_signal(signal.SIGTERM)
        assert interruption.requested_by == "SIGTERM"
        with pytest.raises(KeyboardInterrupt), interruption.raising():
            pytest.fail("was begun after the stop had been asked for")
        signal.raise_signal(signal.SIGTERM)


_FORKING = """
import multiprocessing, os, signal, time
from tuner.service.interruption import Interruption, holding_signals

def nap(woken):
    while not woken.is_set():
        time.sleep(0.01)

context = multiprocessing.get_context("fork")
with Interruption() as interruption:
    for _ in range(20):
        ended = context.Process(target=time.sleep, args=(600,))
        ended.start()
        ended.terminate()
        ended.join(60)
        woken = context.Event()
        kept = context.Process(target=nap, args=(woken,))
        kept.start()
        os.kill(kept.pid, signal.SIGINT)
        woken.set()
        kept.join(60)
        assert (ended.exitcode, kept.exitcode) == (-15, 0), (ended.exitcode, kept.exitcode)
    assert not interruption.requested
    signal.raise_signal(signal.SIGTERM)
    assert interruption.requested
"""


@FORKS
def test_a_process_forked_meanwhile_ends_when_its_parent_says_so() -> None:
    subprocess.run([sys.executable, "-c", _FORKING], check=True, timeout=120)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_that_comes_while_they_are_held_is_raised_at_the_end(number: int) -> None:
    came = []

    def go_on_after_it() -> None:
        with holding_signals():
            os.kill(os.getpid(), number)
            came.append("after")

    with pytest.raises(KeyboardInterrupt):
        go_on_after_it()
    assert came == ["after"]
    with holding_signals():
        pass
