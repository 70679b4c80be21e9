"""Networks with ranges of their own, from the study file to what a trial trains with."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Value
from tuner.domain.space import walk
from tuner.domain.spec import StudySpec
from tuner.domain.study_file import parse_spec
from tuner.domain.trials import Proposal, decode, default_proposals
from tuner.errors import SpecError

RANGE = {"low": 1e-5, "high": 1e-4, "log": True}


def spec_of(network: Any, **tables: Any) -> StudySpec:
    tree = {
        "study": {"name": "s", "workload": "gan:train"},
        "space": {"optimizers": ["adam", "sgd"], "breadth": 3},
        "network": network,
    }
    return parse_spec(tree | tables, origin="study.toml").resolve()


def draw(spec: StudySpec, optimizer: str) -> dict[str, Value]:
    """Returns a point of the space: of each range its lower end, of each choice its last."""

    def lowest(name: str, axis: Dimension) -> Value:
        if name == "optimizer":
            return optimizer
        return axis.choices[-1] if isinstance(axis, Choice) else axis.low  # type: ignore[union-attr]

    return walk(spec, lowest)


def test_a_network_has_axes_of_its_own_for_the_optimizer_a_trial_trains_with() -> None:
    spec = spec_of({"generator": {"adam": {"lr": RANGE}}})
    assert "network.generator.adam.lr" in spec.axes()
    assert draw(spec, "adam")["network.generator.adam.lr"] == 1e-5
    assert not any(name.startswith("network") for name in draw(spec, "sgd"))


def test_what_a_network_does_not_name_it_shares() -> None:
    spec = spec_of({"generator": {"adam": {"lr": RANGE, "beta1": 0.5}}})
    config = decode(spec, Proposal(draw(spec, "adam")))
    assert config.networks == {"generator": {"lr": 1e-5, "beta1": 0.5}}
    own = config.values_of("generator")
    assert own == config.optimizer_values | config.networks["generator"]
    assert config.values_of("other") == config.values_of(None) == config.optimizer_values
    assert config.own == {}
    assert config.to_json()["generator.lr"] == 1e-5


def test_each_name_a_point_has_is_known() -> None:
    spec = spec_of({"generator": {"adam": {"lr": RANGE, "use_weight_decay": True}}})
    params = draw(spec, "adam")
    assert params.keys() <= spec.axes().keys()
    assert decode(spec, Proposal(params)).networks["generator"]["weight_decay"] == 1e-7


def test_a_form_of_one_network_replaces_the_other_form_of_all() -> None:
    spec = spec_of({"generator": {"adam": {"beta1": {"low": 0.4, "high": 0.6}}}})
    config = decode(spec, Proposal(draw(spec, "adam")))
    assert config.networks["generator"]["beta1"] == 0.4
    assert config.optimizer_values["beta1"] == 0.98


@settings(max_examples=50)
@given(
    low=st.floats(1e-6, 1.0),
    factor=st.floats(1.0, 100.0),
    lr=st.sampled_from([1e-3, 0.25]),
)
def test_the_default_trial_takes_what_is_shared_or_is_nearest(
    low: float, factor: float, lr: float
) -> None:
    axis = {"low": low, "high": low * factor}
    spec = spec_of({"generator": {"adam": {"lr": axis}}}, optimizer={"adam": {"lr": lr}})
    config = decode(spec, default_proposals(spec)[0])
    assert config.optimizer_values["lr"] == lr
    assert config.networks["generator"]["lr"] == min(max(lr, low), low * factor)


def test_the_default_trial_stays_within_choices_and_switches() -> None:
    own = {
        "lr": {"choices": [0.1, 0.2]},
        "one_minus_beta1": {"low": 0.3, "high": 0.5},
        "use_weight_decay": {"choices": [False, True]},
        "eps": 1e-6,
    }
    spec = spec_of({"generator": {"adam": own}})
    config = decode(spec, default_proposals(spec)[0])
    expected = {"lr": 0.1, "beta1": 0.7, "weight_decay": 0.0, "eps": 1e-6}
    assert config.networks["generator"] == pytest.approx(expected)


def test_a_resolved_spec_is_read_as_it_was_stored() -> None:
    spec = spec_of({"generator": {"adam": {"lr": RANGE, "beta1": 0.5}}})
    again = StudySpec.model_validate(spec.to_json())
    assert again.resolve().differences(spec) == {}
    assert again.network["generator"]["adam"]["beta1"] == Fixed(value=0.5)
    assert "network" not in spec_of({}).to_json()


@pytest.mark.parametrize(
    ("network", "said"),
    [
        ({"g": {"adm": {"lr": 0.1}}}, "there is no optimizer 'adm': did you mean 'adam'"),
        ({"g": {"adamw": {"lr": 0.1}}}, r"\[network\.g\.adamw\] is set, but adamw is not in space"),
        ({"g": {"adam": {"lrr": 0.1}}}, "network.g.adam has no 'lrr': did you mean 'lr'"),
        ({"g": {"adam": {"lr": -1.0}}}, "network.g.adam.lr: -1 is out of bounds"),
        ({"g": {"adam": {"lr": {"low": 1}}}}, "network.g.adam.lr"),
        ({"g": 3}, "network.g = 3: must be a table"),
        ({"a-b": {"adam": {"lr": 0.1}}}, "network.a-b"),
    ],
)
def test_what_is_wrong_in_a_network_s_table_is_named(network: Any, said: str) -> None:
    with pytest.raises((SpecError, ValidationError), match=said):
        spec_of(network)


def test_a_sampler_of_one_space_takes_networks_where_every_trial_has_their_axes() -> None:
    space = {"optimizers": ["adam"], "schedules": ["constant"], "breadth": 1}
    constant = {"constant": {"warmup": 0.0}}
    network: dict[str, Any] = {"generator": {"adam": {"lr": RANGE}}}
    tables: Any = {"search": {"sampler": "cmaes"}, "space": space, "schedule": constant}
    assert spec_of(network, **tables).search.sampler == "cmaes"
    network = {"generator": {"adam": {"use_weight_decay": {"choices": [False, True]}}}}
    with pytest.raises(SpecError, match=r"fix network\.generator\.adam\.use_weight_decay to"):
        spec_of(network, **tables)
