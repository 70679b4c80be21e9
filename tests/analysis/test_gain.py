"""The gain expected of going on, and when a study may end since it is little."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.analysis.gain import AHEAD, ENOUGH, TRIED, expect_gain, is_enough
from tuner.domain.catalog.dimensions import Value
from tuner.domain.spec import StudySpec
from tuner.domain.study_file import parse_spec
from tuner.domain.trials import RERUN_OF, Outcome, Proposal, TrialRecord

VALUES = st.lists(st.integers(1, 10**6).map(lambda n: n / 1000), min_size=4, max_size=40)


def spec_of(direction: str = "minimize", optimizers: Sequence[str] = ("sgd", "adam")) -> StudySpec:
    tree = {
        "study": {"name": "small", "workload": "a:B", "direction": direction},
        "budget": {"trials": 100, "steps": 20},
        "space": {"optimizers": list(optimizers)},
    }
    return parse_spec(tree, origin="test").resolve()


def trial(number: int, value: float | None, outcome: Outcome = Outcome.COMPLETE) -> TrialRecord:
    point: dict[str, Value] = {"optimizer": ("sgd", "adam")[number % 2], "schedule": "constant"}
    return TrialRecord(number, outcome, Proposal(point), value=value)


def trials(values: Sequence[float], worse: int = 0) -> list[TrialRecord]:
    """Returns complete trials of these values, and paused ones beside them."""
    complete = [trial(number, value) for number, value in enumerate(values)]
    return complete + [
        trial(number, 1e9, Outcome.PAUSED) for number in range(len(values), len(values) + worse)
    ]


def gain_of(spec: StudySpec, records: Sequence[TrialRecord]) -> tuple[float, float]:
    gain = expect_gain(spec, records)
    assert gain is not None
    assert gain.share is not None
    return gain.value, gain.share


def test_gain_is_told_by_the_distances_of_the_best() -> None:
    value, share = gain_of(spec_of(), trials([5.0, 4.0, 2.0, 1.0], worse=6))
    ahead = sum(1 / n for n in range(11, 21))
    assert value == pytest.approx((1 * 1 + 2 * 2 + 3 * 1) / 3 * ahead)
    assert share == pytest.approx(value / 1.0)


@given(values=VALUES, factor=st.sampled_from([1e-6, 0.5, 1000.0]))
def test_share_does_not_depend_on_the_unit_of_the_metric(
    values: list[float], factor: float
) -> None:
    value, share = gain_of(spec_of(), trials(values))
    scaled, same = gain_of(spec_of(), trials([factor * value for value in values]))
    assert scaled == pytest.approx(factor * value)
    assert same == pytest.approx(share)


@given(values=VALUES)
def test_metric_that_is_to_grow_counts_like_its_negative(values: list[float]) -> None:
    mirrored = gain_of(spec_of("maximize"), trials([-value for value in values]))
    assert mirrored == pytest.approx(gain_of(spec_of(), trials(values)))


@given(values=VALUES, more=st.integers(1, 50))
def test_worse_trials_lessen_the_gain_and_their_order_is_of_no_account(
    values: list[float], more: int
) -> None:
    records = trials(values)
    value, share = gain_of(spec_of(), records)
    assert value >= 0
    less, smaller = gain_of(spec_of(), trials(values, worse=more)[::-1])
    assert (less, smaller) <= (value, share)


def test_share_that_is_to_grow_has_its_distance_from_one_to_gain() -> None:
    close = trials([0.95, 0.949, 0.948, 0.947], worse=20)
    value, share = gain_of(spec_of("maximize"), close)
    assert share == pytest.approx(value / 0.05)
    assert share < 1
    value, share = gain_of(spec_of("maximize"), trials([95.0, 90.0, 80.0, 70.0]))
    assert share == pytest.approx(value / 95.0)


def test_no_share_is_expected_to_grow_above_one() -> None:
    assert expect_gain(spec_of("maximize"), trials([0.9, 0.86, 0.85, 0.7])) is None
    assert expect_gain(spec_of("maximize"), trials([1.0, 0.9, 0.9, 0.9])) is None


def test_no_time_to_a_target_is_expected_to_fall_below_none() -> None:
    spec = spec_of()
    timed = {"objective": "time_to_target", "target": 0.5}
    spec = spec.model_copy(update={"study": spec.study.model_copy(update=timed)})
    assert gain_of(spec, trials([1.0, 90.0, 95.0, 99.0])) == (1.0, 1.0)


def test_nothing_is_said_of_few_trials_nor_a_share_of_nothing() -> None:
    assert expect_gain(spec_of(), trials([3.0, 2.0, 1.0], worse=50)) is None
    found = expect_gain(spec_of(), trials([3.0, 2.0, 1.0, 0.0], worse=50))
    assert found is not None
    assert (found.share, is_enough(spec_of(), trials([0.0] * 40), found)) == (None, False)


def test_failed_trials_reruns_and_other_lengths_do_not_count() -> None:
    records = trials([4.0, 3.0, 2.0, 1.0], worse=6)
    value = gain_of(spec_of(), records)
    failed = trial(20, None, Outcome.FAILED)
    again = replace(trial(21, 1.0), attributes={RERUN_OF: 3})
    assert gain_of(spec_of(), [*records, failed, again]) == value
    short = replace(trial(22, 0.001), attributes={"steps": 1, "total_steps": 20})
    paused = trial(22, 1e9, Outcome.PAUSED)
    assert gain_of(spec_of(), [*records, short]) == gain_of(spec_of(), [*records, paused])


def test_gain_is_as_expected_where_the_tail_is_exponential() -> None:
    # The smaller the better, and the best are those far out in the tail; the best of n values is
    # 1 + 1/2 + ... + 1/n from its beginning in the mean.
    draws = 1000.0 - np.random.default_rng(0).exponential(size=(1000, 40))
    told = [gain_of(spec_of(), trials(row.tolist()))[0] for row in draws]
    assert np.mean(told) == pytest.approx(sum(1 / n for n in range(41, 41 + AHEAD)), rel=0.06)


def flat(count: int) -> list[TrialRecord]:
    """Returns trials that hardly differ."""
    return [trial(number, 1 + 1e-5 * number) for number in range(count)]


def test_study_may_end_once_the_gain_is_little() -> None:
    records = flat(TRIED)
    gain = expect_gain(spec_of(), records)
    assert is_enough(spec_of(), records, gain)
    apart = trials([2.0**n for n in range(TRIED)])
    gain = expect_gain(spec_of(), apart)
    assert gain is not None
    assert gain.share is not None
    assert gain.share > ENOUGH
    assert not is_enough(spec_of(), apart, gain)


def test_study_does_not_end_before_it_has_tried_enough_and_every_optimizer() -> None:
    few = flat(TRIED - 1)
    assert not is_enough(spec_of(), few, expect_gain(spec_of(), few))
    trains = [*few, trial(TRIED - 1, 1.0, Outcome.RUNNING)]
    assert not is_enough(spec_of(), trains, expect_gain(spec_of(), trains))
    more = spec_of(optimizers=("sgd", "adam", "rmsprop"))
    records = flat(3 * TRIED)
    assert not is_enough(more, records, expect_gain(more, records))


def test_a_comparison_expects_no_gain() -> None:
    spec, records = spec_of(), trials([1.0, 0.9, 0.8, 0.7, 0.6, 0.5])
    assert expect_gain(spec, records) is not None
    compares = spec.search.model_copy(update={"mode": "compare"})
    assert expect_gain(spec.model_copy(update={"search": compares}), records) is None
