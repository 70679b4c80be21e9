"""A frozen replay: no later change may make searches need more training unseen."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.search.__main__ import describe
from benchmarks.search.learning import choose_portfolio, learn, tables_without
from benchmarks.search.replay import Search, ratio_to, run_side_by_side
from benchmarks.search.spaces import (
    EVALUATIONS,
    former_space,
    present_space,
    whole_space,
    with_length,
)
from benchmarks.search.strategies import STRATEGIES, search_by_tuner, search_plainly
from benchmarks.search.surrogate import Surrogate
from benchmarks.search.tables import DRAWN, Table, draw_points
from benchmarks.search.workloads import WORKLOADS
from tuner.domain.space import known_axes
from tuner.search.portfolio import fit_portfolio

STEPS = 180
# The medians of plain Optuna's ends, which it reaches after some 260 evaluations (a trial has ten),
# and the evaluations that our searches took to get there, by the number of lanes.
TARGETS = {
    "digits_mlp": (0.0721, {1: 10, 8: 27}),
    "teacher_norm": (0.824, {1: 30, 8: 27}),
    "spirals": (0.0536, {1: 37, 8: 57}),
}


@pytest.fixture(scope="module")
def tables() -> dict[str, Table]:
    return {name: Table.load(name) for name in WORKLOADS}


@pytest.mark.parametrize("name", TARGETS)
@pytest.mark.parametrize("lanes", [1, 8])
def test_a_search_needs_no_more_training_than_it_did(
    tables: dict[str, Table], name: str, lanes: int
) -> None:
    target, evaluations = TARGETS[name]
    knowledge = learn(tables_without(WORKLOADS[name].family, list(tables.values())))
    spec = with_length(present_space(), STEPS)
    searches = [search_by_tuner(spec, seed, knowledge, lanes=lanes) for seed in range(5)]
    found = run_side_by_side(searches, Surrogate(tables[name], STEPS).curves_of)
    spent = float(np.median([search.spent_to(target) for search in found]))
    assert spent <= 1.5 * evaluations[lanes]


def test_plain_searches_count_what_they_train(tables: dict[str, Table]) -> None:
    spec = with_length(former_space(), STEPS)
    [search] = run_side_by_side(
        [search_plainly(spec, 0, trials=15)], Surrogate(tables["parabola"], STEPS).curves_of
    )
    assert len(search.trials) == 15
    assert search.evaluations == sum(len(curve) for _, curve, _ in search.trials)
    assert [value for _, value in search.ends] == [c[-1] for _, c, over in search.trials if over]


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_strategy_runs_and_repeats_itself(tables: dict[str, Table], strategy: str) -> None:
    knowledge = learn([tables["wine"], tables["digits_mlp"]])
    curves_of = Surrogate(tables["parabola"], STEPS).curves_of
    one, same = (
        run_side_by_side([STRATEGIES[strategy](STEPS, 3, knowledge)], curves_of)[0].ends
        for _ in range(2)
    )
    assert one == same != []


def test_tables_hold_the_same_drawn_configurations(tables: dict[str, Table]) -> None:
    first = tables["parabola"]
    assert len(tables) >= 14
    assert len({WORKLOADS[name].family for name in tables}) >= 6
    axes = known_axes(whole_space())
    for table in tables.values():
        assert table.points[:DRAWN] == first.points[:DRAWN]
        assert all(point.keys() <= axes.keys() for point in table.points)
        assert {len(curves) for curves in table.curves.values()} == {len(table.points)}


def test_drawn_configurations_have_every_optimizer_and_schedule_as_often() -> None:
    points = draw_points(80, seed=1)
    for name, axis in whole_space().root_axes().items():
        choices = getattr(axis, "choices", ())
        counts = [sum(point.get(name) == choice for point in points) for choice in choices]
        assert not counts or max(counts) - min(counts) <= 1


def test_a_surrogate_knows_the_configurations_that_it_has_seen(tables: dict[str, Table]) -> None:
    table = tables["digits_mlp"]
    told = Surrogate(table, STEPS).curves_of(table.points[:200])[:, -1]
    true = table.curves[STEPS][:200, -1]
    both = np.isfinite(told) & np.isfinite(true)
    assert told.shape == (200,)
    assert spearmanr(told[both], true[both]).statistic > 0.95


def test_a_family_left_out_teaches_nothing(tables: dict[str, Table]) -> None:
    rest = tables_without("images", list(tables.values()))
    assert {WORKLOADS[table.workload].family for table in rest} == {
        own.family for own in WORKLOADS.values()
    } - {"images"}


def test_a_portfolio_holds_every_optimizer_and_fits_the_space(tables: dict[str, Table]) -> None:
    every = list(tables.values())
    chosen = choose_portfolio(every, 8)
    spec = with_length(present_space(), STEPS)
    assert {point["optimizer"] for point in chosen} == {*spec.space.optimizers}
    assert len(fit_portfolio(spec, learn(every).portfolio)) == len(chosen) + 1


def test_a_ratio_is_the_training_to_the_target_over_all_of_plains() -> None:
    plain = [Search(100, [(50, 2.0), (100, 1.0)]), Search(100, [(80, 1.0)]), Search(100, [(9, 3)])]
    others = [Search(400, [(20, 1.0)]), Search(400, [(40, 0.5)]), Search(400, [(60, 0.9)])]
    assert ratio_to(plain, others) == 0.4
    assert ratio_to(plain, [Search(400, [(20, 1.5)])]) == math.inf


def test_the_table_shows_rows_that_never_get_there() -> None:
    row = {
        "workload": "parabola",
        "steps": 180,
        "plain": {"ratio": 0.5, "end": 1.0},
        "tuner": {"ratio": math.inf, "end": 2.0},
    }
    shown = describe([row], ["plain", "tuner"])
    assert "never" in shown
    assert "1 of   1" in shown
    assert EVALUATIONS == 10
