from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable
from typing import Any

import numpy as np
import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)
from optuna.samplers import BaseSampler
from optuna.study import StudyDirection
from optuna.testing.pytest_samplers import BasicSamplerTestCase
from optuna.trial import TrialState, create_trial

from tests.search.studies import make_spec, record_of
from tuner.domain.catalog.hyperparameters import LogNormalPrior
from tuner.domain.trials import Outcome
from tuner.search import Proposer
from tuner.search.knowledge import Knowledge, priors_of
from tuner.search.mixture import MixtureSampler

RATE = FloatDistribution(1e-4, 1.0, log=True)
OPTIMIZER = CategoricalDistribution(("sgd", "adam", "muon"))


class TestAsOptunaHasIt(BasicSamplerTestCase):
    @pytest.fixture
    def sampler(self) -> Callable[[], BaseSampler]:
        return MixtureSampler


def study_with(
    *ended: tuple[dict[str, Any], list[float], TrialState],
    direction: StudyDirection = StudyDirection.MINIMIZE,
) -> optuna.Study:
    """Returns a study of trials: parameters, the curve so far, and the state."""
    study = optuna.create_study(direction=direction)
    known: dict[str, BaseDistribution] = {"optimizer": OPTIMIZER, "lr": RATE}
    for params, curve, state in ended:
        study.add_trial(
            create_trial(
                state=state,
                value=curve[-1] if state is TrialState.COMPLETE else None,
                params=params,
                distributions={name: known[name] for name in params},
                intermediate_values=dict(enumerate(curve, 1)),
            )
        )
    return study


def draw(sampler: MixtureSampler, study: optuna.Study, count: int) -> list[dict[str, Any]]:
    found = []
    for _ in range(count):
        trial = study.ask()
        point = {
            name: sampler.sample_independent(study, study.trials[-1], name, axis)
            for name, axis in (("optimizer", OPTIMIZER), ("lr", RATE))
        }
        found.append(point)
        study.tell(trial, state=TrialState.FAIL)
    return found


@st.composite
def distributions(draw: st.DrawFn) -> BaseDistribution:
    kind = draw(st.sampled_from(("float", "log", "step", "int", "log int", "choice")))
    low = draw(st.integers(1, 50))
    high = low + draw(st.integers(0, 50))
    match kind:
        case "float":
            return FloatDistribution(-low, high)
        case "log":
            return FloatDistribution(low / 100, high / 10, log=True)
        case "step":
            return FloatDistribution(low, high, step=0.5)
        case "int":
            return IntDistribution(-low, high)
        case "log int":
            return IntDistribution(low, high, log=True)
    return CategoricalDistribution(tuple(range(low, high + 1)))


@given(
    distributions(),
    st.integers(0, 1000),
    st.lists(st.floats(-5, 5), min_size=0, max_size=12),
    st.sampled_from([None, LogNormalPrior(-2, 0.5), LogNormalPrior(9, 0.1)]),
)
def test_every_value_lies_in_its_distribution(
    distribution: BaseDistribution, seed: int, values: list[float], prior: LogNormalPrior | None
) -> None:
    sampler = MixtureSampler(seed, {"x": prior} if prior else {}, startup=2)
    study = optuna.create_study(sampler=sampler)
    for value in values:
        trial = study.ask({"x": distribution})
        assert distribution._contains(distribution.to_internal_repr(trial.params["x"]))
        study.tell(trial, value)


@given(st.integers(0, 2**32 - 1))
def test_one_seed_draws_alike_and_another_otherwise(seed: int) -> None:
    one, same, other = (
        draw(MixtureSampler(s), study_with(), 5) for s in (seed, seed, (seed + 1) % 2**32)
    )
    assert one == same != other


def test_half_of_the_rates_before_there_are_best_trials_come_from_the_prior() -> None:
    sampler = MixtureSampler(0, {"lr": LogNormalPrior(-2, 0.01)}, evenly=0.25)
    near = [abs(math.log10(p["lr"]) + 2) < 0.05 for p in draw(sampler, study_with(), 400)]
    assert 0.7 < np.mean(near) < 0.8  # nothing to be near to: the rest is even


def test_a_prior_that_does_not_meet_its_range_is_passed_over() -> None:
    sampler = MixtureSampler(0, {"lr": LogNormalPrior(9, 0.1)}, evenly=0.0)
    rates = [math.log10(p["lr"]) for p in draw(sampler, study_with(), 200)]
    assert -4 <= min(rates) < -3 < -1 < max(rates) <= 0


