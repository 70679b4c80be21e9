from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.errors import LeaseLostError, StorageError, UnavailableError
from tuner.store.connection.retries import Backoff, Patience


class Time:
    """A clock that goes on as somebody waits."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self.waits: list[float] = []

    def __call__(self) -> float:
        return self.now_s

    def wait(self, seconds: float) -> bool:
        self.waits.append(seconds)
        self.now_s += seconds
        return False


def patience(time: Time, limit_s: float = 60.0, seed: int = 0) -> Patience:
    return Patience(limit_s=limit_s, wait=time.wait, seed=seed, clock=time)


def failing(times: int, error: type[Exception] = UnavailableError) -> Callable[[], str]:
    left = [times]

    def operation() -> str:
        left[0] -= 1
        if left[0] >= 0:
            raise error("away")
        return "done"

    return operation


def test_operation_that_works_is_run_once_without_waiting() -> None:
    time = Time()
    assert patience(time).run(failing(0)) == "done"
    assert time.waits == []


def test_operation_is_run_until_the_database_is_back() -> None:
    time = Time()
    assert patience(time).run(failing(5)) == "done"
    assert len(time.waits) == 5


@pytest.mark.parametrize("error", [LeaseLostError, StorageError, ZeroDivisionError])
def test_other_error_passes_at_once(error: type[Exception]) -> None:
    time = Time()
    with pytest.raises(error):
        patience(time).run(failing(1, error))
    assert time.waits == []


@given(limit_s=st.floats(0, 1000), seed=st.integers(0, 2**32))
def test_last_error_is_raised_exactly_at_the_limit(limit_s: float, seed: int) -> None:
    time = Time()
    with pytest.raises(UnavailableError, match="away It was tried for") as caught:
        patience(time, limit_s, seed).run(failing(10_000))
    assert isinstance(caught.value.__cause__, UnavailableError)
    assert time.now_s == pytest.approx(100.0 + limit_s)


def test_time_the_operation_takes_counts_towards_the_limit() -> None:
    time = Time()

    def slow() -> None:
        time.now_s += 25
        raise UnavailableError("away")

    with pytest.raises(UnavailableError):
        patience(time, limit_s=60).run(slow)
    assert time.now_s <= 100 + 60 + 25


def test_what_is_waited_for_is_told_once() -> None:
    time, told = Time(), list[str]()
    one = Patience(limit_s=60.0, wait=time.wait, seed=0, clock=time, log=told.append)
    one.run(failing(5))
    [line] = told
    assert line.startswith("away It is tried again for ")
    one.run(failing(1))
    assert len(told) == 1


def test_stop_asked_for_ends_the_wait_with_one_last_try() -> None:
    stop = threading.Event()
    stop.set()
    tried = []

    def operation() -> None:
        tried.append(1)
        raise UnavailableError("away")

    with pytest.raises(UnavailableError):
        Patience(limit_s=3600, wait=stop.wait, seed=0).run(operation)
    assert len(tried) == 2


def test_each_run_has_the_whole_limit_and_short_pauses_first() -> None:
    time = Time()
    one = patience(time, limit_s=1000)
    one.run(failing(12))
    first = len(time.waits)
    one.run(failing(1))
    assert max(time.waits[:first]) > 2.0
    assert time.waits[first] <= 0.5


@given(seed=st.integers(0, 2**32))
def test_pauses_are_drawn_below_a_bound_that_doubles_up_to_the_longest(seed: int) -> None:
    backoff = Backoff(seed, first_s=1.0, longest_s=8.0)
    bounds = [1.0, 2.0, 4.0, 8.0, 8.0, 8.0]
    assert all(0.0 <= backoff.draw_s() <= bound for bound in bounds)
    backoff.reset()
    assert backoff.draw_s() <= 1.0


def test_pauses_repeat_for_a_seed_and_differ_between_seeds() -> None:
    drawn = [[backoff.draw_s() for _ in range(5)] for backoff in map(Backoff, (1, 1, 2))]
    assert drawn[0] == drawn[1] != drawn[2]
