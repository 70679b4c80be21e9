from __future__ import annotations

import dataclasses
import math
from datetime import datetime
from typing import cast

import numpy as np
import pytest
from optuna.trial import TrialState

from tests.search.studies import make_spec, record_of
from tuner.domain.catalog.dimensions import Int
from tuner.domain.trials import Outcome, TrialRecord
from tuner.search import History, Proposer
from tuner.search.samplers import build_sampler

ENDINGS = [
    (Outcome.COMPLETE, 0.5, TrialState.COMPLETE),
    (Outcome.PRUNED, 0.5, TrialState.PRUNED),
    (Outcome.DIVERGED, 0.5, TrialState.PRUNED),
    (Outcome.DIVERGED, None, TrialState.PRUNED),
    (Outcome.FAILED, None, TrialState.FAIL),
]
CURVE = {20: 0.9, 40: 0.5}


@pytest.mark.parametrize(("outcome", "value", "state"), ENDINGS)
def test_a_finished_trial_is_seen_as_optuna_sees_it(
    outcome: Outcome, value: float | None, state: TrialState
) -> None:
    history = History(make_spec())
    history.add([record_of(0, outcome, value, CURVE)])
    (trial,) = history.study.trials
    assert trial.state == state
    assert trial.params == {"optimizer": "sgd", "schedule": "constant", "sgd.lr": 0.01}
    assert {step: trial.intermediate_values[step] for step in CURVE} == CURVE
    assert trial.value == value


@pytest.mark.parametrize(("outcome", "value", "state"), ENDINGS)
def test_a_trial_that_was_seen_running_ends_as_one_that_was_not(
    outcome: Outcome, value: float | None, state: TrialState
) -> None:
    finished = record_of(0, outcome, value, CURVE)
    watched, late = History(make_spec()), History(make_spec())
    watched.add([record_of(0, Outcome.RUNNING)])
    watched.add([finished])
    late.add([finished])
    (a,), (b,) = watched.study.trials, late.study.trials
    assert (a.state, a.values, a.params) == (b.state, b.values, b.params)
    assert str(a.intermediate_values) == str(b.intermediate_values)


def test_a_running_trial_gains_evaluations() -> None:
    history = History(make_spec())
    history.add([record_of(0, Outcome.RUNNING)])
    history.add([record_of(0, Outcome.RUNNING, evaluations={20: 0.9})])
    history.add([record_of(0, Outcome.RUNNING, evaluations=CURVE)])
    (trial,) = history.study.trials
    assert trial.state == TrialState.RUNNING
    assert trial.intermediate_values == CURVE


def test_a_diverged_trial_ends_in_a_nan_behind_its_last_evaluation() -> None:
    history = History(make_spec())
    history.add([record_of(0, Outcome.DIVERGED, 0.5, CURVE), record_of(1, Outcome.DIVERGED)])
    curves = [trial.intermediate_values for trial in history.study.trials]
    assert list(curves[0]) == [20, 40, 41]
    assert math.isnan(curves[0][41])
    assert math.isnan(curves[1][1])


def test_every_trial_is_counted_once() -> None:
    history = History(make_spec())
    assert history.count == 0
    history.add([record_of(0, Outcome.RUNNING), record_of(1, Outcome.RUNNING)])
    history.add([record_of(1, Outcome.COMPLETE, 0.5), record_of(2, Outcome.FAILED)])
    assert history.count == len(history.study.trials) == 3


def test_number_that_starts_anew_is_another_trial() -> None:
    history = History(make_spec())
    early, late = datetime(2026, 1, 1), datetime(2026, 1, 2)  # noqa: DTZ001 (as Optuna has them)
    history.add([record_of(0, value=0.5), record_of(1, Outcome.RUNNING, params={"sgd.lr": 0.1})])
    history.add([dataclasses.replace(record_of(0, value=0.25), started_at=early)])
    history.add([dataclasses.replace(record_of(1, value=0.75), started_at=late)])
    assert [trial.state for trial in history.study.trials] == [
        TrialState.COMPLETE,
        TrialState.FAIL,
        TrialState.COMPLETE,
        TrialState.COMPLETE,
    ]
    assert [history.study.trials[index].value for index in (0, 2, 3)] == [0.5, 0.25, 0.75]
    assert history.study.trials[3].params["sgd.lr"] == 0.01
    assert history.count == 2


def test_trials_may_arrive_in_any_order() -> None:
    history = History(make_spec())
    history.add([record_of(5, Outcome.COMPLETE, 0.5), record_of(2, Outcome.RUNNING)])
    history.add([record_of(2, Outcome.COMPLETE, 0.25)])
    assert sorted(cast("float", trial.value) for trial in history.study.trials) == [0.25, 0.5]


