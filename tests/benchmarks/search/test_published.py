"""Published curves are read as they are, and measured by the rules that tuner follows."""

from __future__ import annotations

import gzip
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.search.play import search_by_tuner
from benchmarks.search.published import halving, ranks, schedules, sets, transfer
from benchmarks.search.published.report import report
from benchmarks.search.replay import Search
from benchmarks.search.spaces import present_space, with_length
from benchmarks.search.tables import Table
from tuner.search.knowledge import Knowledge

FOLDER = sets.curves_folder()
real = pytest.mark.skipif(
    FOLDER is None, reason="no published curves: set TUNER_DATA to a folder that holds curves/"
)


def draw_curves(seed: int, runs: int) -> sets.Matrix:
    """Returns curves that fall to different ends at different paces; a tenth diverges."""
    rng = np.random.default_rng(seed)
    ends, paces = rng.uniform(0, 1, (runs, 1)), rng.uniform(0.1, 1, (runs, 1))
    curves: sets.Matrix = ends + np.exp(-paces * np.arange(1, halving.EVALUATIONS + 1))
    over = rng.integers(1, halving.EVALUATIONS, runs)
    for run in np.flatnonzero(rng.random(runs) < 0.1):
        curves[run, over[run] :] = math.inf
    return curves


@pytest.mark.parametrize("seed", range(4))
def test_pausing_is_replayed_as_tuner_pauses(seed: int) -> None:
    curves = draw_curves(seed, 300)
    spec = with_length(present_space(), 100)
    own = {"sampler": "random", "portfolio": False}
    spec = spec.model_copy(update={"search": spec.search.model_copy(update=own)})
    searching = search_by_tuner(spec, seed, Knowledge((), {}), evaluations=300)
    started, found = 0, Search()
    try:
        wanted = next(searching)
        while True:
            answer = [np.where(np.isinf(c), np.nan, c).tolist() for c in curves[started:][:1]]
            started += len(wanted)
            wanted = searching.send(answer)
    except StopIteration as end:
        found = end.value
    assert len(found.ends) > 5
    best = math.inf
    for spent, value, _ in found.ends:
        if value < best:
            best = value
            assert halving.spend_with_pausing(curves, value) == spent


def test_median_pruning_stops_what_is_behind_five_complete_runs() -> None:
    good, bad, best = [1.0] * 10, [2.0] * 10, [0.5] * 10
    curves = np.array([good] * 5 + [bad, best])
    assert halving.spend_with_median(curves, 0.5) == 5 * 10 + 1 + 10
    assert halving.spend_with_median(curves, 0.4) == math.inf


def test_what_diverges_costs_the_evaluation_that_finds_it() -> None:
    curves = np.array([[1.0, math.inf] + [math.inf] * 8, [0.0] * 10])
    for rule in (halving.spend_with_median, halving.spend_with_pausing):
        assert rule(curves, 0.0) == 2 + 10


@given(st.integers(0, 50))
def test_no_rule_reaches_what_no_run_reaches(seed: int) -> None:
    curves = draw_curves(seed, 30)
    for rule in halving.RULES.values():
        assert rule(curves, -1.0) == math.inf


def test_random_order_needs_some_sixty_runs_for_the_best_of_sixty() -> None:
    every, *_ = halving.race(draw_curves(0, 1000), repeats=101)
    assert every == pytest.approx(60, rel=0.25)


def test_an_early_rank_that_is_the_last_holds_all() -> None:
    last = np.arange(40.0)
    assert ranks.correlate(last, last) == pytest.approx(1)
    assert ranks.hold(last, last) == 1
    assert ranks.hold(-last, last) == 0
    assert ranks.survive([last, last], last) == 0
    assert ranks.survive([-last], last) == 27 / 40


def test_the_second_rung_chooses_among_those_that_came_there() -> None:
    first, last = np.array([0.0, 0, 0, 9, 9, 9, 9, 9, 9]), np.array([3.0, 4, 5, 0, 1, 2, 6, 7, 8])
    assert ranks.survive([first, last], last) == 3 / 9


def test_a_curve_stays_diverged() -> None:
    thinned = sets.thin([3.0, math.nan, 1.0, 0.5], points=4)
    assert thinned.tolist() == [3.0, math.inf, math.inf, math.inf]


def test_a_portfolio_covers_tasks_that_one_configuration_does_not() -> None:
    places = np.array([[0.1, 0.9, 0.3], [0.9, 0.1, 0.3]])
    assert transfer.cover(places, 1) == [2]
    assert sorted(transfer.cover(np.array([[0.1, 0.9, 0.5], [0.9, 0.1, 0.5]]), 2)) == [0, 1]


def test_a_portfolio_is_learned_on_other_families() -> None:
    costs = np.zeros((3, sets.POINTS))
    costs[:, -1] = (0, 1, 2)
    tasks = {"LSTM1": costs, "LSTM2": costs, "GRU1": costs[::-1]}
    every = [
        sets.CurveSet("TaskSet", task, "", own, ["adam"] * 3, [0.1] * 3)
        for task, own in tasks.items()
    ]
    assert transfer.try_portfolios(every, [1]) == [[1], [1], [1]]


