"""The verdict on finalists: claims, intervals, ties, divergences."""

from __future__ import annotations

import itertools
import json
import random
from dataclasses import asdict, replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import t

from tests.analysis.confirmations import SEEDS, VALUES, arms_of, cut, fields, noisy_arms
from tuner.analysis.arms import Arm
from tuner.analysis.comparisons import compare_arms
from tuner.analysis.looks import LAST_SHARE
from tuner.analysis.race import run_race
from tuner.analysis.verdict import Verdict, judge


def mapped(arms: list[Arm], factor: float, shift: float = 0.0) -> list[Arm]:
    """Returns arms whose values were scaled and shifted."""
    return [
        replace(arm, values=tuple(None if v is None else factor * v + shift for v in arm.values))
        for arm in arms
    ]


def claims(verdict: Verdict) -> set[tuple[int, int]]:
    return {(pair.better, pair.worse) for pair in verdict.comparisons if pair.beats}


def told(verdict: Verdict) -> tuple[object, ...]:
    """Returns what a verdict says beside its numbers."""
    pairs = {(pair.better, pair.worse, pair.seeds, pair.test) for pair in verdict.comparisons}
    standings = {(arm.trial, arm.standing, arm.seeds) for arm in verdict.arms}
    return verdict.winner, verdict.tied, verdict.reason, claims(verdict), standings, pairs


def test_better_arm_is_found_and_wins() -> None:
    verdict = judge(noisy_arms([2, 0]), "minimize")
    assert (verdict.winner, verdict.tied, verdict.reason) == (1, (), "beats")
    assert claims(verdict) == {(1, 0)}
    assert [arm.standing for arm in verdict.arms] == ["winner", "beaten"]


def test_comparison_of_two_arms_is_student_s_t_at_the_share_of_the_last_look() -> None:
    arms = noisy_arms([0.7, 0], spread=0.7)
    pair = judge(arms, "minimize").comparisons[0]
    worse, better = (np.array(arm.values, float) for arm in arms)
    gains = worse - better
    assert pair.seeds == SEEDS
    statistic = gains.mean() / gains.std(ddof=1) * SEEDS**0.5
    assert pair.p == pytest.approx(2 * t.sf(statistic, SEEDS - 1) / LAST_SHARE)
    half = t.ppf(1 - 0.05 * LAST_SHARE / 2, SEEDS - 1) * gains.std(ddof=1) / SEEDS**0.5
    assert pair.interval == pytest.approx((gains.mean() - half, gains.mean() + half))
    assert pair.gain == pytest.approx(gains.mean())
    assert pair.relative is None  # the metric crosses 0


def test_interval_of_a_mean_is_student_s() -> None:
    arm = noisy_arms([5])[0]
    result = judge([arm], "minimize").arms[0]
    values = np.array(arm.values[: result.seeds], float)
    expected = t.interval(0.95, len(values) - 1, values.mean(), values.std(ddof=1) / 5**0.5)
    assert result.interval == pytest.approx(expected)
    assert result.mean == pytest.approx(values.mean())
    assert result.deviation == pytest.approx(values.std(ddof=1))


def test_gain_is_told_as_a_share_of_the_worse_mean_where_all_values_are_above_zero() -> None:
    arms = noisy_arms([100, 110])
    pair = judge(arms, "minimize").comparisons[0]
    worse = np.mean(np.array(arms[1].values[: pair.seeds], float))
    assert pair.gain is not None
    assert pair.interval is not None
    assert pair.relative == pytest.approx(pair.gain / worse)
    assert pair.relative_interval == pytest.approx(tuple(end / worse for end in pair.interval))
    assert judge(mapped(arms, -1.0), "minimize").comparisons[0].relative is None
    assert judge(arms, "maximize").comparisons[0].relative is not None


def test_arms_that_cannot_be_told_apart_are_tied() -> None:
    verdict = judge(noisy_arms([0, 0, 50]), "minimize")
    assert set(verdict.tied) == {0, 1}
    assert verdict.tied[0] == verdict.winner
    assert {arm.trial: arm.standing for arm in verdict.arms}[2] == "beaten"


