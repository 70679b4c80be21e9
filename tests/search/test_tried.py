"""Nothing is tried twice, and a search ends where its space does."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from tests.search.studies import make_spec, record_of
from tuner.domain.catalog.dimensions import Float, Value
from tuner.domain.points import count_configurations, points_of
from tuner.domain.spec import StudySpec
from tuner.domain.trials import PORTFOLIO, RERUN_OF, Outcome, Proposal, TrialRecord, decode
from tuner.errors import ExhaustedError, SpecError
from tuner.search import Proposer
from tuner.search.tried import key_of

OWN = """
import warnings
import optuna

warnings.simplefilter("ignore", optuna.exceptions.ExperimentalWarning)

def grid(seed):
    space = {"sgd.lr": [0.001, 0.01], "batch_size": [16, 32]}
    return optuna.samplers.GridSampler(space, seed=seed % 2**32)

def brute(seed):
    return optuna.samplers.BruteForceSampler(seed=seed % 2**32)

class Quitting(optuna.samplers.RandomSampler):
    def after_trial(self, study, trial, state, values):
        if trial.user_attrs["number"] == 2:
            study.stop()

def quitting(seed):
    return Quitting(seed=seed % 2**32)

class Broken(optuna.samplers.RandomSampler):
    def after_trial(self, study, trial, state, values):
        raise ZeroDivisionError("mine")

def broken(seed):
    return Broken(seed=seed % 2**32)
"""


@pytest.fixture
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    (tmp_path / "finite.py").write_text(OWN)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "finite", raising=False)
    return "finite"


def finite(sampler: str = "tpe", rates: Any = (0.001, 0.01, 0.1), **tables: Any) -> StudySpec:
    tree: dict[str, Any] = {
        "search": {"sampler": sampler},
        "budget": {"trials": 12, "steps": 10},
        "space": {"optimizers": ["sgd"], "schedules": ["constant"]},
        "optimizer": {"sgd": {"lr": {"choices": list(rates)}, "weight_decay": 0.0}},
        "schedule": {"constant": {"warmup": 0.0}},
        "train": {"batch_size": {"choices": [16, 32]}},
    }
    return make_spec(**(tree | tables))


def run(proposer: Proposer, trials: int, cohort: int = 1) -> list[dict[str, Value]]:
    """Runs the openings and then what is proposed, one worker's study, until nothing is left."""
    history = proposer.history
    done: list[dict[str, Value]] = []

    def train(params: dict[str, Value], preset: str | None, attributes: dict[str, Any]) -> None:
        number = len(done)
        for outcome in (Outcome.RUNNING, Outcome.COMPLETE):
            value = float(number) if outcome is Outcome.COMPLETE else None
            record = TrialRecord(
                number, outcome, Proposal(params, preset), value, attributes=attributes
            )
            history.add([record])
        done.append(params)

    for trial in proposer.openings():
        train(trial.params, PORTFOLIO, trial.user_attrs)
    while len(done) < trials:
        try:
            drawn = [proposer.propose()] if cohort == 1 else proposer.propose_many(cohort)
        except ExhaustedError:
            break
        for trial in drawn:
            train(trial.params, None, trial.user_attrs)
    return done


def configs(spec: StudySpec, done: list[dict[str, Value]]) -> list[Any]:
    return [decode(spec, Proposal(params)) for params in done]


@pytest.mark.parametrize("cohort", [1, 4])
@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "gp", "finite:grid", "finite:brute"])
def test_each_configuration_of_a_small_space_is_tried_once_and_then_nothing(
    own: str, sampler: str, cohort: int, portfolio: object
) -> None:
    spec = finite(sampler, (0.001, 0.01))
    proposer = Proposer(spec, 3)

    done = configs(spec, run(proposer, 12, cohort))

    assert len(done) == 4
    assert all(done.count(config) == 1 for config in done)
    with pytest.raises(ExhaustedError, match="all 4 configurations of the space have been tried"):
        proposer.propose()


def test_a_proposal_that_was_dropped_is_no_configuration_lost(own: str) -> None:
    spec = finite(f"{own}:grid", (0.001, 0.01))
    proposer = Proposer(spec, 3)
    for _ in range(9):
        proposer.propose()  # others were started instead
    assert len(run(proposer, 12)) == 4


def test_a_grid_smaller_than_the_space_ends_the_search(own: str, portfolio: object) -> None:
    spec = finite(f"{own}:grid", (0.001, 0.01, 0.005))
    proposer = Proposer(spec, 3)
    assert len(run(proposer, 12)) == 4
    with pytest.raises(ExhaustedError, match="'finite:grid' proposes nothing that has not"):
        proposer.propose()


