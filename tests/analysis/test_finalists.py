from __future__ import annotations

from dataclasses import replace

import pytest

from tests.optim.networks import EVERY_OPTIMIZER
from tests.report.summaries import make_spec, make_timed_spec, summary_of, trial
from tuner.analysis.finalists import plan_confirmation
from tuner.domain.catalog.dimensions import Int
from tuner.domain.confirmation import Confirm, Confirmation
from tuner.domain.objective import UNREACHED
from tuner.domain.spec import StudySpec
from tuner.domain.trials import DEFAULT, Outcome, TrialRecord, default_proposal

UUID = "0" * 32


def complete(number: int, optimizer: str, value: float) -> TrialRecord:
    """Returns a complete trial whose learning rate tells it from all others."""
    return trial(number, optimizer, value, params={f"{optimizer}.lr": 0.001 + number / 1e5})


def plan(
    *records: TrialRecord, spec: StudySpec | None = None, **confirm: float
) -> Confirmation | None:
    return plan_confirmation(summary_of(*records, spec=spec), UUID, Confirm.model_validate(confirm))


def numbers(confirmation: Confirmation | None) -> list[int]:
    assert confirmation is not None
    return [finalist.trial for finalist in confirmation.finalists]


SEARCH = [
    complete(0, "adam", 0.5),
    complete(1, "adam", 0.1),
    complete(2, "adam", 0.2),
    complete(3, "sgd", 0.4),
    complete(4, "muon", 0.3),
    trial(5, "sgd", 0.05, Outcome.PRUNED),
]


def test_winner_runner_up_of_another_optimizer_and_usual_defaults_come_first() -> None:
    found = plan(*SEARCH)
    assert numbers(found) == [1, 4, -1]
    assert found is not None
    assert [finalist.protected for finalist in found.finalists] == [True] * 3
    usual = default_proposal(make_spec(), "adamw")
    assert found.finalists[2].params == usual.params
    assert (found.seeds, found.runs) == (5, 15)


def test_more_training_lets_more_configurations_and_more_seeds_in() -> None:
    found = plan(*SEARCH, cost=10)
    assert numbers(found) == [1, 4, -1, 2, 3]
    assert found is not None
    # Six trials of a full length may cost ten times as much: sixty runs, of which ten each do.
    assert (found.seeds, found.runs) == (10, 50)
    assert [finalist.protected for finalist in found.finalists[3:]] == [False, False]
    fewer = plan(*SEARCH, cost=10, top=1)
    assert numbers(fewer) == [1, 4, -1]


def test_in_a_study_of_one_optimizer_the_next_configuration_is_the_runner_up() -> None:
    spec = make_spec(space={"optimizers": ["adam"], "schedules": ["constant"], "breadth": 1})
    assert numbers(plan(*SEARCH[:3], spec=spec)) == [1, 2, 0]


def test_defaults_that_a_trial_had_are_that_trial() -> None:
    usual = trial(9, "adamw", 0.9, preset=DEFAULT)
    assert numbers(plan(*SEARCH, usual)) == [1, 4, 9]
    best = trial(9, "adamw", 0.01, preset=DEFAULT)
    assert numbers(plan(*SEARCH, best)) == [9, 1, 2]


def test_the_larger_metric_comes_first_where_it_is_better() -> None:
    assert numbers(plan(*SEARCH, spec=make_spec(direction="maximize")))[0] == 0


def test_trials_short_of_the_target_are_no_finalists() -> None:
    spec = make_timed_spec()
    reached, short = complete(0, "adam", 30.0), complete(1, "sgd", UNREACHED * 1.2)
    assert numbers(plan(reached, short, spec=spec)) == [0, -1]
    assert plan(short, spec=spec) is None


@pytest.mark.parametrize("records", [[], SEARCH[5:]])
def test_without_a_complete_trial_there_is_nothing_to_confirm(records: list[TrialRecord]) -> None:
    assert plan(*records) is None


def test_nothing_is_confirmed_where_the_file_says_so() -> None:
    assert plan(*SEARCH, top=0) is None


def test_finalists_of_a_comparison_are_the_three_best_of_every_optimizer() -> None:
    optimizers = ["adam", "sgd", "muon", "adamw"]
    spec = make_spec(
        space={"optimizers": optimizers},
        budget={"trials": 16, "steps": 100},
        search={"mode": "compare"},
    )
    usual = trial(9, "adamw", 0.9, preset=DEFAULT)
    found = plan(*SEARCH, usual, spec=spec, top=1, cost=9)
    assert numbers(found) == [1, 2, 0, 4, 3, 9]
    assert found is not None
    assert found.compares
    assert all(finalist.protected for finalist in found.finalists)
    # Three seeds for each of the six, and five for one of each optimizer.
    assert (found.seeds, found.runs) == (10, 18 + 40)
    # Without training for heats the best of each race at once, on five seeds at least.
    few = plan(*SEARCH, usual, spec=spec, cost=1)
    assert numbers(few) == [1, 4, 3, 9]
    assert few is not None
    assert (few.seeds, few.runs) == (5, 20)
    assert not plan(*SEARCH).compares  # type: ignore[union-attr]


def test_as_many_seeds_of_many_optimizers_as_can_be_asked_for_are_planned() -> None:
    optimizers = EVERY_OPTIMIZER[:16]
    spec = make_spec(
        space={"optimizers": optimizers},
        budget={"trials": 64, "steps": 100},
        search={"mode": "compare"},
    )
    records = [complete(n, optimizers[n % 16], n / 64) for n in range(64)]
    found = plan(*records, spec=spec, seeds=100, cost=100)
    assert found is not None
    assert (found.seeds, found.runs) == (100, 3 * 48 + 16 * 100)


def test_configurations_that_differ_in_their_own_hyperparameters_alone_are_two() -> None:
    spec = make_spec(space={"optimizers": ["adam"], "schedules": ["constant"], "breadth": 1})
    width = Int(low=1, high=64)
    records = [
        replace(trial(n, "adam", 0.1 * (n + 1), params={"width": size}), own_axes={"width": width})
        for n, size in enumerate((8, 16, 16))
    ]
    assert numbers(plan(*records, spec=spec, cost=100)) == [0, 1]
