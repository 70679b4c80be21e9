"""A frozen replay: no later change may make searches need more training unseen."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from scipy.stats import spearmanr

from benchmarks.search.__main__ import describe
from benchmarks.search.learning import choose_portfolio, learn, tables_without
from benchmarks.search.plain import search_plainly
from benchmarks.search.play import search_by_tuner
from benchmarks.search.replay import (
    End,
    Search,
    rank_correlation,
    ratio_to,
    ratios_to,
    run_side_by_side,
)
from benchmarks.search.spaces import (
    EVALUATIONS,
    former_space,
    present_space,
    whole_space,
    with_length,
)
from benchmarks.search.strategies import STRATEGIES, inverted, misled
from benchmarks.search.surrogate import Surrogate
from benchmarks.search.tables import DRAWN, Table, draw_points
from benchmarks.search.warm import misleading
from benchmarks.search.workloads import WORKLOADS
from tuner.domain.catalog.dimensions import Float
from tuner.search.portfolio import fit_portfolio
from tuner.search.warm_start import Earlier, take_over

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


def test_a_search_that_starts_from_a_short_one_needs_less_and_a_wrong_one_costs_little(
    tables: dict[str, Table],
) -> None:
    knowledge = learn(tables_without(WORKLOADS["wine"].family, list(tables.values())))
    spec = with_length(present_space(), STEPS)
    curves_of = Surrogate(tables["wine"], STEPS).curves_of

    def spent(source: str | None) -> float:
        searches = []
        for seed in range(3):
            own = spec
            if source is not None:
                short = with_length(present_space(), STEPS // 3)
                told = Surrogate(tables[source], STEPS // 3).curves_of
                [before] = run_side_by_side(
                    [search_by_tuner(short, seed, knowledge, evaluations=None)], told
                )
                assert len(before.records) == short.budget.trials - 1
                start = take_over(spec, Earlier(source, short, before.records))
                own = spec.model_copy(update={"warm_start": start})
            searches.append(search_by_tuner(own, seed, knowledge))
        found = run_side_by_side(searches, curves_of)
        return float(np.median([search.spent_to(0.04) for search in found]))

    assert spent("wine") <= spent(None)
    assert spent(misleading("wine")) <= spent(None) + 80


def test_plain_searches_count_what_they_train(tables: dict[str, Table]) -> None:
    spec = with_length(former_space(), STEPS)
    [search] = run_side_by_side(
        [search_plainly(spec, 0, trials=15)], Surrogate(tables["parabola"], STEPS).curves_of
    )
    spent = [0, *(end.spent for end in search.ends)]
    assert all(after - before >= EVALUATIONS for before, after in itertools.pairwise(spent))
    left = 15 - len(search.ends)
    assert 0 < len(search.ends) * EVALUATIONS + left <= search.evaluations <= 15 * EVALUATIONS


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
    axes = whole_space().axes()
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


def ended(*ends: tuple[int, float], evaluations: int = 100, optimizer: str = "sgd") -> Search:
    return Search(evaluations, [End(spent, value, optimizer) for spent, value in ends])


PLAINS = [ended((50, 2.0), (100, 1.0)), ended((80, 1.0)), ended((9, 3.0))]


def test_a_ratio_is_the_training_to_the_target_over_all_of_plains() -> None:
    others = [ended((20, 1.0)), ended((40, 0.5)), ended((60, 0.9))]
    assert ratio_to(PLAINS, others) == 0.4
    assert ratio_to(PLAINS, [ended((20, 1.5))]) == math.inf


def test_an_interval_holds_the_ratio_and_shrinks_with_more_seeds() -> None:
    rng = np.random.default_rng(0)
    widths = []
    for count in (5, 80):
        plain = [ended((80, 1.0)) for _ in range(count)]
        others = [ended((int(spent), 1.0)) for spent in rng.integers(20, 60, count)]
        low, high = np.quantile(ratios_to(plain, others, rng), (0.025, 0.975))
        assert low <= ratio_to(plain, others) <= high
        widths.append(high - low)
    assert widths[1] < widths[0]


def test_optimizers_are_ranked_by_their_best_and_those_without_a_complete_trial_last() -> None:
    truth = {"adam": 1.0, "muon": 2.0, "sgd": 3.0}

    def search(**best: float) -> Search:
        return Search(100, [End(10, value, name) for name, value in best.items()])

    assert rank_correlation([search(adam=5.0, muon=6.0)], truth) == pytest.approx(1)
    assert rank_correlation([search(sgd=5.0, muon=6.0, adam=7.0)], truth) == pytest.approx(-1)
    assert rank_correlation([search(sgd=5.0), search(adam=5.0)], truth) == pytest.approx(0)


def test_the_table_shows_rows_that_never_get_there() -> None:
    figures = {"end": 1.0, "last": 1.0, "spent": 1.0, "rank": 0.5}
    row = {
        "workload": "parabola",
        "steps": 180,
        "plain": {**figures, "ratio": 0.5, "ratios": [0.4, 0.6]},
        "tuner": {**figures, "ratio": math.inf, "ratios": [0.9, math.inf], "end": 2.0},
    }
    shown = describe([row], ["plain", "tuner"]).splitlines()
    assert "never" in shown[1]
    [behind] = [line for line in shown if "worse for the same" in line]
    assert behind.split()[-6:] == ["0", "of", "1", "1", "of", "1"]


def test_false_knowledge_is_far_from_the_true(tables: dict[str, Table]) -> None:
    known = learn([tables["wine"], tables["digits_mlp"]])
    lower, mirrored = misled(known), inverted(known)
    for name, prior in known.priors.items():
        assert lower.priors[name].mean == prior.mean - 2
        axis = present_space().optimizer[name.split(".")[0]][name.split(".")[1]]
        assert isinstance(axis, Float)
        middle = (math.log10(axis.low) + math.log10(axis.high)) / 2
        assert mirrored.priors[name].mean + prior.mean == pytest.approx(2 * middle)
    first, entry = known.portfolio[0], lower.portfolio[0]
    assert entry["optimizer"] == first["optimizer"]
    rates = (e[e["optimizer"]]["lr"] for e in (first, entry))
    assert next(rates) == pytest.approx(100 * next(rates))


@pytest.mark.parametrize("lanes", [1, 8])
def test_a_whole_study_completes_every_optimizer_it_has_tried(
    tables: dict[str, Table], lanes: int
) -> None:
    knowledge = learn([tables["wine"], tables["digits_mlp"]])
    spec = with_length(present_space(), STEPS)
    [search] = run_side_by_side(
        [search_by_tuner(spec, 0, knowledge, lanes=lanes, evaluations=None)],
        Surrogate(tables["parabola"], STEPS).curves_of,
    )
    assert {end.optimizer for end in search.ends} == {*spec.space.optimizers}
    assert search.evaluations < 0.6 * EVALUATIONS * spec.budget.trials
