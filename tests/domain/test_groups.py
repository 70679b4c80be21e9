from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from tuner.domain.catalog.calls import Call
from tuner.domain.catalog.dimensions import Choice, Fixed, Float, Value
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.groups import (
    REST,
    Group,
    GroupValues,
    assign_group,
    decode_group,
    group_settings,
    unmatched,
)

names = st.from_regex(r"[a-c](\.[0-2a-c]){0,3}", fullmatch=True)
patterns = st.one_of(names, st.sampled_from(["*", "a.*", "*.b", "?", "[ab].*", "*.[0-1]*"]))


def group_of(**settings: Any) -> Group:
    return Group.model_validate({"name": "body", "match": "body.*"} | settings)


@settings(max_examples=100)
@given(name=names, matches=st.lists(patterns, max_size=4))
def test_the_first_match_takes_a_parameter(name: str, matches: list[str]) -> None:
    named = [(f"g{i}", match) for i, match in enumerate(matches)]
    taker = assign_group(name, named)
    position = len(named) if taker == REST else int(taker[1:])
    assert assign_group(name, named[:position]) == REST
    assert position == len(named) or assign_group(name, named[position:]) == taker


def test_case_matters_in_a_pattern() -> None:
    assert assign_group("Body.0", [("g", "body.*")]) == REST


def test_groups_that_take_nothing_are_found() -> None:
    groups = [GroupValues("a", "a.*"), GroupValues("again", "a.0"), GroupValues("b", "b.*")]
    assert [group.name for group in unmatched(["a.0", "c.1"], groups)] == ["again", "b"]


def test_a_group_left_alone_trains_as_the_rest() -> None:
    assert decode_group(group_of(), {}) == GroupValues("body", "body.*")


def test_what_is_fixed_and_what_is_searched_is_decoded() -> None:
    group = group_of(
        lr_multiplier={"low": 0.01, "high": 1, "log": True}, weight_decay=0, frozen_until=0.25
    )
    assert group.axes() == {
        "groups.body.lr_multiplier": Float(low=0.01, high=1.0, log=True),
        "groups.body.weight_decay": Fixed(value=0.0),
    }
    params: dict[str, Value] = {"groups.body.lr_multiplier": 0.5, "groups.other.momentum": 0.1}
    assert decode_group(group, params) == GroupValues(
        "body", "body.*", lr_multiplier=0.5, weight_decay=0.0, frozen_until=0.25
    )


def test_a_searched_multiplier_that_a_trial_lacks_is_one() -> None:
    # The trials of an optimizer's own defaults have none.
    group = group_of(lr_multiplier={"choices": [0.1, 0.3]})
    assert group.axes()["groups.body.lr_multiplier"] == Choice(choices=(0.1, 0.3))
    assert decode_group(group, {}).lr_multiplier == 1.0


def test_a_group_shows_what_it_changes() -> None:
    values = GroupValues("body", "*", lr_multiplier=0.1, momentum=0.5)
    assert values.to_json() == {"groups.body.lr_multiplier": 0.1, "groups.body.momentum": 0.5}
    assert GroupValues("body", "*", frozen_until=0.5).to_json() == {
        "groups.body.lr_multiplier": 1.0,
        "groups.body.frozen_until": 0.5,
    }


@pytest.mark.parametrize(
    ("settings", "rule"),
    [
        ({"lr_multiplier": 0}, "above 0"),
        ({"lr_multiplier": {"low": 0, "high": 1}}, "above 0"),
        ({"weight_decay": -1}, "at least 0"),
        ({"momentum": 1}, "below 1"),
        ({"momentum": "much"}, "not a number"),
        ({"frozen_until": 1.5}, "less than or equal to 1"),
        ({"frozen_until": -0.1}, "greater than or equal to 0"),
        ({"name": "rest"}, "what the group of all others is called"),
        ({"name": "my group"}, "pattern"),
        ({"match": ""}, "at least 1 character"),
        ({"lr": 0.1}, "Extra inputs"),
    ],
)
def test_what_means_nothing_is_refused(settings: dict[str, Any], rule: str) -> None:
    with pytest.raises(ValidationError, match=rule):
        group_of(**settings)


def test_settings_change_what_the_call_says() -> None:
    call = Call("torch.optim.Adam", {"lr": 0.2, "betas": (0.9, 0.99), "weight_decay": 0.1})
    values = GroupValues("body", "*", 0.5, weight_decay=0.3, momentum=0.6, frozen_until=0.25)
    assert group_settings(call, values) == {
        "name": "body",
        "lr": 0.1,
        "weight_decay": 0.3,
        "betas": (0.6, 0.99),
        "frozen_until": 0.25,
    }


def test_settings_spared_from_decay_have_none() -> None:
    call = Call("torch.optim.SGD", {"lr": 0.2, "momentum": 0.9})
    values = GroupValues("body", "*", weight_decay=0.3, momentum=0.6)
    assert group_settings(call, values, spared=True) == {
        "name": "body (no decay)",
        "lr": 0.2,
        "weight_decay": 0.0,
        "momentum": 0.6,
    }


def test_an_argument_the_optimizer_lacks_is_left_out() -> None:
    call = Call("torch.optim.Rprop", {"lr": 0.2})
    values = GroupValues("body", "*", weight_decay=0.3, momentum=0.6)
    assert group_settings(call, values, accepted={"lr"}) == {"name": "body", "lr": 0.2}


@pytest.mark.parametrize("name", ["muon", "sparse_adam"])
def test_a_momentum_reaches_the_helper_too(name: str) -> None:
    row = OPTIMIZERS[name]
    _, helper = row.calls(row.decode({}))
    settings = group_settings(helper, GroupValues("body", "*", momentum=0.6))
    assert settings["betas"] == (0.6, 0.999)
