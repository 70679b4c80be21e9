"""The tuning of each optimizer: its curve, what it gained, how much of its range is good."""

from __future__ import annotations

import itertools
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.analysis.contests import Rows, contest, contest_spec, records_of
from tests.report.summaries import trial
from tuner.analysis.tuning import Tuning, describe_tunings
from tuner.domain.objective import UNREACHED
from tuner.domain.trials import RANDOM, RERUN_OF, Outcome, TrialRecord

VALUES = st.none() | st.integers(1, 800).map(lambda number: number / 8)
TRIALS = st.lists(VALUES, min_size=4, max_size=9)


def tunings(rows: Rows, direction: str = "minimize") -> dict[str, Tuning]:
    study = {"name": "s", "workload": "models.digits:Digits", "direction": direction}
    compared = contest(rows, study=study).compared
    assert compared is not None
    return {tuning.optimizer: tuning for tuning in compared.tunings}


ROWS: dict[str, list[float | None]] = {
    "sgd": [2.0, 1.0, None, 1.04, 1.5, 1.0],
    "adam": [0.5, 0.9, 3.0, None, 0.5, 0.4],
}


def test_the_curve_is_the_best_so_far_in_the_order_of_the_start() -> None:
    found = tunings(ROWS)
    assert found["sgd"].curve == (2.0, 1.0, 1.0, 1.0, 1.0, 1.0)
    assert (found["sgd"].best_value, found["sgd"].best_after, found["sgd"].best_trial) == (
        1.0,
        2,
        2,
    )
    assert found["adam"].curve == (0.5, 0.5, 0.5, 0.5, 0.5, 0.4)
    assert found["adam"].best_after == 6


@settings(max_examples=40)
@given(TRIALS, TRIALS, st.sampled_from(["minimize", "maximize"]))
def test_curves_never_get_worse_and_end_in_the_best(
    own: list[float | None], others: list[float | None], direction: str
) -> None:
    sign = 1 if direction == "minimize" else -1
    tuning = tunings({"sgd": own, "adam": others}, direction)["sgd"]
    costs = [float("inf") if value is None else sign * value for value in tuning.curve]
    assert all(later <= earlier for earlier, later in itertools.pairwise(costs))
    best = min((sign * value for value in own if value is not None), default=None)
    assert tuning.best_value == (None if best is None else sign * best)
    assert len(tuning.curve) == tuning.trials == len(own)


def test_the_gain_is_what_tuning_brings_over_the_defaults() -> None:
    found = tunings(ROWS)
    assert (found["sgd"].gain, found["sgd"].relative_gain) == (1.0, 0.5)
    assert found["adam"].relative_gain == pytest.approx(0.2)
    larger = tunings({"sgd": [0.5, 0.6, 0.8, 0.2], "adam": [0.1] * 4}, "maximize")
    assert larger["sgd"].gain == pytest.approx(0.3)
    assert larger["adam"].gain == 0.0


def test_a_gain_across_zero_has_no_percentage() -> None:
    found = tunings({"sgd": [1.0, -1.0, 0.5, 0.5], "adam": [0.0, 0.0, 0.0, 0.0]})
    assert (found["sgd"].gain, found["sgd"].relative_gain) == (2.0, None)
    assert (found["adam"].gain, found["adam"].relative_gain) == (0.0, None)


def test_defaults_that_diverged_have_no_gain() -> None:
    tuning = tunings({"sgd": [None, 1.0, 2.0, 3.0], "adam": [1.0] * 4})["sgd"]
    assert (tuning.default_value, tuning.gain, tuning.relative_gain) == (None, None, None)


def test_the_share_near_the_best_is_that_of_the_even_draws() -> None:
    found = tunings(ROWS)
    own, best = found["sgd"].near_own, found["sgd"].near_best
    assert own is not None
    assert best is not None
    assert (own.count, own.trials) == (2, 3)  # 1.0 and 1.04, and one that diverged
    assert (best.count, best.trials) == (0, 3)  # of adam's 0.4
    assert found["adam"].near_own is not None
    assert found["adam"].near_own.count == 0  # the best was chosen, and no draw comes near
    assert found["sgd"].draws.values == (1.0, None, 1.04)


