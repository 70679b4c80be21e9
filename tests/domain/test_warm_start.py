"""What a spec keeps of an earlier study, and what it refuses."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tuner.domain.spec import StudySpec
from tuner.domain.study_file import parse_spec
from tuner.errors import SpecError

POINT = {"optimizer": "adam", "schedule": "constant", "adam.lr": 0.01}


def resolved(**tables: Any) -> StudySpec:
    tree: dict[str, Any] = {
        "study": {"name": "later", "workload": "models.digits:Digits"},
        "budget": {"trials": 30, "steps": 100},
        "space": {"optimizers": ["sgd", "adam"], "schedules": ["constant"], "breadth": 1},
    }
    return StudySpec.model_validate(tree | tables).resolve()


def with_start(*openings: dict[str, Any], **changes: Any) -> StudySpec:
    """Returns the spec of a study that has taken something over, read as from a database."""
    start = {"study": "earlier", "trials": 9, "value": 0.5, "openings": openings} | changes
    tree = json.loads(json.dumps(resolved().to_json() | {"warm_start": start}))
    return parse_spec(tree, origin="the database")


def test_a_spec_comes_back_from_a_database_with_all_that_was_taken_over() -> None:
    own = {
        "width": {"value": 32, "axis": {"low": 8, "high": 64, "log": True}},
        "drop": {"value": 0.0, "axis": {"low": 0.0, "high": 0.5}},
        "kind": {"axis": {"choices": [None, "wide", 3]}},
    }
    spec = with_start(
        {"params": POINT, "own": own}, rescaled=0.7, priors={"adam.lr": {"mean": -2.0, "std": 0.4}}
    )
    assert spec.warm_start is not None
    [opening] = spec.warm_start.openings
    assert opening.params == POINT
    assert {name: one.value for name, one in opening.own.items()} == {
        "width": 32,
        "drop": 0.0,
        "kind": None,
    }
    again = parse_spec(json.loads(json.dumps(spec.to_json())), origin="the database")
    assert again == spec


@pytest.mark.parametrize(
    ("opening", "said"),
    [
        ({"params": POINT | {"adam.lr": 9.0}}, "adam.lr = 9.0: searched in log[0.0001, 0.3]"),
        ({"params": POINT | {"adam.lr": "0.01"}}, "adam.lr = '0.01': searched in"),
        ({"params": POINT | {"adam.lr": True}}, "adam.lr = True: searched in"),
        ({"params": POINT | {"adam.rho": 0.5}}, "adam.rho = 0.5: not searched"),
        ({"params": POINT | {"optimizer": "lion"}}, "optimizer = 'lion': searched in {sgd, adam}"),
        ({"params": {"schedule": "constant"}}, "names no optimizer"),
        ({"params": {"optimizer": "adam"}}, "names no schedule"),
        (
            {"params": POINT, "own": {"w": {"value": 9, "axis": {"low": 1, "high": 3}}}},
            "9 is not in int[1, 3]",
        ),
        (
            {"params": POINT, "own": {"w": {"value": 1.5, "axis": {"low": 1, "high": 3}}}},
            "1.5 is not in int[1, 3]",
        ),
        ({"params": POINT, "more": 1}, "more is not a known key"),
        ({"params": [1]}, "must be a table"),
    ],
)
def test_an_opening_that_is_no_point_of_the_space_is_refused(
    opening: dict[str, Any], said: str
) -> None:
    with pytest.raises(SpecError) as refusal:
        with_start(opening)
    assert said in str(refusal.value)


@pytest.mark.parametrize(
    "changes",
    [
        {"trials": 0},
        {"value": float("nan")},
        {"rescaled": 0.0},
        {"rescaled": float("inf")},
        {"study": "x" * 513},
        {"openings": [{"params": POINT}] * 17},
        {"priors": {"adam.lr": {"mean": 0.0, "std": 0.0}}},
        {"priors": {"adam.lr": {"mean": float("inf"), "std": 1.0}}},
    ],
)
def test_damaged_numbers_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(SpecError, match="warm_start"):
        with_start(**changes)


def test_a_study_cannot_start_from_itself() -> None:
    with pytest.raises(SpecError, match=r"'later': a study cannot start from itself; name"):
        parse_spec(
            {
                "study": {"name": "later", "workload": "a:b"},
                "search": {"warm_start": "later"},
            },
            origin="study.toml",
        )


@pytest.mark.parametrize("name", ["off", "auto"])
def test_a_study_may_be_named_as_a_choice_of_warm_starts(name: str) -> None:
    tree = {"study": {"name": name, "workload": "a:b"}, "search": {"warm_start": name}}
    assert parse_spec(tree, origin="study.toml").study.name == name


def test_what_was_taken_over_is_no_difference_between_a_study_and_its_file() -> None:
    spec = with_start({"params": POINT})
    assert spec.differences(resolved()) == {}
    asks = resolved(search={"warm_start": "auto"})
    assert spec.differences(asks) == {"search.warm_start": ("off", "auto")}
