from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.domain.domain_strategies import spec_trees, suggest_with
from tuner.domain.catalog.dimensions import Choice, Dimension, Fixed, Float, Int, Value
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.domain.space import walk
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Proposal, decode

STUDY = {"name": "s", "workload": "models.digits:Digits"}


def spec_of(**tables: Any) -> StudySpec:
    return StudySpec.model_validate({"study": STUDY, **tables}).resolve()


@settings(max_examples=50)
@given(tree=spec_trees(), data=st.data())
def test_a_walk_draws_what_its_optimizer_and_schedule_search_and_nothing_else(
    tree: dict[str, Any], data: st.DataObject
) -> None:
    spec = StudySpec.model_validate(tree).resolve()
    params = walk(spec, suggest_with(data))
    expected = {"optimizer", "schedule"}
    for name in ("batch_size", "average"):
        if isinstance(getattr(spec.train, name), Choice):
            expected.add(name)
    for table, branch in (
        (spec.optimizer, str(params["optimizer"])),
        (spec.schedule, str(params["schedule"])),
        (spec.average, str(params.get("average", spec.train.averages[0]))),
    ):
        axes = table[branch]
        off = {
            key.removeprefix("use_")
            for key in axes
            if key.startswith("use_") and params.get(f"{branch}.{key}") is False
        }
        cycled = SCHEDULES[str(params["schedule"])].cycles_momentum
        if table is spec.optimizer and cycled and not OPTIMIZERS[branch].switches:
            off |= {"momentum", "one_minus_momentum", "beta1", "one_minus_beta1"}
        searched = (key for key, axis in axes.items() if not isinstance(axis, Fixed))
        expected |= {f"{branch}.{key}" for key in searched if key not in off}
    assert params.keys() == expected


@pytest.mark.parametrize(
    "spec",
    [
        spec_of(space={"optimizers": ["adam"], "breadth": 3}),
        spec_of(space={"optimizers": ["adam"], "breadth": 3}).resolve(),
        spec_of(
            space={"optimizers": ["adam"], "breadth": 3},
            optimizer={
                "adam": {
                    "use_weight_decay": {"choices": [False, True]},
                    "weight_decay": {"low": 1e-6, "high": 1e-3, "log": True},
                }
            },
        ),
    ],
    ids=["as the catalog has it", "resolved twice", "switch and value overridden"],
)
def test_the_value_behind_a_switch_is_not_drawn_while_it_is_off(spec: StudySpec) -> None:
    params = walk(spec, lambda name, axis: first_of(axis))
    assert params["adam.use_weight_decay"] is False
    assert "adam.weight_decay" not in params
    assert decode(spec, Proposal(params)).optimizer_values["weight_decay"] == 0.0


def test_a_fixed_value_is_used_without_being_drawn() -> None:
    spec = spec_of(
        space={"optimizers": ["adam"], "schedules": ["constant"], "breadth": 1},
        optimizer={"adam": {"lr": 0.25, "one_minus_beta1": 0.5}},
    )
    params = walk(spec, lambda name, axis: first_of(axis))
    assert params == {"optimizer": "adam", "schedule": "constant"}
    values = decode(spec, Proposal(params)).optimizer_values
    assert (values["lr"], values["beta1"]) == (0.25, 0.5)


def first_of(axis: Dimension) -> Value:
    if isinstance(axis, Float | Int):
        return axis.low
    assert isinstance(axis, Choice)
    return axis.choices[0]


@pytest.mark.parametrize(("schedule", "searched"), [("constant", True), ("one_cycle", False)])
def test_momentum_is_not_searched_where_the_schedule_cycles_it(
    schedule: str, searched: bool
) -> None:
    space = {"optimizers": ["adam"], "schedules": [schedule], "breadth": 3}
    params = walk(spec_of(space=space), lambda _, axis: first_of(axis))
    assert ("adam.one_minus_beta1" in params) == searched
    assert "adam.lr" in params
