from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.report.summaries import make_spec, trial
from tuner.analysis.edges import Edge, Side, find_edges, widen, widen_all
from tuner.domain.catalog.dimensions import Float, Int
from tuner.domain.catalog.optimizers import OPTIMIZERS
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.domain.space import Branch
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, TrialRecord

RANGE: dict[str, Any] = {"low": 1e-4, "high": 0.1, "log": True}


def spec_of(**tables: Any) -> StudySpec:
    space = {"breadth": 3, "optimizers": ["adam", "sgd"], "schedules": ["constant", "step"]}
    usual: dict[str, Any] = {"space": space, "optimizer": {"adam": {"lr": RANGE}}}
    return make_spec(**usual | tables)


def adams(
    rates: Sequence[float], others: Mapping[str, Any] | None = None, schedule: str = "constant"
) -> list[TrialRecord]:
    """Returns trials of adam, each worse than the one before."""
    return [
        trial(n, "adam", n / 10, schedule=schedule, params={"adam.lr": rate} | dict(others or {}))
        for n, rate in enumerate(rates)
    ]


def ends(edges: Sequence[Edge]) -> list[tuple[str, Side, tuple[int, ...]]]:
    return [(edge.name, edge.side, edge.trials) for edge in edges]


@pytest.mark.parametrize(
    ("rates", "found"),
    [
        ([0.09, 0.01, 0.095, 0.01, 0.01], [("adam.lr", "high", (0, 2))]),
        ([1.1e-4, 1.2e-4, 1e-4, 0.01, 0.01], [("adam.lr", "low", (0, 1, 2))]),
        ([0.09, 0.01, 0.01, 0.095, 0.095], []),  # the others are not the best
        ([0.09, 0.01, 1e-4, 0.01, 0.01], []),  # at different ends
        ([0.09, 0.09, 0.09, 0.01], []),  # too few trials
    ],
)
def test_two_of_the_best_three_at_one_end_make_an_edge(
    rates: list[float], found: list[tuple[str, Side, tuple[int, ...]]]
) -> None:
    assert ends(find_edges(spec_of(), adams(rates))) == found


def test_trials_that_were_pruned_count_as_worse_but_count() -> None:
    trials = adams([0.09])
    trials += [
        trial(n, "adam", 0.01, Outcome.PRUNED, params={"adam.lr": 0.09}) for n in range(1, 6)
    ]
    assert ends(find_edges(spec_of(), trials)) == [("adam.lr", "high", (0, 1, 2))]
    only_pruned = trials[1:]
    assert find_edges(spec_of(), only_pruned) == []


def test_the_best_of_every_leading_optimizer_are_looked_at() -> None:
    sgd = {"sgd.lr": spec_of().optimizer["sgd"]["lr"]}
    axis = sgd["sgd.lr"]
    assert isinstance(axis, Float)
    trials = adams([0.01] * 5)
    trials += [trial(10 + n, "sgd", 9.0 + n, params={"sgd.lr": axis.high}) for n in range(5)]
    assert ends(find_edges(spec_of(), trials)) == [("sgd.lr", "high", (10, 11, 12))]


def test_a_range_that_ends_at_its_bound_has_no_edge_there() -> None:
    axes = {"gamma": {"low": 0.3, "high": 1.0}}
    trials = adams([0.01] * 5, {"step.gamma": 1.0}, "step")
    assert find_edges(spec_of(schedule={"step": axes}), trials) == []
    trials = adams([0.01] * 5, {"step.gamma": 0.3}, "step")
    (edge,) = find_edges(spec_of(schedule={"step": axes}), trials)
    assert (edge.path, edge.side) == (("schedule", "step", "gamma"), "low")


def test_a_range_is_widened_by_a_third_of_its_width() -> None:
    (edge,) = find_edges(spec_of(), adams([0.1] * 5))
    assert widen(edge) == Float(low=1e-4, high=1.0, log=True)
    (edge,) = find_edges(spec_of(), adams([1e-4] * 5))
    assert widen(edge) == Float(low=1e-5, high=0.1, log=True)


def test_a_range_with_two_ends_is_widened_at_both() -> None:
    branch, axis = Branch("optimizer", "adam", {}), Float(**RANGE)
    low = Edge(branch, "lr", axis, "low", "adam", (1, 2))
    high = Edge(branch, "lr", axis, "high", "adam", (1, 2))
    assert widen_all([low, high]) == {
        ("optimizer", "adam", "lr"): Float(low=1e-5, high=1.0, log=True)
    }


EVERY_RANGE = [
    (table, row.name, key, axis)
    for table, rows in (("optimizer", OPTIMIZERS), ("schedule", SCHEDULES))
    for row in (rows[name] for name in rows)
    for hyperparameter in row.hyperparameters
    for key, axis in hyperparameter.axes(3).items()
    if isinstance(axis, Float | Int)
]


@pytest.mark.parametrize(("table", "row", "key", "axis"), EVERY_RANGE)
@pytest.mark.parametrize("side", ["low", "high"])
def test_every_range_of_the_catalog_stays_valid_however_often_it_is_widened(
    table: str, row: str, key: str, axis: Float | Int, side: Side
) -> None:
    for _ in range(5):
        wider = widen(Edge(Branch(table, row, {}), key, axis, side, row, (0, 1)))
        if wider is None:
            break
        assert wider.low <= axis.low
        assert wider.high >= axis.high
        assert wider != axis
        axis = wider
    names = {"optimizers": [row] if table == "optimizer" else ["adam"]}
    names |= {"schedules": [row] if table == "schedule" else ["constant"]}
    written: dict[str, Any] = {table: {row: {key: axis}}}
    assert make_spec(space={"breadth": 3} | names, **written).tables()[table][row][key] == axis


@given(low=st.floats(1e-6, 0.5), width=st.floats(0.01, 0.49), side=st.sampled_from(["low", "high"]))
def test_a_momentum_stays_below_one_and_above_zero(low: float, width: float, side: Side) -> None:
    for key in ("momentum", "one_minus_momentum"):
        axis = Float(low=low, high=low + width, log=True)
        edge = Edge(Branch("optimizer", "nesterov", {}), key, axis, side, "nesterov", (0, 1))
        wider = widen(edge)
        if wider is not None:
            assert 0 < wider.low <= axis.low
            assert axis.high <= wider.high < 1


def test_a_rate_has_no_upper_bound() -> None:
    edge = Edge(Branch("optimizer", "adam", {}), "lr", Float(low=1, high=8), "high", "adam", (0,))
    wider = widen(edge)
    assert wider is not None
    assert math.isclose(wider.high, 8 + 7 / 3, rel_tol=1e-3)
