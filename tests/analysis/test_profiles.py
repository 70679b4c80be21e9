from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.analysis.profiles import (
    MOST_TAU,
    TAUS,
    Floats,
    compare_speed,
    profile_of,
    ratios_of,
    score_all,
    score_of,
)

INF = math.inf

# Powers of two, so that ratios are exact whatever they are scaled by.
COSTS = st.one_of(st.integers(-6, 6).map(lambda power: 2.0**power), st.just(INF))


@st.composite
def matrices(draw: st.DrawFn) -> Floats:
    rows, columns = draw(st.integers(1, 5)), draw(st.integers(2, 5))
    row = st.lists(COSTS, min_size=columns, max_size=columns)
    return np.array(draw(st.lists(row, min_size=rows, max_size=rows)))


@given(matrices(), st.lists(st.integers(-8, 8), min_size=5, max_size=5))
def test_the_unit_of_a_workload_s_cost_does_not_matter(costs: Floats, powers: list[int]) -> None:
    scaled = costs * 2.0 ** np.array(powers[: len(costs)])[:, None]
    assert (ratios_of(scaled) == ratios_of(costs)).all()
    for one, other in zip(compare_speed(scaled, 0), compare_speed(costs, 0), strict=True):
        assert (one.both, one.missed) == (other.both, other.missed)
        assert one.factor == pytest.approx(other.factor)


@given(matrices())
def test_a_profile_grows_with_tau_and_lies_between_0_and_1(costs: Floats) -> None:
    ratios = ratios_of(costs)
    profiles = [profile_of(ratios, tau) for tau in TAUS]
    assert all((below <= above).all() for below, above in pairwise(profiles))
    assert (profiles[0] >= 0).all()
    assert (profiles[-1] <= 1).all()


@given(matrices())
def test_whoever_is_fastest_anywhere_has_a_share_at_1_and_a_score(costs: Floats) -> None:
    ratios = ratios_of(costs)
    fastest = {int(row.argmin()) for row in costs if np.isfinite(row).any()}
    for column in fastest:
        assert profile_of(ratios, 1)[column] > 0
        assert score_of(ratios)[column] > 0


@given(matrices())
def test_the_score_is_the_area_under_the_profile(costs: Floats) -> None:
    ratios = ratios_of(costs)
    ends = np.unique(np.append(ratios[np.isfinite(ratios)], [1.0, MOST_TAU]))
    ends = ends[(ends >= 1) & (ends <= MOST_TAU)]
    area = sum(profile_of(ratios, low) * (high - low) for low, high in pairwise(ends))
    assert score_of(ratios) == pytest.approx(area / (MOST_TAU - 1))


@given(matrices())
def test_the_baseline_is_as_fast_as_itself(costs: Floats) -> None:
    own = compare_speed(costs, 1)[1]
    assert own.factor in (None, 1)
    assert (own.factor is None) == (own.both == 0)
    assert own.missed == own.alone == 0


@given(matrices())
def test_every_workload_is_counted_once(costs: Floats) -> None:
    for speedup in compare_speed(costs, 0):
        counts = speedup.both + speedup.missed + speedup.alone + speedup.neither
        assert counts == len(costs)


@given(matrices(), st.randoms(use_true_random=False))
def test_the_order_of_workloads_and_of_optimizers_does_not_matter(
    costs: Floats, random: object
) -> None:
    rows, columns = list(range(costs.shape[0])), list(range(costs.shape[1]))
    random.shuffle(rows)  # type: ignore[attr-defined]
    random.shuffle(columns)  # type: ignore[attr-defined]
    names = [f"optimizer {column}" for column in range(costs.shape[1])]
    shuffled = score_all(costs[rows][:, columns], [names[c] for c in columns], names[0])
    found = {score.optimizer: score for score in score_all(costs, names, names[0])}
    for score in shuffled:
        assert score.area == pytest.approx(found[score.optimizer].area)
        assert score.profile == pytest.approx(found[score.optimizer].profile)
        assert score.speedup.factor == pytest.approx(found[score.optimizer].speedup.factor)


def test_a_small_suite_is_scored_by_hand() -> None:
    costs = np.array([[100.0, 200.0, INF], [50.0, 200.0, 100.0], [INF, 30.0, INF]])
    first, second, third = score_all(costs, ["a", "b", "c"], "b")
    # a: ratios 1, 1, inf; b: 2, 4, 1; c: inf, 2, inf
    assert [score.optimizer for score in (first, second, third)] == ["a", "b", "c"]
    assert first.area == pytest.approx(2 / 3)
    assert second.area == pytest.approx((2 / 3 + 0 + 1) / 3)
    assert third.area == pytest.approx(2 / 9)
    assert dict(second.profile) == pytest.approx({1: 1 / 3, 1.5: 1 / 3, 2: 2 / 3, 3: 2 / 3, 4: 1})
    assert first.speedup.factor == pytest.approx(math.sqrt(8))
    assert (first.speedup.both, first.speedup.missed) == (2, 1)
    assert (third.speedup.factor, third.speedup.both, third.speedup.missed) == (2, 1, 2)


def test_an_optimizer_that_shares_no_target_with_the_baseline_has_no_speed_up() -> None:
    speedup = compare_speed(np.array([[INF, 5.0], [5.0, INF]]), 0)[1]
    assert (speedup.factor, speedup.missed, speedup.alone) == (None, 1, 1)


def test_a_target_that_all_miss_gives_nobody_anything() -> None:
    (row,) = ratios_of(np.array([[INF, INF]]))
    assert row.tolist() == [INF, INF]
    assert score_of(np.array([[INF, INF]])).tolist() == [0, 0]


@pytest.mark.parametrize("cost", [0.0, -1.0, math.nan])
def test_a_cost_that_is_not_above_0_is_refused(cost: float) -> None:
    with pytest.raises(ValueError, match="not above 0"):
        ratios_of(np.array([[1.0, cost]]))