@pytest.mark.parametrize("direction", [StudyDirection.MINIMIZE, StudyDirection.MAXIMIZE])
def test_near_points_share_the_optimizer_of_one_of_the_best_and_move_its_rate(
    direction: StudyDirection,
) -> None:
    sign = 1.0 if direction is StudyDirection.MINIMIZE else -1.0
    trials = [
        ({"optimizer": "sgd", "lr": 0.5}, [sign * (5.0 + n)] * 3, TrialState.COMPLETE)
        for n in range(9)
    ]
    best = ({"optimizer": "adam", "lr": 0.01}, [sign * 1.0] * 3, TrialState.COMPLETE)
    study = study_with(*trials, best, direction=direction)
    points = draw(MixtureSampler(1, evenly=0.0, near=1.0), study, 300)
    chosen = Counter(point["optimizer"] for point in points)
    assert chosen["adam"] > 120 > chosen["muon"] == 0
    moves = [math.log10(p["lr"]) + 2 for p in points if p["optimizer"] == "adam"]
    assert abs(np.mean(moves)) < 0.4
    assert max(map(abs, moves)) < 2.0  # five times a tenth of four decades


def test_near_points_lie_where_those_around_promise_more() -> None:
    worse = [
        ({"optimizer": "adam", "lr": 0.1 * 0.6**n}, [9.0 - n], TrialState.COMPLETE)
        for n in range(9)
    ]
    points = draw(MixtureSampler(1, evenly=0.0, near=1.0), study_with(*worse), 100)
    best = 0.1 * 0.6**8
    assert np.mean([point["lr"] < best for point in points]) > 0.9


def test_points_near_each_other_are_not_drawn_twice_by_those_who_train_side_by_side() -> None:
    ended = [
        ({"optimizer": "adam", "lr": rate}, [value], TrialState.COMPLETE)
        for rate, value in ((0.001, 5.0), (0.01, 1.0), (0.1, 5.0))
    ] * 3
    begun: tuple[dict[str, Any], list[float], TrialState]
    begun = ({"optimizer": "adam", "lr": 0.0105}, [], TrialState.RUNNING)

    def closest(*trials: tuple[dict[str, Any], list[float], TrialState]) -> float:
        points = draw(MixtureSampler(3, evenly=0.0, near=1.0), study_with(*trials), 100)
        return float(np.median([abs(math.log10(point["lr"] / 0.0105)) for point in points]))

    assert closest(*ended, *[begun] * 3) > closest(*ended)


def test_who_got_further_is_better_and_who_diverged_is_worst() -> None:
    further = ({"optimizer": "adam", "lr": 0.1}, [9.0] * 5, TrialState.PRUNED)
    paused = ({"optimizer": "sgd", "lr": 0.1}, [1.0] * 2, TrialState.RUNNING)
    diverged = ({"optimizer": "muon", "lr": 0.1}, [1.0, math.nan], TrialState.PRUNED)
    study = study_with(diverged, paused, further, *[diverged] * 6)
    points = draw(MixtureSampler(2, evenly=0.0, near=1.0), study, 200)
    chosen = Counter(point["optimizer"] for point in points)
    assert chosen["adam"] > chosen["sgd"] > chosen["muon"]


def test_priors_are_those_of_the_catalog_for_what_is_searched() -> None:
    spec = make_spec(space={"optimizers": ["adam", "muon"], "breadth": 1})
    assert set(priors_of(spec)) == {"adam.lr", "muon.lr"}
    fixed = make_spec(space={"optimizers": ["adam"]}, optimizer={"adam": {"lr": 0.1}})
    assert not priors_of(fixed)


@pytest.mark.parametrize("lanes", [1, 2, 8, 64])
def test_cohorts_of_any_size_are_drawn_from_one_past(lanes: int) -> None:
    spec = make_spec(search={"sampler": "mixture"})
    twins = [Proposer(spec, 5, Knowledge((), {})) for _ in range(2)]
    found = []
    for proposer in twins:
        start = proposer.propose_many(9)
        proposer.history.add(
            record_of(n, Outcome.COMPLETE, float(n), {20: float(n)}, trial.params)
            for n, trial in enumerate(start)
        )
        found.append([trial.params for trial in proposer.propose_many(lanes)])
    assert found[0] == found[1]
    assert len({frozenset(point.items()) for point in found[0]}) == lanes