def test_tie_goes_to_the_simpler_then_to_the_cheaper_arm() -> None:
    # A difference of no account, by turns.
    one = Arm(0, (1.0, 2.0, 1.0, 2.0), cost=5.0, complexity=3)
    two = Arm(1, (1.5, 1.6, 1.5, 1.6), cost=9.0, complexity=2)
    assert (judge([one, two], "minimize").winner, judge([one, two], "minimize").reason) == (
        1,
        "simpler",
    )
    verdict = judge([one, replace(two, complexity=3)], "minimize")
    assert (verdict.winner, verdict.reason) == (0, "cheaper")
    verdict = judge([replace(one, cost=9.0), replace(two, complexity=3)], "minimize")
    assert (verdict.winner, verdict.reason) == (0, "better")
    assert judge([one, replace(one, trial=1)], "minimize").reason == "first"


def test_much_worse_arm_wins_no_tie_for_being_simple() -> None:
    # Three seeds show nothing of a family of pairs, but this is no tie.
    arms = [
        Arm(0, (0.1, 0.12, 0.1), complexity=9),
        Arm(1, (0.5, 0.8, 0.6)),
        Arm(2, (0.5, 0.9, 0.7)),
    ]
    verdict = judge(arms, "minimize")
    assert claims(verdict) == set()
    assert (verdict.winner, verdict.reason) == (0, "better")


def test_arm_that_diverged_is_compared_by_ranks_and_has_no_interval() -> None:
    fine = noisy_arms([0])[0]
    worse = Arm(1, tuple(None if s == 4 else v + 9 for s, v in enumerate(fine.values) if v))
    verdict = judge([fine, worse], "minimize")
    pair = verdict.comparisons[0]
    assert (pair.test, pair.gain, pair.interval, pair.relative) == ("ranks", None, None, None)
    # It is worse on all seeds: 2 of the 2^10 ways to give signs are as clear.
    assert pair.p == pytest.approx(2 / 2**SEEDS / LAST_SHARE)
    assert claims(verdict) == {(0, 1)}
    lost = verdict.arms[1]
    assert (lost.diverged, lost.interval) == (1, None)
    assert lost.mean == pytest.approx(np.mean([v for v in worse.values if v is not None]))


def test_divergence_outweighs_a_better_mean_in_a_tie() -> None:
    fine, other = noisy_arms([0, -0.2])
    once = replace(other, values=(None, *other.values[1:]), complexity=-1)
    verdict = judge([fine, once], "minimize")
    assert (verdict.winner, set(verdict.tied), verdict.reason) == (0, {0, 1}, "diverged")


def test_arm_that_diverged_too_often_is_neither_winner_nor_tied() -> None:
    fine, other = noisy_arms([0, 0])
    often = replace(other, values=(None, 0.0, None, 0.0, None, *other.values[5:]))
    verdict = judge([fine, often], "minimize")
    assert (verdict.winner, verdict.tied, verdict.reason) == (0, (), "diverged")
    assert verdict.arms[1].standing == "diverged"
    assert claims(verdict) == set()


def test_where_all_diverge_or_nothing_is_trained_nobody_wins() -> None:
    verdict = judge(arms_of([None] * SEEDS, [None] * SEEDS), "maximize")
    assert (verdict.winner, verdict.tied, verdict.reason) == (None, (), "none")
    assert [arm.mean for arm in verdict.arms] == [None, None]
    assert judge([], "minimize").winner is None
    untried = judge([Arm(3), Arm(5)], "minimize")
    assert [arm.standing for arm in untried.arms] == ["untried", "untried"]
    assert untried.comparisons[0].test == "none"


def test_equal_differences_are_no_proof_of_any_size() -> None:
    # Without spread Student's t would be infinite, from three seeds of a coarse metric.
    verdict = judge(arms_of([0.5, 0.6, 0.4], [0.7, 0.8, 0.6]), "minimize")
    pair = verdict.comparisons[0]
    assert (pair.test, pair.beats, pair.p, pair.interval) == ("ranks", False, 1.0, None)
    assert pair.gain == pytest.approx(0.2)
    same = judge(arms_of([0.5] * SEEDS, [0.5] * SEEDS), "minimize")
    assert (same.comparisons[0].p, same.arms[0].interval) == (1.0, None)


