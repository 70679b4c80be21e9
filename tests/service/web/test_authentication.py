"""What a password may be, and how wrong ones are counted."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.errors import SpecError
from tuner.service.web.authentication import Limiter, is_readable_by_all, read_password

PASSWORD = "correct horse battery"  # noqa: S105


class Clock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def fail(limiter: Limiter, address: str, times: int) -> None:
    for _ in range(times):
        limiter.count(address)


def test_address_waits_after_ten_failures_until_their_minute_is_over(clock: Clock) -> None:
    limiter = Limiter(clock)
    fail(limiter, "10.0.0.1", 9)
    clock.now += 20
    assert limiter.wait_s("10.0.0.1") == 0
    limiter.count("10.0.0.1")
    assert limiter.wait_s("10.0.0.1") == 40
    clock.now += 40
    assert limiter.wait_s("10.0.0.1") == 0
    limiter.count("10.0.0.1")
    assert limiter.wait_s("10.0.0.1") == 0


def test_failures_of_one_address_do_not_keep_others_out(clock: Clock) -> None:
    limiter = Limiter(clock)
    fail(limiter, "10.0.0.1", 50)
    assert limiter.wait_s("10.0.0.2") == 0


@pytest.mark.parametrize(
    ("failing", "same", "other"),
    [
        ("2001:db8::1", "2001:db8::ffff:2", "2001:db8:0:1::1"),
        ("::ffff:10.0.0.1", "10.0.0.1", "::ffff:10.0.0.2"),
        ("fe80::1%eth0", "fe80::2%eth0", "fe81::1"),
        ("no address", "no address", ""),
    ],
)
def test_addresses_that_one_client_may_have_count_as_one(
    clock: Clock, failing: str, same: str, other: str
) -> None:
    limiter = Limiter(clock)
    fail(limiter, failing, 10)
    assert limiter.wait_s(same) > 0
    assert limiter.wait_s(other) == 0


def test_no_number_of_addresses_fills_the_memory(clock: Clock) -> None:
    limiter = Limiter(clock)
    for number in range(10_000):
        limiter.count(f"10.0.{number // 256}.{number % 256}")
        if number % 100 == 0:
            fail(limiter, "192.0.2.1", 10)
    assert len(limiter) == 4096
    assert limiter.wait_s("192.0.2.1") > 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.floats(0, 90)), max_size=80))
def test_nobody_makes_more_than_twenty_attempts_in_a_minute(
    attempts: list[tuple[str, float]],
) -> None:
    clock = Clock()
    limiter = Limiter(clock)
    made: dict[str, list[float]] = {}
    for address, pause_s in attempts:
        clock.now += pause_s
        if not limiter.wait_s(address):
            limiter.count(address)
            made.setdefault(address, []).append(clock.now)
    for times in made.values():
        # Windows follow one another, so that two of them may meet in one minute.
        assert all(len([later for later in times if at <= later < at + 60]) <= 20 for at in times)


def test_password_comes_from_the_environment_or_from_a_file(tmp_path: Path) -> None:
    assert read_password(None, None) is None
    assert read_password(PASSWORD, None) == PASSWORD
    file = tmp_path / "secret"
    file.write_text(f"{PASSWORD}\r\n")
    assert read_password(None, file) == PASSWORD
    with pytest.raises(SpecError, match="two passwords"):
        read_password(PASSWORD, file)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "cannot be read: No such file"),
        ("", "holds no lines"),
        ("\n", "holds no lines"),
        (f"{PASSWORD}\nmore\n", "holds 2 lines"),
        ("hunter2\n", "7 characters, it needs at least 12"),
    ],
)
def test_file_without_a_good_password_is_refused(
    content: str | None, message: str, tmp_path: Path
) -> None:
    file = tmp_path / "secret"
    if content is not None:
        file.write_text(content)
    with pytest.raises(SpecError, match=message) as caught:
        read_password(None, file)
    assert str(file) in str(caught.value)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(("value", "message"), [("", "is empty"), ("hunter2", "7 characters")])
def test_variable_without_a_good_password_is_refused(value: str, message: str) -> None:
    with pytest.raises(SpecError, match=f"TUNER_DASHBOARD_PASSWORD.*{message}"):
        read_password(value, None)


def test_file_that_everyone_may_read_is_recognised(tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.touch(0o600)
    assert not is_readable_by_all(file)
    file.chmod(0o644)
    assert is_readable_by_all(file)
