from __future__ import annotations

import threading
import time

import pytest

from tuner.service.interruption import Interruption
from tuner.service.worker.watchdog import HUNG, Watchdog


class Ending:
    """Takes the exit code that would end the process."""

    def __init__(self) -> None:
        self.codes: list[int] = []
        self.said: list[str] = []
        self._came = threading.Event()

    def end(self, code: int) -> None:
        self.codes.append(code)
        self._came.set()

    def wait(self, seconds: float) -> bool:
        return self._came.wait(seconds)


@pytest.fixture
def ending() -> Ending:
    return Ending()


def test_training_without_a_step_is_ended_and_says_where_it_hangs(
    ending: Ending, capfd: pytest.CaptureFixture[str]
) -> None:
    interruption = Interruption()
    with Watchdog(interruption, stall_s=0.2, log=ending.said.append, end=ending.end) as watchdog:
        watchdog.feed()
        assert ending.wait(30)
    assert ending.codes == [HUNG]
    assert "No step for 0.2 s (train.stall_s)" in ending.said[-1]


def test_half_of_the_time_without_a_step_is_warned_of_once_a_trial(ending: Ending) -> None:
    watchdog = Watchdog(Interruption(), stall_s=100, end=ending.end)
    now = time.monotonic()
    assert watchdog.warn(now + 1e6) is None  # nothing trains
    for _ in range(2):
        watchdog.feed()
        assert watchdog.warn(now + 49) is None
        told = watchdog.warn(now + 60)
        assert told is not None
        assert told.startswith("No step for 50 s. After 100 s (train.stall_s) training counts as")
        assert "run.alive()" in told
        watchdog.feed()
        assert watchdog.warn(now + 90) is None
        watchdog.rest()


def test_a_warning_comes_before_the_end(ending: Ending) -> None:
    with Watchdog(Interruption(), stall_s=0.2, log=ending.said.append, end=ending.end) as watchdog:
        watchdog.feed()
        assert ending.wait(30)
    assert [("run.alive()" in line, "hangs" in line) for line in ending.said] == [
        (True, False),
        (False, True),
    ]


def test_stop_that_is_not_heeded_ends_the_process(ending: Ending) -> None:
    interruption = Interruption()
    interruption.request()
    with Watchdog(interruption, stall_s=300, grace_s=0.2, log=ending.said.append, end=ending.end):
        assert ending.wait(30)
    assert ending.codes == [HUNG]
    assert "Asked to stop 0.2 s ago" in ending.said[0]


@pytest.mark.parametrize("trained", [False, True])
def test_worker_without_a_trial_does_not_hang(ending: Ending, trained: bool) -> None:
    with Watchdog(Interruption(), stall_s=0.05, end=ending.end) as watchdog:
        if trained:
            watchdog.feed()
            watchdog.rest()
        assert not ending.wait(0.5)


def test_watchdog_that_is_over_ends_nothing(ending: Ending) -> None:
    interruption = Interruption()
    with Watchdog(interruption, stall_s=0.2, grace_s=0.2, end=ending.end) as watchdog:
        watchdog.feed()
    interruption.request()
    assert not ending.wait(0.6)
