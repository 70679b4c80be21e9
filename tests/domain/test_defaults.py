"""What a study file says binds the defaults too; the catalog's ranges do not."""

from __future__ import annotations

from typing import Any

import pytest

from tuner.domain.catalog.dimensions import Float
from tuner.domain.spec import StudySpec
from tuner.domain.study_file import parse_spec
from tuner.domain.trials import (
    Outcome,
    TrialConfig,
    TrialRecord,
    bent_defaults,
    decode,
    default_proposals,
    ran_own_defaults,
)


def spec_of(**tables: Any) -> StudySpec:
    tree: dict[str, Any] = {
        "study": {"name": "s", "workload": "a:B"},
        "space": {"optimizers": ["adam"], "schedules": ["constant"], "breadth": 3},
    }
    return parse_spec(tree | tables, origin="test").resolve()


def default_of(spec: StudySpec) -> TrialConfig:
    return decode(spec, default_proposals(spec)[0])


def test_a_default_outside_the_user_s_range_is_clipped_into_it_and_said_so() -> None:
    spec = spec_of(optimizer={"adam": {"lr": {"low": 1e-6, "high": 1e-4, "log": True}}})
    [proposal] = default_proposals(spec)
    assert decode(spec, proposal).optimizer_values["lr"] == 1e-4
    [bent] = bent_defaults(spec, proposal.params)
    assert str(bent) == (
        "adam's default lr 0.001 lies outside your range log[1e-06, 0.0001]: "
        "the trial of the defaults has 0.0001"
    )
    assert not ran_own_defaults(spec, TrialRecord(0, Outcome.COMPLETE, proposal))


@pytest.mark.parametrize(
    ("axis", "value"),
    [
        ({"low": 1e-6, "high": 1e-4}, 1e-4),
        ({"low": 0.01, "high": 0.1}, 0.01),
        ({"low": 1e-4, "high": 1e-2}, 1e-3),
        ({"choices": [0.01, 0.1]}, 0.01),
        ({"choices": [1e-5, 0.002, 0.02]}, 0.002),
        ({"choices": [0.1, 1e-3]}, 1e-3),
        (0.5, 0.5),
    ],
)
def test_a_default_rate_is_what_the_user_allows_nearest(axis: Any, value: float) -> None:
    assert default_of(spec_of(optimizer={"adam": {"lr": axis}})).optimizer_values["lr"] == value


def test_a_range_of_the_distance_from_one_binds_likewise() -> None:
    axis = {"one_minus_beta1": {"low": 0.2, "high": 0.5}}
    values = default_of(spec_of(optimizer={"adam": axis})).optimizer_values
    assert values["beta1"] == pytest.approx(0.8)
    inside = {"one_minus_beta1": {"low": 0.01, "high": 0.5}}
    assert default_of(spec_of(optimizer={"adam": inside})).optimizer_values["beta1"] == 0.9


def test_ranges_of_the_catalog_bind_no_default() -> None:
    spec = spec_of()
    [proposal] = default_proposals(spec)
    assert proposal.params == {"optimizer": "adam", "schedule": "constant"}
    assert decode(spec, proposal).optimizer_values["weight_decay"] == 0.0
    assert bent_defaults(spec, proposal.params) == []


DECAY = {"low": 1e-4, "high": 1e-2, "log": True}


@pytest.mark.parametrize(
    ("axes", "value"),
    [
        ({"weight_decay": DECAY}, 1e-4),  # no switch: every trial decays
        ({"weight_decay": DECAY, "use_weight_decay": {"choices": [False, True]}}, 0.0),
        ({"weight_decay": DECAY, "use_weight_decay": True}, 1e-4),
        ({"weight_decay": DECAY, "use_weight_decay": False}, 0.0),
        ({"use_weight_decay": {"choices": [False, True]}}, 0.0),
        ({}, 0.0),
    ],
)
def test_off_is_a_default_where_the_user_allows_it(axes: dict[str, Any], value: float) -> None:
    spec = spec_of(optimizer={"adam": axes})
    assert default_of(spec).optimizer_values["weight_decay"] == value


def test_a_switch_that_is_always_on_has_the_default_decay() -> None:
    spec = spec_of(optimizer={"adam": {"use_weight_decay": True}})
    axis = spec.optimizer["adam"]["weight_decay"]
    assert isinstance(axis, Float)
    assert default_of(spec).optimizer_values["weight_decay"] == axis.low


def test_tables_of_schedules_and_averages_bind_their_defaults() -> None:
    spec = spec_of(
        schedule={"constant": {"warmup": {"low": 0.05, "high": 0.2}}},
        train={"average": "ema"},
        average={"ema": {"decay": {"low": 0.9, "high": 0.95}}},
    )
    config = default_of(spec)
    assert config.schedule_values["warmup"] == 0.05
    assert config.average_values["decay"] == pytest.approx(0.95)


def test_the_train_table_binds_defaults() -> None:
    train = {
        "momentum_warmup": {"low": 0.1, "high": 0.5},
        "average": {"choices": ["swa", "ema"]},
        "batch_size": {"choices": [64, 32]},
        "groups": [
            {
                "name": "body",
                "match": "body.*",
                "lr_multiplier": {"low": 0.01, "high": 0.5},
                "weight_decay": {"low": 0.1, "high": 0.2},
                "momentum": {"low": 0.5, "high": 0.95},
            }
        ],
    }
    config = default_of(spec_of(train=train))
    assert (config.momentum_warmup, config.average, config.batch_size) == (0.1, "swa", 64)
    [group] = config.groups
    assert (group.lr_multiplier, group.weight_decay, group.momentum) == (0.5, 0.1, None)


def test_what_is_tried_in_place_of_a_default_lies_on_its_axis() -> None:
    spec = spec_of(
        optimizer={"adam": {"lr": {"choices": [0.1, 0.2]}, "eps": {"low": 1e-4, "high": 1.0}}},
        train={"momentum_warmup": {"low": 0.1, "high": 0.5}},
    )
    [proposal] = default_proposals(spec)
    names = ["adam.lr", "adam.eps", "momentum_warmup"]
    assert set(names) <= proposal.params.keys()
    assert set(names) <= spec.axes().keys()


def test_a_stored_spec_knows_which_axes_were_written() -> None:
    spec = spec_of(optimizer={"adam": {"lr": {"low": 1e-6, "high": 1e-4}}})
    assert spec.written == ("optimizer.adam.lr",)
    again = parse_spec(spec.to_json(), origin="the database")
    assert default_proposals(again) == default_proposals(spec)
    assert again.resolve() == spec


def test_a_spec_stored_by_an_older_version_keeps_its_defaults() -> None:
    spec = spec_of(optimizer={"adam": {"lr": {"low": 1e-6, "high": 1e-4}}})
    tree = spec.to_json()
    del tree["written"]
    old = parse_spec(tree, origin="the database")
    assert default_of(old).optimizer_values["lr"] == 1e-3
    assert old.differences(spec) == {}
