"""Comparisons: every optimizer opens alike, is searched alone, and trains as much."""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from optuna.trial import FrozenTrial
from scipy.stats import kstest

from tests.search.studies import make_spec
from tuner.domain.spec import StudySpec
from tuner.domain.trials import DEFAULT, RANDOM, Outcome, Proposal, TrialRecord, decode
from tuner.errors import ExhaustedError
from tuner.search import Comparer
from tuner.search.comparer import list_openings

OPTIMIZERS = ("sgd", "adam", "muon")

SHARES = st.lists(st.sampled_from([0.0, 0.05, 0.3, 1.0]), min_size=24, max_size=24)


def compare_spec(trials: int = 24, sampler: str = "mixture", **tables: Any) -> StudySpec:
    search = {"mode": "compare", "sampler": sampler, "pruner": "none"}
    budget = {"trials": trials, "steps": 100, "evaluations": 5}
    return make_spec(**({"budget": budget, "search": search} | tables))


def ended(number: int, trial: FrozenTrial, share: float, value: float = 1.0) -> TrialRecord:
    """Returns a trial that has ended after a part of its steps, diverged unless that is all."""
    full = share == 1.0
    return TrialRecord(
        number,
        Outcome.COMPLETE if full else Outcome.DIVERGED,
        Proposal(dict(trial.params), trial.user_attrs.get("preset")),
        value if full else None,
        attributes={"steps": round(100 * share), "total_steps": 100},
    )


def optimizers_of(trials: list[FrozenTrial]) -> list[str]:
    return [trial.params["optimizer"] for trial in trials]


@pytest.mark.parametrize(("sampler", "drawn"), [("mixture", 4), ("random", 7)])
def test_defaults_open_and_then_even_draws_in_turn(sampler: str, drawn: int) -> None:
    openings = Comparer(compare_spec(24, sampler), seed=0).openings()
    assert optimizers_of(openings) == [*OPTIMIZERS] * (1 + drawn)
    presets = [trial.user_attrs["preset"] for trial in openings]
    assert presets == [DEFAULT] * 3 + [RANDOM] * 3 * drawn


def test_all_workers_open_alike_and_a_larger_budget_only_adds() -> None:
    few, more = (list_openings(compare_spec(trials)) for trials in (24, 48))
    assert few == more[: len(few)]
    assert len(more) > len(few)
    a, b = (Comparer(compare_spec(), seed).openings() for seed in (0, 1))
    assert [t.params for t in a] == [t.params for t in b]


def test_another_optimizer_or_seed_changes_the_draws_of_none_or_all() -> None:
    def drawn(spec: StudySpec) -> list[Proposal]:
        return [p for p in list_openings(spec) if p.params["optimizer"] == "adam" and p.preset]

    wider = {"optimizers": ["adam", "nadam", "sgd", "muon"], "breadth": 3}
    assert drawn(compare_spec(24)) == drawn(compare_spec(32, space=wider))
    other = compare_spec(24, search={"mode": "compare", "pruner": "none", "seed": 1})
    assert drawn(compare_spec(24))[1:] != drawn(other)[1:]


def test_even_draws_cover_the_whole_range_of_a_rate() -> None:
    spec = compare_spec(3 * 400, "random")
    axis = spec.axes()["adam.lr"]
    low, high = (math.log(getattr(axis, end)) for end in ("low", "high"))
    rates = [p.params["adam.lr"] for p in list_openings(spec) if "adam.lr" in p.params]
    places = [(math.log(float(rate)) - low) / (high - low) for rate in rates]
    assert kstest(places, "uniform").pvalue > 0.01


@settings(deadline=None, max_examples=25)
@given(
    st.lists(st.sampled_from([0.0, 0.05, 0.3, 1.0]), min_size=24, max_size=24), st.integers(1, 4)
)
def test_no_optimizer_is_ahead_by_more_than_a_trial(shares: list[float], at_once: int) -> None:
    comparer, number = Comparer(compare_spec(12), seed=0), 0
    trained = dict.fromkeys(OPTIMIZERS, 0.0)
    for trial in comparer.openings():
        comparer.learn([ended(number, trial, 1.0)])
        trained[trial.params["optimizer"]] += 1
        number += 1
    for share in shares:
        for trial in comparer.propose_many(at_once):
            comparer.learn([ended(number, trial, share)])
            trained[trial.params["optimizer"]] += share
            number += 1
            # Trials of a cohort are proposed before any of it has diverged.
            assert max(trained.values()) - min(trained.values()) <= 1 + at_once


def test_an_optimizer_whose_trials_diverge_early_gets_more_of_them() -> None:
    comparer = Comparer(compare_spec(24), seed=0)
    started = Counter[str]()
    for number, trial in enumerate(comparer.openings()):
        diverges = trial.params["optimizer"] == "adam"
        comparer.learn([ended(number, trial, 0.1 if diverges else 1.0)])
    for number in range(100, 106):
        trial = comparer.propose()
        started[trial.params["optimizer"]] += 1
        comparer.learn([ended(number, trial, 1.0)])
    # Six trials of it took as much training as a little more than half a trial of the others.
    assert started["adam"] >= 4


def test_an_optimizer_whose_trials_fail_takes_none_of_the_others() -> None:
    comparer = Comparer(compare_spec(24), seed=0)
    started = Counter[str]()
    for number, trial in enumerate([*comparer.openings(), *[None] * 9]):
        following = trial or comparer.propose()
        record = ended(number, following, 1.0)
        if record.optimizer == "adam":
            record = replace(record, outcome=Outcome.FAILED, value=None, attributes={})
        comparer.learn([record])
        started[record.optimizer] += 1
    assert started == {"sgd": 8, "adam": 8, "muon": 8}


def test_proposals_of_an_optimizer_do_not_depend_on_how_others_fare() -> None:
    def proposed(other: float) -> list[dict[str, Any]]:
        comparer = Comparer(compare_spec(24), seed=3)
        for number, trial in enumerate(comparer.openings()):
            mine = trial.params["optimizer"] == "adam"
            comparer.learn([ended(number, trial, 1.0, number / 100 if mine else other * number)])
        drawn = comparer.propose_many(9)
        return [trial.params for trial in drawn if trial.params["optimizer"] == "adam"]

    assert proposed(1.0) == proposed(-1000.0)
    assert len(proposed(1.0)) == 3


def test_trials_of_a_cohort_share_its_fuse_key() -> None:
    sizes = {"batch_size": {"choices": [32, 64]}}
    spec = compare_spec(24, train=sizes)
    comparer = Comparer(spec, seed=0)
    for number, trial in enumerate(comparer.openings()):
        comparer.learn([ended(number, trial, 1.0)])
    drawn = comparer.propose_many(6)
    keys = {decode(spec, Proposal(dict(trial.params))).fuse_key for trial in drawn}
    assert (len(keys), len(drawn) > 1) == (1, True)


def test_it_ends_with_the_first_optimizer_that_has_nothing_left_to_try() -> None:
    rates = {name: {"lr": {"choices": [0.1, 0.2]}} for name in ("sgd", "adam")}
    space = {"optimizers": ["sgd", "adam"], "schedules": ["constant"], "breadth": 1}
    comparer = Comparer(compare_spec(24, optimizer=rates, space=space), seed=0)
    openings = comparer.openings()
    assert len(openings) == 2 + 4  # no point is drawn twice
    for number, trial in enumerate(openings):
        comparer.learn([ended(number, trial, 1.0)])
    with pytest.raises(ExhaustedError, match=r"of (sgd|adam), all 2 configurations"):
        comparer.propose()
    assert comparer.is_exhausted