@pytest.mark.parametrize("direction", ["minimize", "maximize"])
def test_the_direction_is_the_study_s(direction: str) -> None:
    spec = make_spec(study={"name": "s", "workload": "a:B", "direction": direction})
    history = History(spec)
    history.add([record_of(0, value=1.0), record_of(1, value=2.0)])
    assert history.study.best_value == {"minimize": 1.0, "maximize": 2.0}[direction]


def test_a_record_is_not_changed_by_being_added() -> None:
    record = record_of(0, Outcome.DIVERGED, 0.5, dict(CURVE))
    copy: TrialRecord = dataclasses.replace(record, evaluations=dict(CURVE))
    History(make_spec()).add([record])
    assert record == copy


def test_a_hyperparameter_asked_for_while_a_trial_runs_is_taken_in() -> None:
    history = History(make_spec())
    history.add([record_of(0, Outcome.RUNNING)])
    ended = dataclasses.replace(
        record_of(0, Outcome.COMPLETE, 0.5, CURVE, {"width": 3}),
        own_axes={"width": Int(low=1, high=9)},
    )
    history.add([ended])
    for study in (history.study, history.asked):
        assert study.trials[0].params["width"] == 3


def test_what_a_sampler_noted_with_a_trial_is_given_back_to_it() -> None:
    history = History(make_spec())
    record = record_of(0, value=0.5)
    history.add([dataclasses.replace(record, attributes={"sampler": {"generation": 4}})])
    assert history.asked.trials[0].system_attrs == {"generation": 4}


def test_the_best_trial_of_the_past_is_the_complete_one_with_the_best_value() -> None:
    for direction, best in (("minimize", 3), ("maximize", 2)):
        history = History(make_spec(study={"name": "s", "workload": "a:B", "direction": direction}))
        history.add(
            [
                record_of(0, Outcome.PRUNED, -9.0, CURVE),
                record_of(1, Outcome.PRUNED, 99.0, CURVE),
                record_of(2, value=5.0),
                record_of(3, value=1.0),
                record_of(4, value=1.0),  # no better than the one before
                record_of(5, Outcome.FAILED),
                record_of(6, Outcome.DIVERGED, 0.0),
                record_of(7, Outcome.RUNNING, evaluations={20: -1.0}),
            ]
        )
        found = history.past.best
        assert found is not None
        assert found.user_attrs["number"] == best


def test_samplers_learn_from_a_paused_trial_as_from_a_pruned_one_while_it_is_paused() -> None:
    history = History(make_spec(), build_sampler(make_spec(), 0))
    going = record_of(0, Outcome.RUNNING, None, {10: 2.0, 20: 1.0})
    history.add([going, record_of(1, Outcome.RUNNING, None, {10: 3.0})])

    def states() -> list[TrialState]:
        return [trial.state for trial in history.asked.get_trials(deepcopy=False)]

    history.pause([0, 7])
    assert states() == [TrialState.PRUNED, TrialState.RUNNING]
    [shown] = history.asked.get_trials(deepcopy=False, states=(TrialState.PRUNED,))
    assert shown.intermediate_values == {10: 2.0, 20: 1.0}
    assert history.past.running.keys() == {0, 1}
    history.pause([1])
    assert states() == [TrialState.RUNNING, TrialState.PRUNED]
    history.add([record_of(1, Outcome.COMPLETE, 0.5, {10: 3.0, 20: 0.5})])
    assert states() == [TrialState.RUNNING, TrialState.COMPLETE]


def test_tpe_draws_near_the_best_of_trials_that_are_all_paused() -> None:
    spec = make_spec(budget={"trials": 60, "steps": 100, "evaluations": 10})

    def draw(paused: bool) -> list[float]:
        proposer = Proposer(spec, seed=0)
        records = [
            record_of(
                number,
                Outcome.RUNNING,
                None,
                {10: abs(math.log10(lr) + 2)},
                {"optimizer": "sgd", "schedule": "constant", "sgd.lr": lr},
            )
            for number, lr in enumerate(np.geomspace(1e-4, 1, 24).tolist())
        ]
        proposer.history.add(records)
        proposer.history.pause(range(24) if paused else ())
        drawn = [proposer.propose().params for _ in range(24)]
        return [abs(math.log10(point["sgd.lr"]) + 2) for point in drawn if "sgd.lr" in point]

    assert np.median(draw(paused=True)) < 0.7 * np.median(draw(paused=False))
