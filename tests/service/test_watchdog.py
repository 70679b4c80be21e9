from __future__ import annotations

import threading

import pytest

from tuner.service.interruption import Interruption
from tuner.service.watchdog import HUNG, Watchdog


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
    assert "No step for 0.2 s (train.stall_s)" in ending.said[0]


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
