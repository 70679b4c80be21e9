from __future__ import annotations

import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from tests.search.studies import make_spec
from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Float, Int, Value
from tuner.search.distributions import Distributions, to_distribution


@pytest.mark.parametrize(
    ("axis", "distribution"),
    [
        (Float(low=0.1, high=2.0), FloatDistribution(0.1, 2.0)),
        (Float(low=0.1, high=2.0, log=True), FloatDistribution(0.1, 2.0, log=True)),
        (Int(low=1, high=9), IntDistribution(1, 9)),
        (Int(low=1, high=9, log=True), IntDistribution(1, 9, log=True)),
        (Choice(choices=(True, "x", 0.5)), CategoricalDistribution((True, "x", 0.5))),
        (Fixed(value=3), CategoricalDistribution((3,))),
    ],
)
def test_an_axis_becomes_optuna_s_distribution(
    axis: Dimension, distribution: BaseDistribution
) -> None:
    assert to_distribution(axis) == distribution


def test_a_trial_has_the_distributions_of_its_parameters_alone() -> None:
    params: dict[str, Value] = {
        "optimizer": "adam",
        "schedule": "cosine",
        "adam.lr": 0.1,
        "cosine.warmup": 0.0,
    }
    distributions = Distributions(make_spec()).of(params)
    assert distributions == {
        "optimizer": CategoricalDistribution(("sgd", "adam", "muon")),
        "schedule": CategoricalDistribution(("constant", "linear", "cosine", "stable_decay")),
        "adam.lr": FloatDistribution(1e-4, 0.3, log=True),
        "cosine.warmup": CategoricalDistribution((0.0, 0.02, 0.05, 0.1)),
    }


def test_a_searched_batch_size_has_a_distribution() -> None:
    spec = make_spec(train={"batch_size": {"choices": [32, 64]}})
    params: dict[str, Value] = {"optimizer": "sgd", "schedule": "constant", "batch_size": 32}
    assert Distributions(spec).of(params)["batch_size"] == CategoricalDistribution((32, 64))


def test_what_the_study_does_not_know_is_left_out() -> None:
    assert Distributions(make_spec()).of({"rprop.lr": 0.1}) == {}
