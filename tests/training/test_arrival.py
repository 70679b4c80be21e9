"""Models that arrive with trained weights are told from those that are drawn as a trial begins."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import mse_loss

from tests.training.trials import CPU, Line, make_spec, prepare_workload
from tuner.domain.regimes import Arrival
from tuner.training.arrival import detect_arrival
from tuner.training.loop import TrainingLoop, WorkloadLoop
from tuner.training.run import Run

MakeModel = Callable[[], nn.Module]
Weights = dict[str, torch.Tensor]


def fresh() -> nn.Sequential:
    layers = (nn.Linear(2, 64), nn.Tanh(), nn.Linear(64, 64), nn.LayerNorm(64), nn.Linear(64, 1))
    return nn.Sequential(*layers)


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Returns what a training of some hundred steps leaves."""
    with torch.random.fork_rng():
        torch.manual_seed(7)
        model, x = fresh(), torch.randn(256, 2)
        optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
        for _ in range(150):
            optimizer.zero_grad()
            mse_loss(model(x), torch.sin(3 * x.sum(1, keepdim=True))).backward()
            optimizer.step()
    return dict(model.state_dict())


def loaded(weights: Weights) -> nn.Sequential:
    model = fresh()
    model.load_state_dict(weights)
    return model


def of_class(make: MakeModel) -> TrainingLoop:
    """Returns the loop of a workload class whose models are made so."""

    class Own(Line):
        def model(self) -> nn.Module:
            return make()

    return WorkloadLoop(prepare_workload(Own()))


def of_loop(make: MakeModel) -> TrainingLoop:
    """Returns a loop of a user's own over such a model."""

    def loop(run: Run) -> None:
        run.optimizer(make())
        pytest.fail("the loop goes on although its model was seen")

    return loop


both = pytest.mark.parametrize("through", [of_class, of_loop])


def arrival(loop: TrainingLoop, **tables: Any) -> Arrival:
    return detect_arrival(loop, make_spec(**tables), CPU)


@both
def test_a_model_that_is_drawn_from_the_seed_is_fresh(
    through: Callable[[MakeModel], TrainingLoop],
) -> None:
    assert arrival(through(fresh)) is Arrival.FRESH


@both
def test_loaded_weights_are_trained_ones(
    through: Callable[[MakeModel], TrainingLoop], weights: Weights
) -> None:
    assert arrival(through(lambda: loaded(weights))) is Arrival.TRAINED


@pytest.mark.parametrize("frozen", [False, True])
def test_a_trained_backbone_under_a_new_head_arrives_trained(
    weights: Weights, frozen: bool
) -> None:
    def make() -> nn.Module:
        backbone = loaded(weights)
        backbone.requires_grad_(not frozen)
        return nn.Sequential(*list(backbone)[:4], nn.Linear(64, 1))

    assert arrival(of_class(make)) is Arrival.TRAINED


def test_a_new_model_around_a_small_trained_part_is_fresh(weights: Weights) -> None:
    def make() -> nn.Module:
        part = list(loaded(weights))[:4]
        return nn.Sequential(*part, nn.Linear(64, 256), nn.Linear(256, 1))

    assert arrival(of_class(make)) is Arrival.FRESH


def seeded() -> nn.Module:
    torch.manual_seed(0)
    return fresh()


def seeded_apart() -> nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return fresh()


def seeded_with_own_draws() -> nn.Module:
    torch.manual_seed(0)
    model = fresh()
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.5)
    return model


def gaussian(model: nn.Module, biases: bool = True) -> nn.Module:
    """Returns a model of weights drawn by a generator of its own, as no layer draws them."""
    generator = torch.Generator().manual_seed(0)
    for layer in model.modules():
        if isinstance(layer, nn.Linear):
            nn.init.normal_(layer.weight, std=0.02, generator=generator)
            if biases:
                nn.init.zeros_(layer.bias)
    return model


def gaussian_apart() -> nn.Module:
    return gaussian(fresh())


@both
@pytest.mark.parametrize("make", [seeded, seeded_apart, seeded_with_own_draws, gaussian_apart])
def test_a_model_that_seeds_itself_is_not_taken_for_trained(
    through: Callable[[MakeModel], TrainingLoop], make: MakeModel
) -> None:
    assert arrival(through(make)) is Arrival.REPEATED


def test_layers_of_which_a_part_hangs_on_the_seed_are_fresh() -> None:
    assert arrival(of_class(lambda: gaussian(fresh(), biases=False))) is Arrival.FRESH


def unseeded() -> nn.Module:
    model, draws = fresh(), np.random.default_rng(int.from_bytes(os.urandom(8), "big"))
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.copy_(torch.from_numpy(draws.normal(size=parameter.shape)))
    return model


def zero() -> nn.Module:
    model = fresh()
    for parameter in model.parameters():
        nn.init.zeros_(parameter)
    return model


def few() -> nn.Module:
    model = nn.Linear(2, 1)
    with torch.no_grad():
        model.weight.copy_(torch.tensor([[3.0, -2.0]]))
    return model


def half_precision() -> nn.Module:
    return fresh().to(torch.bfloat16)


def complex_valued() -> nn.Module:
    return nn.Sequential(fresh(), nn.Linear(1, 64, dtype=torch.complex64))


def on_no_device() -> nn.Module:
    with torch.device("meta"):
        return fresh()


@pytest.mark.parametrize(
    "make", [unseeded, zero, few, half_precision, complex_valued, on_no_device, nn.Module]
)
def test_what_cannot_be_told_counts_as_fresh(make: MakeModel) -> None:
    assert arrival(of_loop(make)) is Arrival.FRESH


def test_trained_weights_of_half_precision_are_told(weights: Weights) -> None:
    make = lambda: loaded(weights).to(torch.bfloat16)  # noqa: E731
    assert arrival(of_loop(make)) is Arrival.TRAINED


def raising(run: Run) -> None:
    raise ValueError("no")


def leaving(run: Run) -> None:
    raise SystemExit(1)


@pytest.mark.parametrize("loop", [raising, leaving, lambda run: None])
def test_a_loop_that_shows_no_model_counts_as_fresh(loop: TrainingLoop) -> None:
    assert arrival(loop) is Arrival.FRESH


def test_a_loop_cannot_swallow_the_end_of_the_look(weights: Weights) -> None:
    def loop(run: Run) -> None:
        try:
            run.optimizer(loaded(weights))
        except Exception:  # noqa: BLE001 (as a loop of somebody's)
            pytest.fail("it was caught")
        pytest.fail("the loop went on")

    assert arrival(loop) is Arrival.TRAINED


def test_randomness_is_left_as_it_was() -> None:
    torch.manual_seed(3)
    before = torch.get_rng_state()
    arrival(of_loop(seeded))
    assert torch.equal(torch.get_rng_state(), before)


class Stubborn(nn.Linear):
    """A layer that can be drawn once."""

    made = False

    def reset_parameters(self) -> None:
        if self.made:
            raise RuntimeError("only once")
        super().reset_parameters()
        self.made = True


def test_a_layer_that_cannot_be_drawn_anew_tells_nothing_of_being_drawn() -> None:
    def make() -> nn.Module:
        with torch.random.fork_rng():
            torch.manual_seed(0)
            return Stubborn(64, 64)

    assert arrival(of_loop(make)) is Arrival.TRAINED
