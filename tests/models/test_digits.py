from __future__ import annotations

import pytest
import torch

from models.digits import Digits
from tests.models.learning import learn, prepare
from tuner.training.prepared_workload import PreparedWorkload


@pytest.fixture(scope="module")
def prepared() -> PreparedWorkload:
    return prepare(Digits())


def test_the_data_is_split_without_overlap(prepared: PreparedWorkload) -> None:
    (x, y), (x_val, y_val) = prepared.data.train, prepared.data.val
    assert (len(x), len(x_val)) == (1437, 360)
    assert (x.shape[1:], y.ndim, y_val.dtype) == ((64,), 1, torch.int64)
    rows = {tuple(row) for row in x.tolist()}
    assert sum(tuple(row) in rows for row in x_val.tolist()) == 0


def test_pixels_lie_between_zero_and_one_and_every_digit_occurs(prepared: PreparedWorkload) -> None:
    x, y = prepared.data.train
    assert (x.min().item(), x.max().item()) == (0.0, 1.0)
    assert y.unique().tolist() == list(range(10))


def test_the_data_is_the_same_every_time(prepared: PreparedWorkload) -> None:
    again = Digits().data()
    assert torch.equal(again.train[0], prepared.data.train[0])
    assert torch.equal(again.val[1], prepared.data.val[1])


def test_the_untrained_network_guesses(prepared: PreparedWorkload) -> None:
    metrics = prepared.evaluate(prepared.build_model(0))
    assert metrics["val_loss"] == pytest.approx(2.303, abs=0.1)
    assert metrics["val_accuracy"] < 0.3


def test_it_learns_in_a_few_hundred_steps(prepared: PreparedWorkload) -> None:
    metrics = learn(prepared, 300)
    assert metrics["val_loss"] < 0.15
    assert metrics["val_accuracy"] > 0.95
