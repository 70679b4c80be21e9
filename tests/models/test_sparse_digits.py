from __future__ import annotations

import pytest
import torch

from models.digits import Digits
from models.sparse_digits import SparseDigits
from tests.models.learning import learn, prepare
from tuner.training.prepared_workload import PreparedWorkload


@pytest.fixture(scope="module")
def prepared() -> PreparedWorkload:
    return prepare(SparseDigits())


def test_it_tells_the_same_digits_in_words(prepared: PreparedWorkload) -> None:
    words, labels = prepared.data.train
    images, same_labels = Digits().data().train
    assert (words.dtype, words.shape) == (torch.int64, images.shape)
    assert torch.equal(labels, same_labels)
    assert torch.equal(words // 17, torch.arange(64).expand_as(words))
    assert torch.equal(words % 17, (images * 16).long())


def test_a_batch_touches_few_rows_of_the_embedding(prepared: PreparedWorkload) -> None:
    model = prepared.build_model(0)
    prepared.workload.loss(model, prepared.batch(torch.arange(4))).backward()
    gradient = model.get_parameter("words.weight").grad
    assert gradient is not None
    assert gradient.is_sparse
    assert len(gradient.coalesce().indices()[0]) <= 4 * 64
    head = model.get_parameter("head.weight").grad
    assert head is not None
    assert not head.is_sparse


def test_it_learns_in_a_few_hundred_steps(prepared: PreparedWorkload) -> None:
    metrics = learn(prepared, 300, lr=0.03, optimizer="sparse_adam")
    assert metrics["val_loss"] < 0.4
    assert metrics["val_accuracy"] > 0.9
