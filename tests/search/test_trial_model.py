from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from tuner.search.trial_model import TrialModel, normal_scores
from tuner.search.unit_cube import Vector

SPACE = {
    "lr": FloatDistribution(1e-4, 1.0, log=True),
    "schedule": CategoricalDistribution(("constant", "cosine")),
    "period": IntDistribution(1, 9),
}


def model(*rates: float, **others: Any) -> TrialModel:
    """Returns a model of trials by their rates, the best first."""
    points = [{"lr": rate, "schedule": "cosine", **others} for rate in rates]
    return TrialModel(SPACE, points, normal_scores(len(rates)))


def at(*rates: float, schedule: str = "cosine") -> dict[str, Vector]:
    """Returns the places of points by their rates."""
    choice = 0.25 if schedule == "constant" else 0.75
    lr = 1 + np.log10(rates) / 4
    return {"lr": lr, "schedule": np.full(len(rates), choice)}


def test_more_is_expected_near_the_best_than_near_the_worst() -> None:
    good, bad = model(0.1, 0.09, 0.11, 0.001, 0.0009, 0.0011).expect(at(0.1, 0.001), best=-1.4)
    assert good > 10 * bad > 0


def test_of_two_gaps_between_trials_more_is_expected_of_the_wider_one() -> None:
    wide, narrow = model(0.01, 0.1, 0.09).expect(at(0.5, 0.095), best=-1.0)
    assert wide > narrow


def test_where_a_trial_has_just_begun_less_is_expected() -> None:
    own = model(0.1, 0.05, 0.001)
    [before] = own.expect(at(0.2), best=-1.0)
    own.believe({"lr": 0.2, "schedule": "cosine"})
    [after] = own.expect(at(0.2), best=-1.0)
    assert after < before


def test_another_choice_makes_trials_tell_less_of_a_point() -> None:
    own = model(0.1, 0.1, 0.1, 0.1)
    [same] = own.expect(at(0.1), best=-2.0)
    [other] = own.expect(at(0.1, schedule="constant"), best=-2.0)
    assert other > same


@given(
    st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=30),
    st.lists(st.floats(1e-4, 1.0), min_size=1, max_size=10),
    st.booleans(),
)
def test_what_is_expected_is_a_gain_also_of_equal_trials_and_of_missing_values(
    rates: list[float], others: list[float], has_period: bool
) -> None:
    own = model(*rates, **({"period": 3} if has_period else {}))
    for rate in others:
        own.believe({"lr": rate})
    gains = own.expect({"lr": at(*others)["lr"]}, best=float(normal_scores(len(rates))[0]))
    assert gains.shape == (len(others),)
    assert np.all(np.isfinite(gains))
    assert np.all(gains >= 0)


@pytest.mark.parametrize("count", [1, 2, 7, 100])
def test_normal_scores_rise_and_are_symmetric(count: int) -> None:
    scores = normal_scores(count)
    assert np.all(np.diff(scores) > 0)
    assert np.allclose(scores, -scores[::-1])
