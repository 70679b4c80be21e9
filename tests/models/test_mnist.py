from __future__ import annotations

import pytest
import torch

from models.mnist import Mnist
from tests.models.learning import learn, prepare
from tuner import data_folder
from tuner.training.prepared_workload import PreparedWorkload

FILES = ("train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz")

pytestmark = pytest.mark.skipif(
    not all((data_folder() / "mnist" / name).exists() for name in FILES),
    reason="MNIST is not in the data folder: set TUNER_DATA to one that holds mnist/",
)


@pytest.fixture(scope="module")
def prepared() -> PreparedWorkload:
    return prepare(Mnist())


def test_the_training_images_are_split_in_two(prepared: PreparedWorkload) -> None:
    (x, y), (x_val, y_val) = prepared.data.train, prepared.data.val
    assert (x.shape, y.shape) == ((50_000, 784), (50_000,))
    assert (x_val.shape, y_val.shape) == ((10_000, 784), (10_000,))
    assert (x.min().item(), x.max().item()) == (0.0, 1.0)
    assert y.unique().tolist() == y_val.unique().tolist() == list(range(10))
    assert y.dtype == torch.int64


def test_it_learns_in_a_few_hundred_steps(prepared: PreparedWorkload) -> None:
    metrics = learn(prepared, 300, lr=0.002)
    assert metrics["val_loss"] < 0.3
    assert metrics["val_accuracy"] > 0.91
