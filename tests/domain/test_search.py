"""How a study searches or compares, as its file says it."""

from __future__ import annotations

from typing import Any

import pytest

from tuner.domain.spec import StudySpec
from tuner.domain.study_file import parse_spec
from tuner.errors import SpecError

STUDY = {"name": "s", "workload": "models.digits:Digits"}


def read(**tables: Any) -> StudySpec:
    return parse_spec({"study": STUDY} | tables, origin="s.toml")


def compare(search: dict[str, Any] | None = None, **budget: Any) -> StudySpec:
    return read(search={"mode": "compare"} | (search or {}), budget=budget or {"trials": 64})


def test_a_comparison_prunes_nothing_and_starts_from_nothing() -> None:
    search = compare().search
    assert (search.pruner, search.portfolio, search.warm_start) == ("none", False, "off")
    assert StudySpec.model_validate(compare().resolve().to_json()).search == search


@pytest.mark.parametrize(
    ("key", "value"), [("pruner", "asha"), ("portfolio", True), ("warm_start", "auto")]
)
def test_a_comparison_refuses_what_would_favour_some_optimizers(key: str, value: object) -> None:
    with pytest.raises(SpecError, match=f"leave {key} out"):
        compare({key: value})
    assert getattr(read(search={key: value}).search, key) == value


@pytest.mark.parametrize(
    ("budget", "remedy"),
    [
        ({"trials": 60}, "56 or 64"),
        ({"trials": 24}, "make it 32"),
        ({"trials": 33}, "32 or 40"),
        ({"full_trials": 36.5}, "32 or 40"),
        ({"full_trials": 3}, "make it 32"),
    ],
)
def test_training_that_cannot_be_shared_out_equally_is_refused(
    budget: dict[str, Any], remedy: str
) -> None:
    with pytest.raises(SpecError, match=remedy):
        compare(**budget)


@pytest.mark.parametrize("budget", [{"trials": 32}, {"trials": 64}, {"full_trials": 40.0}])
def test_training_that_can_be_shared_out_equally_is_taken(budget: dict[str, Any]) -> None:
    assert compare(**budget).search.mode == "compare"


def test_a_comparison_needs_two_optimizers_and_does_not_end_early() -> None:
    with pytest.raises(SpecError, match="only adam to compare"):
        read(search={"mode": "compare"}, space={"optimizers": ["adam"]}, budget={"trials": 8})
    with pytest.raises(SpecError, match="leave stop out"):
        compare(trials=64, stop="auto")


def test_confirming_a_comparison_costs_as_much_as_its_search_unless_the_file_says() -> None:
    assert compare().confirm.cost == 1.0
    assert read().confirm.cost == 0.5
    given = read(search={"mode": "compare"}, budget={"trials": 64}, confirm={"cost": 0.3})
    assert given.confirm.cost == 0.3
    assert StudySpec.model_validate(given.resolve().to_json()).confirm.cost == 0.3
    assert (
        read(search={"mode": "compare"}, budget={"trials": 64}, confirm={"top": 2}).confirm.cost
        == 1
    )
