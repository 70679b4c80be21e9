from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.domain.domain_strategies import is_within, spec_trees, suggest_with
from tuner.domain.budget import evaluation_step
from tuner.domain.catalog.averages import AVERAGES
from tuner.domain.catalog.dimensions import Dimension, Fixed, Float, Value
from tuner.domain.catalog.hyperparameters import Hyperparameter
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.domain.groups import GroupValues
from tuner.domain.space import walk
from tuner.domain.spec import StudySpec
from tuner.domain.trials import (
    Outcome,
    Proposal,
    TrialConfig,
    TrialRecord,
    bent_defaults,
    decode,
    default_proposal,
    default_proposals,
    progress_at,
)

STUDY = {"name": "s", "workload": "models.digits:Digits"}


def spec_of(**tables: Any) -> StudySpec:
    return StudySpec.model_validate({"study": STUDY, **tables}).resolve()


def check_value(knob: Hyperparameter, axes: dict[str, Dimension], value: Value, off: bool) -> None:
    """Checks a decoded value against the axis it was drawn from."""
    if off:
        assert value == 0.0
    elif knob.name in axes:
        assert is_within(value, axes[knob.name])
    else:
        # Rounding in 1 - (1 - x) is absolute, so it can leave a range by an ulp of 1.
        axis = axes[knob.search_name]
        assert isinstance(axis, Float)
        assert axis.low - 1e-15 <= 1 - float(value) <= axis.high + 1e-15


@settings(max_examples=50)
@given(tree=spec_trees(), data=st.data())
def test_every_point_of_the_space_decodes_to_values_inside_their_ranges(
    tree: dict[str, Any], data: st.DataObject
) -> None:
    spec = StudySpec.model_validate(tree).resolve()
    params = walk(spec, suggest_with(data))
    config = decode(spec, Proposal(params))
    assert config.optimizer in spec.space.optimizers
    assert config.schedule in spec.space.schedules
    assert is_within(config.batch_size, spec.train.batch_size)
    for name, values, rows, table in (
        (config.optimizer, config.optimizer_values, OPTIMIZERS, spec.optimizer),
        (config.schedule, config.schedule_values, SCHEDULES, spec.schedule),
        (config.average, config.average_values, AVERAGES, spec.average),
    ):
        for knob in rows[name].hyperparameters:
            off = params.get(f"{name}.{knob.switch_name}") is False
            check_value(knob, table[name], values[knob.name], off)


def test_a_default_trial_uses_the_optimizer_s_own_defaults_but_for_what_is_fixed() -> None:
    spec = spec_of(
        space={"optimizers": ["adam"], "schedules": ["cosine"], "breadth": 3},
        optimizer={"adam": {"lr": 0.25, "one_minus_beta2": 0.125}},
        schedule={"cosine": {"warmup": 0.1}},
    )
    config = decode(spec, default_proposals(spec)[0])
    own = {"lr": 0.25, "beta2": 0.875}
    assert config.optimizer_values == OPTIMIZERS["adam"].decode({}) | own
    assert config.schedule_values == {"warmup": 0.1, "final_ratio": 0.0}


@pytest.mark.parametrize("trials", [1, 2, 11, 100])
def test_every_optimizer_has_its_defaults_whatever_the_budget(trials: int) -> None:
    space = {"optimizers": ["sgd", "adam", "muon", "adagrad"]}
    spec = spec_of(budget={"trials": trials}, space=space)
    proposals = default_proposals(spec)
    assert [proposal.params["optimizer"] for proposal in proposals] == space["optimizers"]
    assert list(proposals) == [default_proposal(spec, name) for name in space["optimizers"]]
    assert {proposal.preset for proposal in proposals} == {"default"}