def test_a_sampler_that_stops_its_study_ends_the_search(own: str) -> None:
    proposer = Proposer(finite(f"{own}:quitting"), 3)
    assert len(run(proposer, 12)) == 3
    with pytest.raises(ExhaustedError, match="through"):
        proposer.propose()


def test_what_a_sampler_raises_as_a_trial_ends_is_said_to_be_its_own(own: str) -> None:
    proposer = Proposer(finite(f"{own}:broken"), 3)
    with pytest.raises(SpecError, match="finite:broken' raised ZeroDivisionError: mine"):
        run(proposer, 12)


def test_one_worker_s_search_of_a_small_space_repeats_exactly(portfolio: object) -> None:
    assert run(Proposer(finite(), 5), 12) == run(Proposer(finite(), 5), 12)


def test_workers_try_nothing_that_another_tries_already() -> None:
    spec = finite()
    first, second = Proposer(spec, 0), Proposer(spec, 1)
    keys = []
    for number in range(5):
        worker = (first, second)[number % 2]
        params = worker.propose().params
        keys.append(key_of(params))
        for other in (first, second):
            other.history.add([record_of(number, Outcome.RUNNING, params=params)])
    assert len(set(keys)) == 5


def test_where_a_loop_draws_its_own_hyperparameters_nothing_is_a_repeat(portfolio: object) -> None:
    spec = finite(rates=(0.001,))
    proposer = Proposer(spec, 0)
    point = {**proposer.openings()[0].params, "width": 8}
    proposer.history.add(
        [
            TrialRecord(
                0,
                Outcome.COMPLETE,
                Proposal(point, PORTFOLIO),
                1.0,
                own_axes={"width": Float(low=1.0, high=9.0)},
            )
        ]
    )
    drawn = [proposer.propose().params["batch_size"] for _ in range(9)]
    assert set(drawn) == {16, 32}
    assert len(proposer.propose_many(6)) == 6


def test_a_trial_run_again_is_told_to_no_sampler(own: str, portfolio: object) -> None:
    proposer = Proposer(finite(f"{own}:broken"), 3)
    again = {RERUN_OF: 0}
    for outcome in (Outcome.RUNNING, Outcome.COMPLETE):
        point = proposer.openings()[0].params | {"sgd.lr": 0.1}
        proposer.history.add(
            [TrialRecord(1, outcome, Proposal(point), 1.0, attributes=again)],
        )
    assert proposer.propose()


def test_proposals_in_a_space_with_a_range_never_end() -> None:
    proposer = Proposer(make_spec(), 0)
    assert len(run(proposer, 40)) == 40


def test_the_points_of_a_space_are_listed_once_each() -> None:
    spec = finite()
    points = list(points_of(spec))
    assert len({key_of(point) for point in points}) == len(points) == 6


@pytest.mark.parametrize(
    ("rates", "trials", "count"),
    [
        ((0.001, 0.01, 0.1), 12, 6),
        ((0.001, 0.01, 0.1), 6, None),  # enough for the budget
        ((0.01, 0.1), 12, 4),
    ],
)
def test_a_space_of_fewer_configurations_than_trials_is_counted(
    rates: tuple[float, ...], trials: int, count: int | None
) -> None:
    spec = finite(rates=rates, budget={"trials": trials, "steps": 10})
    assert count_configurations(spec) == count


def test_a_space_with_a_range_is_not_counted() -> None:
    assert count_configurations(make_spec()) is None


def test_a_space_is_counted_with_what_depends_on_a_choice() -> None:
    spec = finite(
        space={"optimizers": ["sgd", "adam"], "schedules": ["constant"]},
        optimizer={
            "sgd": {"lr": {"choices": [0.1, 0.2]}, "weight_decay": 0.0},
            "adam": {"lr": 0.001, "beta1": 0.9, "beta2": 0.999, "weight_decay": 0.0, "eps": 1e-8},
        },
        train={},
    )
    points = list(points_of(spec))
    assert [point.get("sgd.lr") for point in points] == [0.1, 0.2, None]


@pytest.mark.parametrize("sampler", ["tpe", "random"])
def test_a_space_of_one_configuration_goes_on_where_trials_draw_their_own(
    sampler: str, portfolio: object
) -> None:
    proposer = Proposer(finite(sampler, rates=(0.01,), train={"batch_size": 16}), seed=0)
    with pytest.raises(ExhaustedError):  # asked while the opening trains
        proposer.propose()
    axes = {"width": Float(low=1.0, high=9.0)}
    params = proposer.openings()[0].params
    for number in range(5):
        point = Proposal(params | {"width": 1.0 + number}, None if number else PORTFOLIO)
        done = TrialRecord(number, Outcome.COMPLETE, point, value=1.0, own_axes=axes)
        proposer.history.add([done])
        assert not proposer.is_exhausted
        params = proposer.propose().params