def test_steps_of_an_accuracy_in_float32_are_equal_differences() -> None:
    # Of 360 samples each arm is always four ahead of the next, but float32 rounds every value.
    hits = np.array([[347, 351, 355], [343, 347, 351]])
    values = (hits / 360).astype(np.float32).astype(float)
    assert len({one - two for one, two in values.T.tolist()}) > 1
    pair = judge(arms_of(*values.tolist()), "maximize").comparisons[0]
    assert (pair.test, pair.beats, pair.p) == ("ranks", False, 1.0)


def test_verdict_may_be_asked_for_after_any_seed() -> None:
    arms = noisy_arms([0, 0.5, 1.0])
    for seeds in range(SEEDS + 1):
        verdict = judge([cut(arm, seeds) for arm in arms], "minimize")
        assert verdict.seeds == seeds
        assert (verdict.winner is None) == (seeds == 0)
        assert all(pair.p == 1 for pair in verdict.comparisons) or seeds >= 3


def test_values_beyond_the_race_do_not_count() -> None:
    arms = noisy_arms([0, 1, 9000, 9000], spread=0.1)
    race = run_race(arms, "minimize")
    used = dict.fromkeys(race.going, race.seeds) | {d.trial: d.seeds for d in race.dropped}
    assert judge([cut(a, used[a.trial]) for a in arms], "minimize") == judge(arms, "minimize")
    assert min(used.values()) == 3


def test_winner_s_interval_allows_for_its_having_been_chosen() -> None:
    generator = np.random.default_rng(1)
    many = arms_of(*generator.standard_normal((8, SEEDS)).tolist())
    verdict = judge(many, "minimize")
    best = verdict.arms[0]
    assert best.mean is not None
    assert best.interval is not None
    low, high = best.interval
    below, above = best.mean - low, high - best.mean
    assert above > 1.2 * below
    # Alone it is no choice, and what seeds do to all arms alike is no luck of one.
    assert best.deviation is not None
    assert below == pytest.approx(t.ppf(0.975, SEEDS - 1) * best.deviation / SEEDS**0.5)
    shared = 100 * generator.standard_normal(SEEDS)
    alike = arms_of(*((np.array(arm.values, float) + shared).tolist() for arm in many))
    best = judge(alike, "minimize").arms[0]
    assert best.mean is not None
    assert best.interval is not None
    assert best.interval[1] - best.mean < 1.1 * (best.mean - best.interval[0])
    # The larger is better: the luck is on the other side.
    grown = judge(mapped(many, -1.0), "maximize").arms[0]
    assert grown.interval == pytest.approx((-high, -low))


def test_verdict_is_plain_enough_for_json() -> None:
    verdict = judge(noisy_arms([0, 0, 50]), "minimize")
    assert json.loads(json.dumps(asdict(verdict), allow_nan=False))["winner"] == verdict.winner


@given(arms=fields(), order=st.randoms(use_true_random=False))
def test_order_of_arms_is_of_no_account(arms: list[Arm], order: random.Random) -> None:
    shuffled = list(arms)
    order.shuffle(shuffled)
    assert judge(shuffled, "minimize") == judge(arms, "minimize")


@given(arms=fields(), factor=st.sampled_from([0.25, 1024.0]), shift=st.sampled_from([0.0, 64.0]))
def test_unit_and_zero_of_the_metric_change_no_claim(
    arms: list[Arm], factor: float, shift: float
) -> None:
    before, after = judge(arms, "minimize"), judge(mapped(arms, factor, shift), "minimize")
    assert told(after) == told(before)
    for mine, theirs in zip(before.comparisons, after.comparisons, strict=True):
        assert theirs.p == pytest.approx(mine.p)
        assert theirs.gain == (None if mine.gain is None else pytest.approx(factor * mine.gain))


@given(arms=fields())
def test_larger_is_better_where_the_metric_is_to_grow(arms: list[Arm]) -> None:
    assert told(judge(mapped(arms, -1.0), "maximize")) == told(judge(arms, "minimize"))


@given(arms=fields(), effects=st.lists(VALUES, min_size=SEEDS, max_size=SEEDS))
def test_what_a_seed_does_to_all_arms_alike_changes_no_comparison(
    arms: list[Arm], effects: list[float]
) -> None:
    moved = [
        replace(
            arm,
            values=tuple(
                None if v is None else v + e for v, e in zip(arm.values, effects, strict=True)
            ),
        )
        for arm in arms
    ]
    before, after = judge(arms, "minimize"), judge(moved, "minimize")
    if any(arm.diverged for arm in before.arms):
        return  # then the means are of different seeds
    assert told(after) == told(before)


