from __future__ import annotations

import pytest

from tuner.service.orders import Answer, Check, Compile, Order, Work, order_to_line, read_orders

ORDERS = (
    Check({"study": {"name": "ä\n"}}, "cuda:1"),
    Compile({"study": {}}, 64, "cpu", 2),
    Work("mine", "sqlite:///a b.db", "/logs/worker-0.log"),
)


def test_orders_are_read_as_they_were_given() -> None:
    assert tuple(read_orders(order_to_line(order) for order in ORDERS)) == ORDERS


@pytest.mark.parametrize("order", ORDERS)
def test_an_order_is_one_line(order: Order) -> None:
    assert order_to_line(order).count(b"\n") == 1


def test_an_answer_is_read_as_it_was_given() -> None:
    for answer in (Answer(asks_nothing=True), Answer(kind="SpecError", error="two\nlines")):
        line = answer.to_line()
        assert line.count(b"\n") == 1
        assert Answer.from_line(line) == answer