def test_rates_outside_a_range_are_told() -> None:
    costs = np.ones((3, sets.POINTS))
    costs[[0, 2], -1] = 0
    one = sets.CurveSet("here", "task", "", costs, ["adam", "adam", "sgd"], [1e-6, 0.01, 0.1])
    assert [(found.optimizer, found.in_range) for found in transfer.find_best_rates([one])] == [
        ("adam", False),
        ("sgd", True),
    ]


def test_optimizers_are_ranked_by_their_best_runs() -> None:
    costs = np.array([[3.0] * sets.POINTS, [2.0] * sets.POINTS, [1.0] * sets.POINTS])
    costs[0, -1] = 0
    one = sets.CurveSet("here", "task", "", costs, ["sgd", "adam", "sgd"], [0.1] * 3)
    two = sets.CurveSet("here", "other", "", costs[:2], ["sgd", "adam"], [0.1] * 2)
    assert transfer.rank_optimizers([one, two], (0.5,)) == {"adam": [1.5, 2], "sgd": [1.5, 1]}


def write_lines(path: Path, objects: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.writelines(json.dumps(one) + "\n" for one in objects)


def test_a_cut_cooldown_is_its_constant_trunk(tmp_path: Path) -> None:
    def run(group: str, rate: float, length: int, val: list[list[float]]) -> dict[str, object]:
        return {
            "group": group,
            "layers": "12",
            "lr": str(rate),
            "schedule": "wsd",
            "decay": "linear",
            "decay_fraction": "0.2",
            "iterations": str(length),
            "val": val,
        }

    runs = []
    for rate in (1.0, 2.0, 3.0):
        runs += [
            run("stable-124m", rate, 50_000, [[24_800, 10 + rate], [49_800, 9.0]]),
            run("ann124-0.2", rate, 25_000, [[24_800, 5 + rate], [20_000, 8.0]]),
            run("ann124-0.2", rate, 50_000, [[40_000, 8.0], [49_800, rate]]),
        ]
    runs.append(run("ann124-0.2", 4.0, 50_000, [[40_000, 1.0]]))  # not trained to its end
    write_lines(tmp_path / "lr-scheduling" / "runs.jsonl.gz", runs)
    assert schedules.load_lengths(tmp_path) == {
        ("cooldown 0.2 linear", 50_000, 25_000): [(11, 6, 1), (12, 7, 2), (13, 8, 3)]
    }


def test_tables_of_the_bench_are_cut_where_the_short_ones_end() -> None:
    table = Table.load("parabola")
    found = schedules.compare_lengths([table], None, 180, 60)
    [*_, half] = schedules.compare_rungs([table], None, 180)
    assert all(0 < value <= 1 for value in [*found, *half])
    assert half[0] > found[0]  # half of a training tells more than a third
    assert schedules.thin_table(table, "cosine", 540).shape[1] == halving.EVALUATIONS


def test_without_published_curves_the_command_says_so(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("TUNER_DATA", str(tmp_path))
    monkeypatch.setattr("benchmarks.search.published.report.WORKLOADS", {"parabola": None})
    report()
    shown = capsys.readouterr().out
    assert "set TUNER_DATA" in shown
    assert "The bench: cut or short?" in shown


@real
def test_taskset_has_the_same_configurations_in_all_tasks() -> None:
    assert FOLDER is not None
    found = sets.load_taskset(FOLDER)
    assert len(found) == 8
    assert all(one.costs.shape == (1000, sets.POINTS) for one in found)
    assert len({tuple(one.rates) for one in found}) == 1
    assert len({transfer.family_of(one.task) for one in found}) == 4


@real
def test_every_published_set_can_be_ranked() -> None:
    assert FOLDER is not None
    for load in sets.LOADERS:
        for one in load(FOLDER):
            assert one.costs.shape == (len(one.names), sets.POINTS)
            assert len(one.names) == len(one.rates) >= 12
            assert not np.isnan(one.costs).any()
            assert ranks.correlate(one.costs[:, -2], one.costs[:, -1]) > 0.5


@real
def test_trials_that_reached_their_target_cost_less_than_those_that_did_not() -> None:
    assert FOLDER is not None
    for one in sets.load_algoperf(FOLDER)[:5]:
        last = one.costs[:, -1]
        assert ((last < 1e-9) | (last > 100)).all()


@real
def test_short_llamas_rank_better_than_cut_ones() -> None:
    assert FOLDER is not None
    found = [np.array(rows).T for rows in schedules.load_lengths(FOLDER).values()]
    hits = [[one[early].argmin() == one[2].argmin() for one in found] for early in (0, 1)]
    assert sum(hits[0]) < sum(hits[1])
