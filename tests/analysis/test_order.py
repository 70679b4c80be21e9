from __future__ import annotations

from dataclasses import replace

from tests.report.summaries import make_spec, trial
from tuner.analysis.order import order_trials
from tuner.domain.trials import Outcome, TrialRecord


def stopped(number: int, value: float, steps: int, outcome: Outcome) -> TrialRecord:
    record = trial(number, "adam", value, outcome)
    return replace(record, attributes={"steps": steps, "total_steps": 40})


def test_complete_trials_come_first_then_those_that_got_further_and_diverged_ones_last() -> None:
    records = [
        trial(0, outcome=Outcome.DIVERGED),
        stopped(1, 0.1, 4, Outcome.PRUNED),
        stopped(2, 0.9, 12, Outcome.PAUSED),
        stopped(3, 0.8, 12, Outcome.PRUNED),
        trial(4, "sgd", 5.0),
        trial(5, "sgd", 2.0),
        trial(6, outcome=Outcome.FAILED),
        trial(7, "sgd", 0.0, Outcome.RUNNING),
        stopped(8, 0.01, 20, Outcome.COMPLETE),  # of another length than the ranked ones
    ]
    ordered = order_trials(make_spec(), records)
    assert [record.number for _, record in ordered] == [5, 4, 3, 2, 1, 0]


def test_where_more_is_better_the_largest_comes_first() -> None:
    records = [trial(0, "sgd", 0.5), trial(1, "sgd", 0.9), trial(2, outcome=Outcome.DIVERGED)]
    ordered = order_trials(make_spec(direction="maximize"), records)
    assert [record.number for _, record in ordered] == [1, 0, 2]


def test_all_that_diverged_stand_alike() -> None:
    records = [trial(number, outcome=Outcome.DIVERGED) for number in range(2)]
    one, other = (standing for standing, _ in order_trials(make_spec(), records))
    assert one == other