def test_values_below_zero_and_larger_ones_are_near_too() -> None:
    below = tunings({"sgd": [0.0, -10.0, -9.6, -9.4], "adam": [0.0] * 4})["sgd"]
    assert below.near_own is not None
    assert below.near_own.count == 2
    larger = tunings({"sgd": [0.1, 0.98, 0.94, 0.93], "adam": [0.1] * 4}, "maximize")["sgd"]
    assert larger.near_own is not None
    assert larger.near_own.count == 2


def test_an_optimizer_whose_trials_all_diverged_has_no_value_and_is_told() -> None:
    tuning = tunings({"sgd": [None] * 6, "adam": [1.0] * 4})["sgd"]
    assert (tuning.best_value, tuning.best_trial, tuning.best_after) == (None, None, None)
    assert set(tuning.curve) == {None}
    assert tuning.diverged is not None
    assert (tuning.diverged.share, tuning.diverged.high) == (1.0, 1.0)
    assert tuning.diverged.low == pytest.approx(0.541, abs=1e-3)
    assert tuning.near_own is not None
    assert tuning.near_own.count == 0
    assert tuning.draws.curve is not None
    assert set(tuning.draws.curve.median) == {None}


def test_ties_are_won_by_the_first() -> None:
    tuning = tunings({"sgd": [1.0] * 4, "adam": [1.0] * 4})["sgd"]
    assert (tuning.best_after, tuning.gain) == (1, 0.0)
    assert tuning.near_own is not None
    assert tuning.near_own.share == 1.0


def test_one_even_draw_has_no_band() -> None:
    records = [r for r in records_of(ROWS) if r.proposal.preset != RANDOM or r.number < 4]
    tuning = contest(ROWS, records).compared
    assert tuning is not None
    assert [len(t.draws.values) for t in tuning.tunings] == [1, 1]
    assert [t.draws.curve for t in tuning.tunings] == [None, None]


def describe(records: list[TrialRecord]) -> Tuning:
    spec = contest_spec(["sgd", "adam"], 12)
    return describe_tunings(spec, ["sgd", "adam"], records)[0]


def test_the_order_of_the_even_draws_changes_no_band() -> None:
    records = records_of(ROWS)
    first, second = (r.number for r in records[2:6] if r.optimizer == "sgd")
    swapped = {first: second, second: first}
    other = [replace(r, number=swapped.get(r.number, r.number)) for r in records]
    assert describe(records).draws.curve == describe(other).draws.curve
    assert describe(records).curve != describe(other).curve


def test_draws_after_one_in_training_do_not_count_yet() -> None:
    # Those that diverge are over first: to count them would tell of a range that is too bad.
    records = records_of({"sgd": [1.0, 2.0, 3.0, None, None, 1.0], "adam": [1.0] * 6})
    second = next(r for r in records if r.value == 3.0)
    records[second.number] = replace(second, outcome=Outcome.RUNNING, value=None)
    assert describe(records).draws.values == (2.0,)
    assert describe(records).trials == 5


def test_a_trial_that_ran_again_is_drawn_once() -> None:
    records = records_of(ROWS)
    again = trial(len(records), "sgd", 1.0, preset=RANDOM)
    again = replace(again, attributes={**again.attributes, RERUN_OF: 2})
    assert describe([*records, again]).draws == describe(records).draws


def test_trials_short_of_a_target_and_of_another_length_have_no_value() -> None:
    aim = {"objective": "time_to_target", "target": 0.5, "name": "s", "workload": "a:b"}
    missed = contest({"sgd": [30.0, UNREACHED * 1.2, 20.0, 10.0], "adam": [5.0] * 4}, study=aim)
    assert missed.compared is not None
    sgd = missed.compared.tunings[1]
    assert sgd.curve == (30.0, 30.0, 20.0, 10.0)
    assert sgd.draws.curve is not None
    assert sgd.draws.curve.worst[0] is None
    records = records_of({"sgd": [1.0, 0.1, 2.0, 3.0], "adam": [1.0] * 4})
    short = records[2]
    records[2] = replace(short, attributes={**short.attributes, "total_steps": 80})
    assert describe(records).best_value == 1.0


def test_training_is_told_in_full_trials() -> None:
    records = records_of(ROWS)
    early = next(r for r in records if r.optimizer == "sgd" and r.value is None)
    half = {**early.attributes, "steps": 20, "total_steps": 40}
    records[early.number] = replace(early, attributes=half)
    assert describe(records).trained == 5.5
