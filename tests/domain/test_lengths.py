"""Which complete trials are ranked with each other."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.domain.lengths import FULL, length_of, ranked_length, split_by_length, tell_length
from tuner.domain.trials import Outcome, Proposal, TrialRecord


def trial(number: int, value: float | None = 0.5, **attributes: Any) -> TrialRecord:
    point = Proposal({"optimizer": "sgd", "schedule": "constant"})
    return TrialRecord(number, Outcome.COMPLETE, point, value=value, attributes=attributes)


@pytest.mark.parametrize(
    ("attributes", "length"),
    [
        ({}, FULL),  # an old record
        ({"steps": 40}, FULL),
        ({"steps": 120, "total_steps": 240}, Fraction(1, 2)),
        ({"steps": 120, "total_steps": 40}, Fraction(3)),
        ({"steps": 41, "total_steps": 40}, Fraction(41, 40)),
        ({"steps": 41, "total_steps": 100, "stopped_early": "no gain"}, FULL),
        # The last step of a closure may cost more than was left.
        ({"steps": 55, "total_steps": 50, "last_cost": 6}, FULL),
        ({"steps": 55, "total_steps": 50, "last_cost": 5}, Fraction(11, 10)),
        ({"steps": 45, "total_steps": 50, "last_cost": 6}, Fraction(9, 10)),
    ],
)
def test_a_length_is_a_part_of_a_full_trial(attributes: dict[str, Any], length: Fraction) -> None:
    assert length_of(attributes) == length


def test_a_length_is_told_where_it_is_not_full() -> None:
    assert tell_length({"steps": 40}) == ""
    assert tell_length({"steps": 120, "total_steps": 40}) == "trained 120 of 40 steps"
    told = tell_length({"steps": 41, "total_steps": 100, "stopped_early": "no gain"})
    assert told == "its loop stopped after 41 of 100 steps: no gain"


def test_full_trials_are_ranked_however_many_others_there_are() -> None:
    short = [trial(n, steps=30, total_steps=100) for n in range(5)]
    full = trial(5, steps=100)
    stopped = trial(6, steps=41, total_steps=100, stopped_early="no gain")
    assert split_by_length([*short, full, stopped]) == ([full, stopped], short)


def test_without_a_full_trial_those_of_the_most_common_length_are_ranked() -> None:
    common = [trial(n, steps=30, total_steps=100) for n in range(3)]
    # Of another batch size: as many epochs.
    common.append(trial(3, steps=60, total_steps=200))
    other = trial(4, steps=90, total_steps=100)
    assert split_by_length([other, *common]) == (common, [other])


def test_what_is_not_complete_has_no_length() -> None:
    assert split_by_length([trial(0, None)]) == ([], [])


@given(st.dictionaries(st.fractions(0, 3), st.integers(1, 9)))
def test_the_ranked_length_is_full_or_most_common(counts: dict[Fraction, int]) -> None:
    chosen = ranked_length(Counter(counts))
    assert chosen == FULL or (FULL not in counts and counts[chosen] == max(counts.values()))
