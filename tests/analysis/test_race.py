"""Races: who goes on, who drops out, and when they are over."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.analysis.confirmations import SEEDS, arms_of, cut, fields, noisy_arms
from tuner.analysis.arms import Arm
from tuner.analysis.race import ENOUGH, Drop, Race, run_race
from tuner.domain.study_section import Direction


def step_by_step(arms: list[Arm], protected: tuple[int, ...] = ()) -> tuple[Race, list[Arm]]:
    """Runs a race that gets only the values that it asks for; returns its end and those."""
    have = [cut(arm, 0) for arm in arms]
    while True:
        race = run_race(have, "minimize", protected=protected)
        if race.settled:
            return race, have
        have = [
            cut(full, race.until) if arm.trial in race.going else arm
            for arm, full in zip(have, arms, strict=True)
        ]


def test_all_arms_begin_with_three_seeds() -> None:
    race = run_race([Arm(4), Arm(7), Arm(9)], "minimize")
    assert race == Race((4, 7, 9), until=3, seeds=0, dropped=(), end=None)
    part = [Arm(4, (1.0, 2.0, 3.0)), Arm(7, (1.0,)), Arm(9)]
    assert run_race(part, "minimize").until == 3


def test_clearly_beaten_arms_drop_out_and_the_best_two_go_on() -> None:
    arms = noisy_arms([0, 1, 9000, 9000], spread=0.1)
    race = run_race([cut(arm, 3) for arm in arms], "minimize")
    assert set(race.going) == {0, 1}
    assert race.dropped == (Drop(2, 3, "beaten"), Drop(3, 3, "beaten"))
    assert (race.until, race.settled) == (4, False)


def test_arms_that_cannot_be_told_apart_train_on_all_seeds() -> None:
    race = run_race(noisy_arms([0, 0, 0]), "minimize")
    assert (race.end, race.seeds, race.until, race.dropped) == ("seeds", SEEDS, SEEDS, ())


def test_race_is_over_once_one_arm_is_left_but_not_before_five_seeds() -> None:
    arms = noisy_arms([0, 9000], spread=0.1)
    for seeds in (3, 4):
        race = run_race([cut(arm, seeds) for arm in arms], "minimize")
        assert (race.going, race.end) == ((0, 1), None)
    race = run_race(arms, "minimize")
    assert (race.going, race.seeds, race.end) == ((0,), ENOUGH, "settled")


def test_protected_arm_gets_five_seeds() -> None:
    arms = noisy_arms([0, 1, 9000, 9000], spread=0.1)
    dropped = {drop.trial: drop.seeds for drop in run_race(arms, "minimize", protected=[3]).dropped}
    assert (dropped[2], dropped[3]) == (3, ENOUGH)


def test_arm_that_diverges_on_half_of_its_seeds_drops_out() -> None:
    fine, other = noisy_arms([0, 0])
    often = Arm(2, (None, 0.0, math.nan, *([0.0] * 7)))
    once = Arm(3, (None, *fine.values[1:]))
    race = run_race([fine, other, often, once], "minimize")
    assert race.dropped == (Drop(2, 3, "diverged"),)
    assert 3 in race.going


def test_where_all_arms_diverge_none_drops_out() -> None:
    race = run_race(arms_of([None] * SEEDS, [None] * SEEDS, [None] * SEEDS), "minimize")
    assert (len(race.going), race.end) == (3, "seeds")


def test_race_ends_before_the_seed_that_would_cost_too_much() -> None:
    arms = [replace(cut(arm, 4), cost=10.0) for arm in noisy_arms([0, 0])]
    assert run_race(arms, "minimize", budget=100.0).end is None
    over = run_race(arms, "minimize", budget=99.0)
    assert (over.end, over.settled, over.seeds, over.until) == ("cost", True, 4, 4)


def test_dropped_arms_cost_only_the_seeds_that_they_had() -> None:
    arms = [replace(arm, cost=10.0) for arm in noisy_arms([0, 1, 9000], spread=0.1)]
    part = [cut(arms[0], 4), cut(arms[1], 4), cut(arms[2], 3)]
    assert run_race(part, "minimize", budget=130.0).end is None
    assert run_race(part, "minimize", budget=129.0).end == "cost"


def test_single_arm_trains_on_five_seeds_and_none_on_nothing() -> None:
    arm = noisy_arms([0])[0]
    assert run_race([cut(arm, 4)], "minimize").until == ENOUGH
    assert run_race([arm], "minimize").end == "settled"
    assert run_race([], "minimize").end == "settled"


def test_fewer_planned_seeds_end_a_race_earlier() -> None:
    race = run_race(noisy_arms([0, 0], seeds=2), "minimize", planned=2)
    assert (race.seeds, race.end) == (2, "seeds")


@given(arms=fields(), protected=st.sets(st.integers(0, 1)))
def test_race_asks_for_what_it_judges_by(arms: list[Arm], protected: set[int]) -> None:
    end, have = step_by_step(arms, tuple(protected))
    assert end == run_race(arms, "minimize", protected=protected)
    counts = {arm.trial: len(arm.values) for arm in have}
    assert all(counts[trial] == end.seeds for trial in end.going)
    assert all(counts[drop.trial] == drop.seeds for drop in end.dropped)
    assert sum(count >= ENOUGH for count in counts.values()) >= 2
    assert all(counts[trial] >= ENOUGH for trial in protected)


@given(arms=fields(), order=st.randoms(use_true_random=False))
def test_order_of_arms_is_of_no_account(arms: list[Arm], order: random.Random) -> None:
    shuffled = list(arms)
    order.shuffle(shuffled)
    assert run_race(shuffled, "minimize") == run_race(arms, "minimize")


@given(arms=fields())
def test_larger_is_better_where_the_metric_is_to_grow(arms: list[Arm]) -> None:
    turned = [
        replace(arm, values=tuple(None if v is None else -v for v in arm.values)) for arm in arms
    ]
    assert run_race(turned, "maximize") == run_race(arms, "minimize")


@pytest.mark.parametrize(
    ("arms", "direction", "planned", "protected", "says"),
    [
        ([Arm(1)], "down", 10, (), "direction = 'down'"),
        ([Arm(1)], "minimize", 1, (), "planned = 1"),
        ([Arm(1), Arm(1)], "minimize", 10, (), "trial 1 is two arms"),
        ([Arm(1, (0.0,) * 4)], "minimize", 3, (), "trial 1 has 4 values, but 3 seeds"),
        ([Arm(1)], "minimize", 10, (5,), "trial 5 is protected but no arm"),
    ],
)
def test_arguments_that_make_no_sense_are_refused(
    arms: list[Arm], direction: Direction, planned: int, protected: tuple[int, ...], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        run_race(arms, direction, planned=planned, protected=protected)


def test_values_of_an_arm_that_dropped_out_do_not_help_others() -> None:
    # The last two differ clearly, but only after they have gone. If that counted, fewer pairs
    # would be left, and the first two would be told apart.
    lead = [0.823 + (1 if seed % 2 == 0 else -1) for seed in range(SEEDS)]
    far = [5000.0, 5000.01, 4999.99, *([5000.0] * 7)]
    apart = [0.001, -0.001, 0.0005, *([0.05, 0.051] * 3), 0.05]
    farther = [value + more for value, more in zip(far, apart, strict=True)]
    arms = arms_of([0.0] * SEEDS, lead, far, farther)
    race = run_race(arms, "minimize")
    assert {drop.trial for drop in race.dropped} == {2, 3}
    assert (race.going, race.end) == ((0, 1), "seeds")


def test_in_a_comparison_arms_stay_until_they_are_told_apart_from_all_that_go_on() -> None:
    arms = noisy_arms([0, 9000, 9000, 20000], spread=0.1)
    beaten = run_race(arms, "minimize")
    assert beaten.going == (0,)
    race = run_race(arms, "minimize", compares=True)
    assert race.dropped[0] == Drop(3, 3, "beaten")
    assert set(race.going) == {0, 1, 2}
    assert race.end == "seeds"


@given(fields())
def test_a_comparison_drops_no_arm_that_a_race_for_the_winner_keeps(arms: list[Arm]) -> None:
    winner, pairs = (run_race(arms, "minimize", compares=compares) for compares in (False, True))
    assert {drop.trial for drop in pairs.dropped[:1]} <= {drop.trial for drop in winner.dropped}
    assert pairs.seeds >= winner.seeds


def test_an_arm_that_the_leader_alone_beats_stays_until_the_leader_beats_all() -> None:
    # The second and third are alike; the leader beats the third before it beats the second.
    arms = arms_of([0, 1, 0, 1, 0, 1], [9, 5, 9, 2, 5, 6], [6, 7, 6, 7, 6, 7])
    alone = run_race([cut(arm, 4) for arm in (arms[0], arms[2])], "minimize")
    three = run_race([cut(arm, 4) for arm in arms], "minimize")
    assert three.dropped == ()
    assert set(three.going) == {0, 1, 2}
    assert alone.going == (0, 2)  # the best two go on to five seeds
    assert alone.until == 5
