"""The family of all pairs: its counts, its claims, and what follows from them."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.analysis.families import adjust, counts_of, follow, levels_of
from tuner.analysis.looks import shares_of
from tuner.analysis.paired_tests import flip_signs, measure_pairs


@pytest.mark.parametrize("arms", [2, 3, 4, 5, 6])
def test_counts_are_those_of_equal_pairs_that_groups_of_equals_allow(arms: int) -> None:
    groups = itertools.product(range(arms), repeat=arms)
    possible = {sum(a == b for a, b in itertools.combinations(group, 2)) for group in groups}
    pairs = arms * (arms - 1) // 2
    expected = [max(n for n in possible if n <= pairs - step) for step in range(pairs)]
    assert list(counts_of(arms)) == expected


@given(p=st.lists(st.floats(0, 1), min_size=6, max_size=6))
def test_adjusted_p_values_lie_between_bonferroni_s_and_none(p: list[float]) -> None:
    adjusted, order = adjust(np.array(p), 4)
    assert all(adjusted >= p)
    assert all(adjusted <= np.minimum(1, 6 * np.array(p)))
    assert all(np.diff(adjusted[order]) >= 0)


@given(planned=st.integers(2, 30))
def test_shares_of_the_error_make_one(planned: int) -> None:
    shares = shares_of(planned)
    assert sum(shares.values()) == pytest.approx(1)
    assert min(shares.values()) > 0
    assert max(shares) == planned


def test_what_beats_the_beater_beats_the_beaten() -> None:
    chain = np.zeros((5, 5), bool)
    for one in range(4):
        chain[one, one + 1] = True
    assert (follow(chain) == np.triu(np.ones((5, 5), bool), 1)).all()


def test_circle_of_claims_implies_nothing() -> None:
    circle = np.roll(np.eye(3, dtype=bool), 1, axis=1)
    assert (follow(circle) == circle).all()


@given(st.lists(st.sampled_from([-2.0, -1.0, 0.0, 1.0, 2.0, 3.0, np.inf, -np.inf]), max_size=8))
def test_signed_ranks_count_all_signs(differences: list[float]) -> None:
    sizes = [abs(d) for d in differences if d]
    ranks = [sum(s < size for s in sizes) + (sizes.count(size) + 1) / 2 for size in sizes]
    signs = list(itertools.product([0, 1], repeat=len(sizes)))
    sums = [sum(r for r, s in zip(ranks, sign, strict=True) if s) for sign in signs]
    seen = sum(r for r, d in zip(ranks, [d for d in differences if d], strict=True) if d > 0)
    far = abs(seen - sum(ranks) / 2)
    expected = np.mean([abs(total - sum(ranks) / 2) >= far for total in sums])
    p, side = flip_signs(differences)
    assert p == pytest.approx(expected)
    assert side == np.sign(seen - sum(ranks) / 2)


def test_pair_without_all_seeds_has_no_test() -> None:
    differences = np.array([[1.0, 2.0, np.nan], [1.0, 2.0, 4.0]])
    tests = measure_pairs(differences, np.zeros(2, bool), np.ones(2))
    assert np.isnan(tests.p).tolist() == [True, False]


def test_pairs_that_were_not_found_share_the_level_of_the_step_that_ended_it() -> None:
    p = np.array([0.024, 0.02, 0.021, 0.001, 0.023, 0.022])
    adjusted, order = adjust(p, 4)
    # Six pairs for the first step, and three at most once one is found.
    levels = levels_of(adjusted, order, 4, 0.05)
    assert levels == pytest.approx([0.05 / 3] * 3 + [0.05 / 6] + [0.05 / 3] * 2)
