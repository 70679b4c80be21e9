from __future__ import annotations

import math
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.search.studies import make_spec, record_of
from tuner.domain.trials import Outcome, TrialRecord
from tuner.search import History, Pruner
from tuner.search.halving import HyperbandPruner, bracket_sizes, rungs

STEPS = {index: 10 * index for index in range(1, 28)}
LEVELS = st.lists(st.integers(-1000, 1000), min_size=1, max_size=24, unique=True)


def pruner_of(
    levels: list[float], pruner: str = "asha", direction: str = "minimize", evaluations: int = 9
) -> Pruner:
    """Returns the pruner of a study whose trials, all running, have flat curves at some levels."""
    spec = make_spec(
        study={"name": "s", "workload": "a:B", "direction": direction},
        budget={"trials": 60, "steps": 270, "evaluations": evaluations},
        search={"pruner": pruner},
    )
    history = History(spec)
    history.add(running(number, level) for number, level in enumerate(levels))
    return Pruner(spec, history)


def running(number: int, level: float, points: int = 9, preset: str | None = None) -> TrialRecord:
    return record_of(number, Outcome.RUNNING, evaluations=curve(level, points), preset=preset)


def curve(level: float, points: int) -> dict[int, float]:
    return {STEPS[index]: level for index in range(1, points + 1)}


def kept(levels: list[float], points: int, **options: Any) -> set[int]:
    pruner = pruner_of(levels, **options)
    return {
        number
        for number, level in enumerate(levels)
        if not pruner.should_prune(running(number, level), curve(level, points))
    }