@given(arms=fields())
def test_claims_intervals_and_standings_agree(arms: list[Arm]) -> None:
    verdict = judge(arms, "minimize")
    longest = max(arm.seeds for arm in verdict.arms)
    standings = {arm.trial: arm for arm in verdict.arms}
    for pair in verdict.comparisons:
        assert pair.gain is None or pair.gain >= 0
        lost = standings[pair.better].diverged or standings[pair.worse].diverged
        assert lost or pair.gain is not None
        assert (pair.p <= verdict.level) == (pair.beats and not pair.implied)
        assert pair.confidence >= 1 - verdict.level
        if pair.interval is not None:
            assert (pair.interval[0] > 0) == (pair.beats and not pair.implied)
        if pair.beats:
            assert pair.worse != verdict.winner
            assert pair.worse not in verdict.tied
    for trial in verdict.tied or [arm.trial for arm in verdict.arms if arm.standing == "winner"]:
        assert standings[trial].seeds == longest


@given(arms=fields(diverging=False))
def test_claims_follow_from_each_other(arms: list[Arm]) -> None:
    verdict = judge(arms, "minimize")
    found = claims(verdict)
    means = {arm.trial: np.mean(np.array(arm.values, float)) for arm in arms}
    seeds = {arm.trial: arm.seeds for arm in verdict.arms}
    for (a, b), (c, d) in itertools.product(found, found):
        if b == c and seeds[a] == seeds[d] == SEEDS and means[a] < means[d]:
            assert (a, d) in found


def test_what_was_found_early_is_not_lost_later() -> None:
    base = [0.0] * 5
    clear = [1000.0, 1000.01, 1000.02, 1.0, 3000.0]
    verdict = judge(arms_of(base, clear), "minimize")
    assert (claims(verdict), verdict.seeds) == ({(0, 1)}, 5)


def test_what_an_early_look_found_and_the_last_contradicts_is_not_claimed() -> None:
    turned = [1000.0, 1000.01, 1000.02, *([-10000.0, -10001.0] * 3), -10000.0]
    verdict = judge(arms_of([0.0] * SEEDS, turned), "minimize")
    pair = verdict.comparisons[0]
    assert (pair.beats, pair.p, pair.better) == (False, 1.0, 1)
    assert pair.interval is not None
    assert pair.interval[0] <= 0 <= pair.interval[1]


def test_seed_on_which_both_diverged_tells_nothing() -> None:
    fine = replace(noisy_arms([0])[0], values=(None, *([0.5] * (SEEDS - 1))))
    worse = Arm(1, (None, *(0.6 + seed for seed in range(SEEDS - 1))))
    pair = judge([fine, worse], "minimize").comparisons[0]
    assert pair.p == pytest.approx(2 / 2 ** (SEEDS - 1) / LAST_SHARE)


def test_nothing_is_implied_against_what_two_arms_did_themselves() -> None:
    # The first got much better after the last had gone, to which it had lost.
    first = [101.0, 140.0, 99.0, 200.0, 110.0, *([-10000.0, -10001.0] * 2), -10000.0]
    second = [50.0, 50.1] * 5
    last = [100.0, 100.0, 100.1, 100.0, 100.1]
    arms = arms_of(first, second, last)
    compared = compare_arms(arms, "minimize", [10, 10, 5], SEEDS, 0.05)
    found = {(pair.better, pair.worse) for pair in compared.pairs if pair.beats}
    assert found == {(0, 1), (1, 2)}
    assert not compared.beats[0, 2]


def test_interval_of_looks_that_exclude_each_other_lies_between_them() -> None:
    sunk = [1000.0, 1000.01, 1000.02, *([600.0, 590.0] * 3), 600.0]
    pair = compare_arms(arms_of([0.0] * SEEDS, sunk), "minimize", [10, 10], SEEDS, 0.05).pairs[0]
    assert pair.interval is not None
    low, high = pair.interval
    assert 700 < low < high < 1000
    assert pair.beats
