from __future__ import annotations

import pytest
import torch

from models.digits import Digits
from models.sparse_digits import SparseDigits
from tests.models.learning import learn, prepare
from tuner.training.prepared_workload import Bench


@pytest.fixture(scope="module")
def bench() -> Bench:
    return prepare(SparseDigits())


def test_it_tells_the_same_digits_in_words(bench: Bench):
    words, labels = bench.data.train
    images, same_labels = Digits().data().train
    assert (words.dtype, words.shape) == (torch.int64, images.shape)
    assert torch.equal(labels, same_labels)
    assert torch.equal(words // 17, torch.arange(64).expand_as(words))
    assert torch.equal(words % 17, (images * 16).long())


def test_a_batch_touches_few_rows_of_the_embedding(bench: Bench):
    model = bench.build_model(0)
    bench.workload.loss(model, bench.batch(torch.arange(4))).backward()
    gradient = model.words.weight.grad
    assert gradient.is_sparse
    assert len(gradient.coalesce().indices()[0]) <= 4 * 64
    assert not model.head.weight.grad.is_sparse


def test_it_learns_in_a_few_hundred_steps(bench: Bench):
    metrics = learn(bench, 300, lr=0.03, optimizer="sparse_adam")
    assert metrics["val_loss"] < 0.4
    assert metrics["val_accuracy"] > 0.9
