from __future__ import annotations

import pytest
import torch

from models.parabola import Parabola
from tests.models.learning import learn, prepare
from tuner.training.prepared_workload import PreparedWorkload


@pytest.fixture(scope="module")
def prepared() -> PreparedWorkload:
    return prepare(Parabola())


def test_the_points_lie_on_a_noisy_parabola(prepared: PreparedWorkload) -> None:
    (x, y), (x_val, _) = prepared.data.train, prepared.data.val
    assert (x.shape, y.shape, x_val.shape) == ((800, 1), (800, 1), (200, 1))
    assert prepared.data.test is not None
    assert [tensor.shape for tensor in prepared.data.test] == [(1000, 1)] * 2
    assert -1 <= x.min() < -0.9 < 0.9 < x.max() <= 1
    noise = y - x.square()
    assert noise.mean().item() == pytest.approx(0, abs=0.02)
    assert noise.std().item() == pytest.approx(0.1, abs=0.01)


def test_the_data_is_the_same_every_time_and_leaves_torch_s_generator_alone(
    prepared: PreparedWorkload,
) -> None:
    before = torch.get_rng_state()
    assert torch.equal(Parabola().data().train[1], prepared.data.train[1])
    assert torch.equal(torch.get_rng_state(), before)


def test_it_learns_in_a_few_hundred_steps_down_to_the_noise(prepared: PreparedWorkload) -> None:
    untrained = prepared.evaluate(prepared.build_model(0))["val_loss"]
    trained = learn(prepared, 500)["val_loss"]
    assert untrained > 0.05
    assert 0.008 < trained < 0.016
