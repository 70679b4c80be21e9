from __future__ import annotations

import pytest

from tuner.domain.budget import Budget
from tuner.domain.spec import StudySpec
from tuner.domain.study_file import parse_spec
from tuner.service.open_study import Opened, open_study
from tuner.store import Database


def spec_with(**budget: object) -> StudySpec:
    """Returns what a study file says, its defaults not filled in."""
    tree = {
        "study": {"name": "small", "workload": "models.parabola:Parabola"},
        "budget": {"steps": 20, **budget},
        "space": {"optimizers": ["sgd", "adam"]},
    }
    return parse_spec(tree, origin="test")


def reopen(
    database: Database, first: dict[str, object], then: dict[str, object], *keys: str
) -> tuple[Opened, Budget]:
    def connect(create: bool) -> Database:
        return database

    open_study(connect, spec_with(**first))
    opened = open_study(connect, spec_with(**then), keys)
    return opened, open_study(connect, spec_with()).study.spec.budget


@pytest.mark.parametrize(
    ("has", "says"), [({"trials": 60}, {"trials": 40}), ({"wall_time": "30m"}, {"wall_time": "9m"})]
)
def test_file_alone_never_lowers_a_budget(
    database: Database, has: dict[str, object], says: dict[str, object]
) -> None:
    opened, budget = reopen(database, has, says)
    [(key, (kept, said))] = opened.kept.items()
    assert (key, kept) == (next(iter(has)), getattr(spec_with(**has).budget, key))
    assert said == getattr(spec_with(**says).budget, key)
    assert opened.changed == {}
    assert getattr(budget, key) == kept


def test_file_puts_no_limit_on_time_where_there_was_none(database: Database) -> None:
    opened, budget = reopen(database, {}, {"wall_time": "9m"})
    assert opened.kept == {"wall_time": (None, 540.0)}
    assert budget.wall_time is None


@pytest.mark.parametrize("key", ["budget.trials", "budget"])
def test_setting_lowers_a_budget(database: Database, key: str) -> None:
    opened, budget = reopen(database, {"trials": 60}, {"trials": 40}, key)
    assert (opened.changed, opened.kept) == ({"trials": 40}, {})
    assert budget.trials == 40


def test_setting_of_one_budget_lowers_no_other(database: Database) -> None:
    has: dict[str, object] = {"trials": 60, "wall_time": 600}
    opened, budget = reopen(database, has, {"trials": 40, "wall_time": 60}, "budget.wall_time")
    assert (budget.trials, budget.wall_time) == (60, 60)
    assert opened.changed == {"wall_time": 60}
    assert opened.kept == {"trials": (60, 40)}


def test_file_raises_a_budget(database: Database) -> None:
    opened, budget = reopen(database, {"trials": 30, "wall_time": 60}, {"trials": 40})
    assert (opened.changed, opened.kept) == ({"trials": 40}, {})
    assert (budget.trials, budget.wall_time) == (40, 60)


@pytest.mark.parametrize("trials", [20, 90])
def test_what_a_file_leaves_out_stays_as_it_is(database: Database, trials: int) -> None:
    opened, budget = reopen(database, {"trials": trials, "wall_time": 60}, {})
    assert (opened.changed, opened.kept) == ({}, {})
    assert (budget.trials, budget.wall_time) == (trials, 60)


@pytest.mark.parametrize(("trials", "announced"), [(9, False), (10, True)])
def test_defaults_that_a_file_does_not_allow_are_announced_where_a_study_ends_with_some(
    database: Database, trials: int, announced: bool
) -> None:
    tree = {
        "study": {"name": "small", "workload": "models.parabola:Parabola"},
        "budget": {"steps": 20, "trials": trials},
        "space": {"optimizers": ["sgd", "adam"]},
        "optimizer": {"adam": {"lr": {"low": 0.01, "high": 0.1}}},
    }
    opened = open_study(lambda create: database, parse_spec(tree, origin="test"))
    line = (
        "Adam's default lr 0.001 lies outside your range [0.01, 0.1]: "
        "the trial of the defaults has 0.01."
    )
    assert (line in opened.announcements()) is announced