@settings(max_examples=50)
@given(spec_trees())
def test_every_default_decodes(tree: dict[str, Any]) -> None:
    spec = StudySpec.model_validate(tree).resolve()
    for proposal in default_proposals(spec):
        config = decode(spec, proposal)
        axes = spec.optimizer[config.optimizer]
        fixed = {key: axis.value for key, axis in axes.items() if isinstance(axis, Fixed)}
        # What the study file does not allow is as near as it allows, and the rest is torch's.
        prefix = f"{config.optimizer}."
        bent = {b.name.removeprefix(prefix): b.value for b in bent_defaults(spec, proposal.params)}
        assert config.optimizer_values == OPTIMIZERS[config.optimizer].decode(fixed | bent)
        assert config.batch_size == "full" or config.batch_size > 0


def test_a_default_is_constant_where_that_is_searched() -> None:
    with_constant = spec_of(space={"schedules": ["cosine", "constant"]})
    without = spec_of(space={"schedules": ["step", "cosine"]})
    assert default_proposals(with_constant)[0].params["schedule"] == "constant"
    assert default_proposals(without)[0].params["schedule"] == "step"


def test_a_default_trains_with_the_first_batch_size() -> None:
    spec = spec_of(train={"batch_size": {"choices": [64, 32]}})
    assert decode(spec, default_proposals(spec)[0]).batch_size == 64


@settings(max_examples=50)
@given(total=st.integers(1, 5000), evaluations=st.integers(1, 200))
def test_progress_is_the_step_where_trials_are_counted_in_steps(
    total: int, evaluations: int
) -> None:
    spec = spec_of(budget={"steps": total, "evaluations": evaluations})
    steps = {evaluation_step(k, total, evaluations) for k in range(1, evaluations + 1)}
    found = [progress_at(spec, i, total) for i in range(1, evaluations + 1)]
    assert set(found) == steps
    assert found == sorted(found)


@pytest.mark.parametrize("budget", [{"epochs": 3}, {"examples": 5000}])
def test_progress_is_the_evaluation_where_trials_differ_in_steps(budget: dict[str, int]) -> None:
    spec = spec_of(budget=budget)
    assert [progress_at(spec, i, total_steps=50) for i in (1, 2, 3)] == [1, 2, 3]


def test_a_config_shows_its_values_with_the_schedule_s_prefixed() -> None:
    config = TrialConfig("sgd", {"lr": 0.1}, "step", {"warmup": 0.0, "gamma": 0.5}, 32)
    assert config.to_json() == {"lr": 0.1, "step.warmup": 0.0, "step.gamma": 0.5, "batch_size": 32}


def test_a_record_knows_its_optimizer_its_schedule_and_whether_it_is_a_default() -> None:
    params: dict[str, Value] = {"optimizer": "sgd", "schedule": "step"}
    tuned = TrialRecord(0, Outcome.COMPLETE, Proposal(params))
    default = TrialRecord(1, Outcome.COMPLETE, Proposal(params, preset="default"))
    assert (tuned.optimizer, tuned.schedule) == ("sgd", "step")
    assert (tuned.is_default, default.is_default) == (False, True)


def test_groups_and_own_hyperparameters_are_decoded_and_shown() -> None:
    group = {"name": "body", "match": "body.*", "lr_multiplier": {"low": 0.01, "high": 1}}
    spec = spec_of(
        space={"optimizers": ["sgd"], "schedules": ["constant"], "breadth": 1},
        train={"groups": [group], "batch_size": 32},
    )
    params: dict[str, Value] = {
        "optimizer": "sgd",
        "schedule": "constant",
        "sgd.lr": 0.5,
        "groups.body.lr_multiplier": 0.25,
        "dropout": 0.1,
    }
    config = decode(spec, Proposal(params))
    assert config.groups == (GroupValues("body", "body.*", lr_multiplier=0.25),)
    assert config.own == {"dropout": 0.1}
    shown = config.to_json()
    assert shown["groups.body.lr_multiplier"] == 0.25
    assert (shown["dropout"], shown["lr"]) == (0.1, 0.5)