@given(LEVELS, st.sampled_from([1, 3]))
def test_the_best_third_at_a_rung_goes_on_and_no_other(levels: list[float], rung: int) -> None:
    best = sorted(range(len(levels)), key=levels.__getitem__)[: max(1, len(levels) // 3)]
    assert kept(levels, rung) == set(best)
    assert len(best) <= math.ceil(len(levels) / 3)


@given(LEVELS, st.sampled_from(["asha", "hyperband"]), st.sampled_from([1, 3]))
def test_the_best_is_never_stopped(levels: list[float], pruner: str, rung: int) -> None:
    assert levels.index(min(levels)) in kept(levels, rung, pruner=pruner)


@given(LEVELS, st.sampled_from(["asha", "hyperband"]))
def test_only_the_order_of_values_matters(levels: list[float], pruner: str) -> None:
    stretched = [math.atan(level) + 7 for level in levels]
    assert kept(stretched, 3, pruner=pruner) == kept(levels, 3, pruner=pruner)


@given(LEVELS, st.sampled_from(["asha", "hyperband"]))
def test_minimizing_is_maximizing_the_opposite(levels: list[float], pruner: str) -> None:
    opposite = [-level for level in levels]
    turned = kept(opposite, 3, pruner=pruner, direction="maximize")
    assert turned == kept(levels, 3, pruner=pruner)


@given(LEVELS, st.randoms())
def test_the_order_in_which_trials_arrive_does_not_matter(
    levels: list[float], random: Random
) -> None:
    judged = running(99, 0.5, 3)
    shuffled = random.sample(levels, len(levels))
    first, second = pruner_of(levels), pruner_of(shuffled)
    evaluations = curve(0.5, 3)
    assert first.should_prune(judged, evaluations) == second.should_prune(judged, evaluations)


@given(LEVELS, st.sampled_from(["asha", "hyperband"]), st.sampled_from([1, 3]))
def test_lanes_at_a_rung_are_judged_as_trials_that_reached_it_one_by_one(
    levels: list[float], pruner: str, rung: int
) -> None:
    lanes = [(running(n, level), curve(level, rung)) for n, level in enumerate(levels)]
    stops = pruner_of([], pruner=pruner).judge(lanes)
    assert {n for n, stop in enumerate(stops) if not stop} == kept(levels, rung, pruner=pruner)


def test_a_lane_that_diverged_is_the_worst_and_one_that_stopped_does_not_compete() -> None:
    lanes = [(running(n, float(n)), curve(n, 3)) for n in range(3)]
    over: list[tuple[TrialRecord, dict[int, float]]] = [
        (record_of(n, Outcome.DIVERGED), {}) for n in range(3, 6)
    ]
    stopped = [(running(n, 0.0), curve(0.0, 1)) for n in range(6, 9)]
    judge = pruner_of([]).judge
    assert [*map(bool, judge(lanes))] == [False, True, True]
    assert [*map(bool, judge(lanes + stopped)[:3])] == [False, True, True]
    assert [*map(bool, judge(lanes + over)[:3])] == [False, False, True]


@pytest.mark.parametrize("points", [2, 4, 5, 6, 7, 8])
def test_between_rungs_nobody_is_judged(points: int) -> None:
    assert kept([1.0, 2.0, 3.0, 4.0], points) == {0, 1, 2, 3}


def test_of_few_the_best_goes_on_so_the_first_always_does() -> None:
    assert kept([5.0], 1) == {0}
    assert kept([5.0, 4.0], 1) == {1}
    assert kept([5.0, 4.0, 6.0, 7.0, 8.0], 1) == {1}


def test_level_trials_go_on_together() -> None:
    assert kept([1.0, 1.0, 1.0, 2.0], 1) == {0, 1, 2}


def test_a_nan_is_the_worst() -> None:
    assert kept([math.nan, 1e9, math.inf], 1) == {1}


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_a_diverged_trial_is_the_worst_at_every_rung_after(direction: str) -> None:
    sign = 1.0 if direction == "minimize" else -1.0
    pruner = pruner_of([sign * 1.0], direction=direction)
    pruner._history.add(
        record_of(n, Outcome.DIVERGED, evaluations=curve(sign * -100.0, 1)) for n in range(1, 6)
    )
    # Six others have come to the second rung, five of them diverged on the way.
    assert not pruner.should_prune(running(9, 0), curve(sign * 2.0, 3))
    assert pruner.should_prune(running(9, 0), curve(sign * 2.0, 1))


def test_failed_trials_do_not_compete() -> None:
    pruner = pruner_of([5.0])
    pruner._history.add(record_of(n, Outcome.FAILED, evaluations=curve(0.0, 9)) for n in (1, 2))
    assert not pruner.should_prune(running(3, 4.0), curve(4.0, 1))


def test_defaults_are_no_rivals_and_are_never_stopped() -> None:
    pruner = pruner_of([])
    pruner._history.add([running(0, 1.0, preset="default")])
    assert not pruner.should_prune(running(1, 2.0), curve(2.0, 1))
    assert not pruner.should_prune(running(2, 9.0, preset="default"), curve(9.0, 1))


def test_evaluations_that_another_worker_reports_later_count() -> None:
    pruner = pruner_of([])
    pruner._history.add([record_of(0, Outcome.RUNNING)])
    assert not pruner.should_prune(running(1, 2.0), curve(2.0, 1))
    pruner._history.add([running(0, 1.0, 1)])
    assert pruner.should_prune(running(1, 2.0), curve(2.0, 1))


def test_a_trial_does_not_compete_with_itself() -> None:
    pruner = pruner_of([1.0, 9.0])
    # Its earlier, better attempt is still in the history.
    assert not pruner.should_prune(running(0, 1.0), curve(3.0, 1))


@pytest.mark.parametrize(("evaluations", "expected"), [(1, 0), (2, 0), (3, 1), (4, 1), (8, 1)])
def test_few_evaluations_have_few_rungs(evaluations: int, expected: int) -> None:
    assert len(rungs(evaluations)) == expected


@given(st.integers(2, 7), st.integers(0, 30), st.sampled_from([-1, 0, 1]))
def test_rungs_are_right_at_exact_powers_and_beside_them(eta: int, power: int, beside: int) -> None:
    evaluations = max(1, eta**power + beside)
    whole = max(k for k in range(32) if eta**k <= evaluations)
    assert rungs(evaluations, eta) == tuple(eta**k for k in range(whole))


@pytest.mark.parametrize(("evaluations", "s_max"), [(1, 0), (3, 1), (9, 2), (27, 3), (243, 5)])
def test_there_are_as_many_brackets_as_hyperband_has(evaluations: int, s_max: int) -> None:
    assert len(bracket_sizes(evaluations)) == s_max + 1
    assert len(bracket_sizes(evaluations + 1)) == s_max + 1


def test_bracket_sizes_are_those_of_the_paper() -> None:
    assert bracket_sizes(81) == (81, 34, 15, 8, 5)


@pytest.mark.parametrize("evaluations", [1, 3, 9, 10, 27, 81, 200])
def test_every_round_of_trials_fills_the_brackets(evaluations: int) -> None:
    pruner = HyperbandPruner(evaluations)
    sizes = bracket_sizes(evaluations)
    for start in (0, 17):
        drawn = [pruner.first_rung(number) for number in range(start, start + sum(sizes))]
        assert tuple(drawn.count(bracket) for bracket in range(len(sizes))) == sizes


def test_brackets_are_spread_over_the_first_trials() -> None:
    pruner = HyperbandPruner(9)
    assert {pruner.first_rung(number) for number in range(6)} == {0, 1, 2}


def test_a_bracket_is_judged_from_its_rung_on_and_among_its_own() -> None:
    spec_levels = [float(number) for number in range(17)]
    bracket = [HyperbandPruner(9).first_rung(number) for number in range(17)]
    by_bracket = [[n for n in range(17) if bracket[n] == b] for b in range(3)]
    at_first, at_second = (kept(spec_levels, rung, pruner="hyperband") for rung in (1, 3))
    assert at_first == {*by_bracket[0][:3], *by_bracket[1], *by_bracket[2]}
    assert at_second == {*by_bracket[0][:3], *by_bracket[1][:1], *by_bracket[2]}


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_trial_that_has_reached_its_target_is_the_best_at_every_later_rung(direction: str) -> None:
    sign = 1.0 if direction == "minimize" else -1.0
    study = {"name": "s", "workload": "a:B", "direction": direction, "target": -5.0 * sign}
    spec = make_spec(
        study=study | {"objective": "time_to_target"},
        budget={"trials": 60, "steps": 270, "evaluations": 9},
        search={"pruner": "asha"},
    )
    history = History(spec)
    slow = [curve(sign * level, 3) for level in (1.0, 2.0, 3.0)]
    history.add(
        record_of(number, Outcome.RUNNING, evaluations=points) for number, points in enumerate(slow)
    )
    pruner = Pruner(spec, history)
    stops = [
        pruner.should_prune(record_of(number, Outcome.RUNNING), points)
        for number, points in enumerate(slow)
    ]
    assert stops == [False, True, True]
    reached = record_of(3, Outcome.COMPLETE, value=20.0, evaluations=curve(sign * -6.0, 2))
    history.add([replace(reached, attributes={"reached": "val_loss -5"})])
    assert history.past.best is not None
    assert history.past.best.value == 20.0
    assert pruner.should_prune(record_of(0, Outcome.RUNNING), slow[0])
