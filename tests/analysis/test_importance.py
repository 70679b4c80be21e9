"""Importance is checked on values whose causes are known, and on noise, which has none."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from tests.report.summaries import make_spec, trial
from tuner.analysis.importance import ENOUGH, LEVEL, Among, measure_importance
from tuner.domain.catalog.dimensions import Float, Value
from tuner.domain.spec import StudySpec
from tuner.domain.trials import Outcome, TrialRecord

Values = dict[str, Value]
AXES = {key: {"low": 1e-4, "high": 0.1, "log": True} for key in ("lr", "one_minus_beta1", "eps")}


def spec_of(optimizers: tuple[str, ...] = ("adam", "adamw")) -> StudySpec:
    space = {"breadth": 1, "optimizers": list(optimizers), "schedules": ["constant", "cosine"]}
    return make_spec(space=space, optimizer=dict.fromkeys(optimizers, AXES))


def study_of(
    spec: StudySpec,
    value: Callable[[str, str, list[float], float], float | None],
    count: int,
    seed: int = 0,
) -> list[TrialRecord]:
    """Returns trials drawn evenly, with values made of places on the axes and normal noise."""
    generator = np.random.default_rng(seed)
    records = []
    for number in range(count):
        optimizer = str(generator.choice(spec.space.optimizers))
        schedule = str(generator.choice(spec.space.schedules))
        places = [float(place) for place in generator.random(3)]
        params: Values = {
            f"{optimizer}.{key}": 10 ** (3 * place - 4)
            for key, place in zip(AXES, places, strict=True)
        }
        if schedule == "cosine":
            for key, axis in spec.schedule["cosine"].items():
                if isinstance(axis, Float):
                    params[f"cosine.{key}"] = axis.low + (axis.high - axis.low) * places[0]
        made = value(optimizer, schedule, places, float(generator.standard_normal()))
        outcome = Outcome.DIVERGED if made is None else Outcome.COMPLETE
        records.append(trial(number, optimizer, made, outcome, schedule=schedule, params=params))
    return records


def told(among: Among | None) -> dict[str, float]:
    assert among is not None
    return {share.name: share.share for share in among.shares if share.share is not None}


def inside(spec: StudySpec, records: list[TrialRecord], optimizer: str) -> Among:
    measured = measure_importance(spec, records)
    return next(among for among in measured.inside if among.optimizer == optimizer)


@pytest.mark.parametrize("seed", range(3))
def test_the_hyperparameter_that_matters_is_told_and_the_others_are_not(seed: int) -> None:
    spec = spec_of(("adam",))
    # A bowl along the rate, ten times as deep as the noise.
    records = study_of(spec, lambda o, s, u, e: 10 * (u[0] - 0.4) ** 2 + 0.1 * e, 60, seed)
    found = inside(spec, records, "adam")
    assert list(told(found)) == ["adam.lr"]
    assert told(found)["adam.lr"] > 0.7
    assert measure_importance(spec, records).choice is None


def test_two_that_matter_are_told_in_order() -> None:
    spec = spec_of(("adam",))
    records = study_of(spec, lambda o, s, u, e: 3 * u[0] + 1.5 * u[2] + 0.1 * e, 80)
    assert list(told(inside(spec, records, "adam"))) == ["adam.lr", "adam.eps"]


def test_shares_add_up_to_what_is_explained_at_most() -> None:
    spec = spec_of()
    for seed in range(5):
        records = study_of(spec, lambda o, s, u, e: 2 * u[0] + (s == "cosine") + e, 100, seed)
        measured = measure_importance(spec, records)
        for among in (measured.choice, *measured.inside):
            assert among is not None
            assert among.explained is not None
            assert sum(told(among).values()) <= among.explained + 1e-12 <= 1 + 1e-12


def test_the_choice_of_the_optimizer_is_told_where_it_matters() -> None:
    spec = spec_of()
    records = study_of(spec, lambda o, s, u, e: 3 * (o == "adam") + u[0] + 0.3 * e, 60)
    measured = measure_importance(spec, records)
    assert told(measured.choice)["optimizer"] > 0.6
    assert [among.optimizer for among in measured.inside] == ["adamw", "adam"]  # the better first


def test_what_matters_to_one_optimizer_alone_is_told_of_that_one() -> None:
    spec = spec_of()

    def value(optimizer: str, schedule: str, places: list[float], noise: float) -> float:
        return (5 * places[1] if optimizer == "adam" else 5 * places[0]) + 0.1 * noise

    records = study_of(spec, value, 120)
    assert list(told(inside(spec, records, "adam"))) == ["adam.one_minus_beta1"]
    assert list(told(inside(spec, records, "adamw"))) == ["adamw.lr"]


def test_a_schedule_that_matters_is_told() -> None:
    spec = spec_of(("adam",))
    records = study_of(spec, lambda o, s, u, e: 4 * (s == "cosine") + 0.5 * e, 60)
    assert "schedule" in told(inside(spec, records, "adam"))


def test_trials_that_diverged_count_as_the_worst() -> None:
    spec = spec_of(("adam",))
    records = study_of(spec, lambda o, s, u, e: None if u[0] > 0.6 else 1.0 + e, 60)
    assert "adam.lr" in told(inside(spec, records, "adam"))


def test_noise_has_no_importance_more_often_than_is_said() -> None:
    spec = spec_of()
    studies, of_choice, of_own = 200, 0, 0
    for seed in range(studies):
        measured = measure_importance(spec, study_of(spec, lambda o, s, u, e: e, 48, seed))
        of_choice += bool(told(measured.choice))
        of_own += bool(told(measured.inside[0]))
    # Three standard deviations above the level.
    most = LEVEL * studies + 3 * math.sqrt(LEVEL * (1 - LEVEL) * studies)
    assert of_choice <= most
    assert of_own <= most


def test_few_trials_tell_nothing() -> None:
    spec = spec_of(("adam",))
    records = study_of(spec, lambda o, s, u, e: u[0], ENOUGH - 1)
    found = inside(spec, records, "adam")
    assert (found.explained, found.shares) == (None, ())
    assert inside(spec, [], "adam").trials == 0


def test_what_there_are_too_few_trials_for_is_left_out_and_named() -> None:
    spec = spec_of(("adam",))
    found = inside(spec, study_of(spec, lambda o, s, u, e: u[0] + e, ENOUGH), "adam")
    assert {share.name for share in found.shares} == {"adam.lr", "adam.one_minus_beta1"}
    assert "adam.eps" in found.left_out


def test_equal_values_explain_nothing() -> None:
    spec = spec_of(("adam",))
    assert told(inside(spec, study_of(spec, lambda o, s, u, e: 1.0, 40), "adam")) == {}


def test_defaults_that_have_no_values_of_their_own_do_no_harm() -> None:
    spec = spec_of(("adam",))
    records = study_of(spec, lambda o, s, u, e: 3 * u[0] + 0.1 * e, 40)
    records.append(trial(40, "adam", 0.5, preset="default"))
    assert "adam.lr" in told(inside(spec, records, "adam"))
