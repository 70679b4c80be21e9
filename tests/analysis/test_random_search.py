"""Random search over a range: bands hold the truth as often as they say, whatever the values."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import binomtest

from tuner.analysis.random_search import LEAST_DRAWS, EvenDraws, RandomCurve, to_share

# Eighths, so that many are equal; None for a divergence.
VALUES = st.none() | st.integers(-80, 80).map(lambda number: number / 8)
DRAWS = st.lists(VALUES, min_size=LEAST_DRAWS, max_size=12)


def costs(edge: Sequence[float | None]) -> list[float]:
    """Returns an edge of a band as numbers to be small; no value is worse than any."""
    return [np.inf if value is None else value for value in edge]


def better_edge(curve: RandomCurve) -> list[float]:
    """Returns the better edge of a band, without a bound where it is open."""
    opens = curve.open_from or len(curve.best) + 1
    edge = enumerate(costs(curve.best), start=1)
    return [-np.inf if n >= opens else cost for n, cost in edge]


def curve_of(values: Sequence[float | None]) -> RandomCurve:
    curve = EvenDraws(tuple(values), "minimize").curve
    assert curve is not None
    return curve


@settings(max_examples=50)
@given(DRAWS)
def test_more_trials_are_never_worse(values: list[float | None]) -> None:
    curve = curve_of(values)
    better, worse = better_edge(curve), costs(curve.worst)
    for edge in (better, costs(curve.median), worse):
        assert all(later <= earlier for earlier, later in itertools.pairwise(edge))
    assert len(curve.median) == len(values)
    rows = zip(better, costs(curve.median), worse, strict=True)
    assert all(low <= middle <= high for low, middle, high in rows)


@settings(max_examples=50)
@given(DRAWS.flatmap(lambda values: st.tuples(st.just(values), st.permutations(values))))
def test_the_order_of_the_draws_changes_nothing(
    drawn: tuple[list[float | None], list[float | None]],
) -> None:
    given_, permuted = drawn
    assert curve_of(given_) == curve_of(permuted)


@settings(max_examples=50)
@given(DRAWS)
def test_a_metric_that_is_to_be_large_has_the_mirrored_curve(values: list[float | None]) -> None:
    mirrored = [None if value is None else -value for value in values]
    found, other = curve_of(values), EvenDraws(tuple(mirrored), "maximize").curve
    assert other is not None
    for name in ("median", "best", "worst"):
        edges = zip(getattr(found, name), getattr(other, name), strict=True)
        assert all((a is None and b is None) or a == -b for a, b in edges)
    assert found.open_from == other.open_from


def quantile(kind: str, share: float) -> float:
    """Returns the value below which a share of a made-up range lies."""
    if kind == "ties":  # three in ten points are good, and all alike
        return 0.0 if share <= 0.3 else 1.0
    if kind == "diverging":  # from six in ten on
        return share if share <= 0.6 else np.inf
    return share


@pytest.mark.parametrize(
    ("kind", "draws", "studies"),
    [
        ("even", 12, 1000),
        ("ties", 12, 1000),
        ("diverging", 12, 1000),
        ("even", 80, 300),  # beyond what is simulated
    ],
)
def test_bands_hold_the_truth_as_often_as_they_say(kind: str, draws: int, studies: int) -> None:
    trials = np.arange(1, draws + 1)
    truth = np.array([quantile(kind, share) for share in 1 - 0.5 ** (1 / trials)])
    # Another range: good points are half as frequent.
    other = np.array([quantile(kind, share) for share in 2 * (1 - 0.5 ** (1 / trials))])
    generator = np.random.default_rng(0)
    held = told_apart = 0
    for shares in generator.random((studies, draws)):
        reached = [quantile(kind, share) for share in shares]
        curve = curve_of([value if np.isfinite(value) else None for value in reached])
        low, high = np.array(better_edge(curve)), np.array(costs(curve.worst))
        held += bool(np.all((low <= truth) & (truth <= high)))
        told_apart += not np.all((low <= other) & (other <= high))
    assert held >= 0.94 * studies
    if kind == "even":
        assert held <= 0.995 * studies  # it is no wider than it need be
        assert told_apart >= 0.5 * studies


@pytest.mark.parametrize("values", [[], [0.5], [None]])
def test_fewer_than_two_draws_have_no_band(values: list[float | None]) -> None:
    assert EvenDraws(tuple(values), "minimize").curve is None


def test_draws_that_all_diverged_reach_nothing_and_set_no_bound() -> None:
    curve = curve_of([None] * 6)
    assert set(curve.median) == set(curve.best) == set(curve.worst) == {None}
    assert curve.open_from is not None


@given(st.integers(1, 300).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))))
def test_shares_have_the_exact_interval_of_a_binomial(counted: tuple[int, int]) -> None:
    share = to_share(*counted)
    assert share is not None
    expected = binomtest(*counted).proportion_ci(0.95, method="exact")
    assert share.low == pytest.approx(expected.low, abs=1e-9)
    assert share.high == pytest.approx(expected.high, abs=1e-9)
    assert share.low <= share.share <= share.high


def test_no_trials_have_no_share() -> None:
    assert to_share(0, 0) is None
