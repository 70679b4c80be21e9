from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import MakeSpec, away
from tests.store.connection.test_retries import Time
from tests.store.single_trials import SingleTrials
from tuner.errors import LeaseLostError, UnavailableError
from tuner.search import Proposer
from tuner.store import Database, Studies, open_database
from tuner.store.connection.retries import Patience
from tuner.store.leases.outbox import Outbox
from tuner.store.leases.workers import WorkerIdentity
from tuner.store.records import read_record

LONG_S = 31.0  # longer than any pause between attempts


class Post:
    """What is delivered, while it is delivered."""

    def __init__(self) -> None:
        self.time = Time()
        self.outbox = Outbox(seed=0, clock=self.time)
        self.is_away = False
        self.attempts = 0
        self.delivered: list[int] = []

    def send(self, number: int) -> bool:
        return self.outbox.put(self.letter(number))

    def letter(self, number: int) -> Callable[[], None]:
        def deliver() -> None:
            self.attempts += 1
            if self.is_away:
                raise UnavailableError("away")
            self.delivered.append(number)

        return deliver

    def patience(self, limit_s: float = 60.0) -> Patience:
        return Patience(limit_s=limit_s, wait=self.time.wait, seed=0, clock=self.time)


@pytest.fixture
def post() -> Post:
    return Post()


def test_what_is_put_is_delivered_at_once(post: Post) -> None:
    assert post.send(1)
    assert post.delivered == [1]
    assert len(post.outbox) == 0


def test_what_could_not_be_delivered_goes_before_what_comes_later(post: Post) -> None:
    post.is_away = True
    assert not post.send(1)
    post.is_away = False
    post.time.now_s += LONG_S
    assert post.send(2)
    assert post.delivered == [1, 2]


def test_database_just_seen_away_is_left_alone_for_a_while(post: Post) -> None:
    post.is_away = True
    post.send(1)
    assert not post.send(2)
    assert not post.outbox.deliver()
    assert post.attempts == 1
    assert len(post.outbox) == 2


def test_pause_grows_while_the_database_stays_away(post: Post) -> None:
    post.is_away = True
    for number in range(2000):
        post.send(number)
        post.time.now_s += 1.0
    # About one attempt every 15 s, half the longest pause.
    assert 60 < post.attempts < 300


def test_flush_delivers_everything_in_order(post: Post) -> None:
    post.is_away = True
    for number in range(5):
        post.send(number)
    post.is_away = False
    post.outbox.flush(post.patience())
    assert post.delivered == [0, 1, 2, 3, 4]
    assert post.outbox.put(post.letter(5))


def test_flush_raises_at_the_limit_and_keeps_what_is_pending(post: Post) -> None:
    post.is_away = True
    post.send(1)
    with pytest.raises(UnavailableError, match="It was tried for 60 s"):
        post.outbox.flush(post.patience())
    assert len(post.outbox) == 1
    post.is_away = False
    post.outbox.flush(post.patience())
    assert post.delivered == [1]


def test_flush_waits_as_long_as_the_database_is_away(post: Post) -> None:
    post.is_away = True
    post.send(1)
    back_at = post.time.now_s + 20

    def wait(seconds: float) -> bool:
        post.time.wait(seconds)
        post.is_away = post.time.now_s < back_at
        return False

    post.outbox.flush(Patience(limit_s=60, wait=wait, seed=0, clock=post.time))
    assert post.delivered == [1]


@pytest.mark.parametrize("error", [LeaseLostError, ZeroDivisionError])
def test_other_error_passes_at_once_and_is_not_raised_again(
    post: Post, error: type[Exception]
) -> None:
    def refuse() -> None:
        raise error("no")

    with pytest.raises(error):
        post.outbox.put(refuse)
    assert post.send(1)
    assert post.delivered == [1]


@given(st.lists(st.tuples(st.booleans(), st.floats(0, 40)), max_size=30))
def test_whenever_the_database_is_away_each_is_delivered_once_and_in_order(
    moments: list[tuple[bool, float]],
) -> None:
    post = Post()
    for number, (is_away, pause_s) in enumerate(moments):
        post.is_away = is_away
        done = post.send(number)
        assert done == (len(post.outbox) == 0)
        assert post.delivered == list(range(len(post.delivered)))
        post.time.now_s += pause_s
    post.is_away = False
    post.outbox.flush(post.patience())
    assert post.delivered == list(range(len(moments)))


def test_reports_outlive_a_postgresql_database_that_goes_away_and_comes_back(
    postgres_server: str, postgres_url: str, make_spec: MakeSpec
) -> None:
    database: Database = open_database(postgres_url, create=True)
    study = Studies(database).create(make_spec())
    ledger = SingleTrials(database, study, WorkerIdentity("a", "host", 1, "cpu", "0"))
    ledger.register(0.0, lambda ordinal: ordinal)
    lease = ledger.start_one([], Proposer(study.spec, seed=0).propose())
    assert lease is not None
    post = Post()

    def report(step: int) -> bool:
        return post.outbox.put(lambda: ledger.report_one(lease, step, step, 1.0 / step))

    assert report(1)
    with away(postgres_server, postgres_url):
        assert not report(2)
        assert not report(3)
    post.outbox.flush(post.patience())
    record = read_record(database, study, lease.number)
    assert record is not None
    assert record.evaluations == {1: 1.0, 2: 1 / 2, 3: 1 / 3}
    database.close()
