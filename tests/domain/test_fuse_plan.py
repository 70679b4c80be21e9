from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tuner.domain.fuse_plan import COHORTS, MOST_LANES, FusePlan, largest_cohort, parse_fuse
from tuner.errors import SpecError


@pytest.mark.parametrize("text", ["", "0", "-1", "513", "many", "1.5", "²", "AUTO"])
def test_nonsense_is_refused_with_what_would_be_right(text: str) -> None:
    with pytest.raises(SpecError, match="auto, off, or how many trials train as one, from 1 to"):
        parse_fuse(text)


@given(trials=st.integers(0, 10**7))
def test_a_study_has_several_cohorts_of_a_power_of_two(trials: int) -> None:
    lanes = largest_cohort(trials)
    assert 1 <= lanes <= MOST_LANES
    assert lanes & (lanes - 1) == 0
    assert lanes == 1 or lanes * COHORTS <= trials


def test_a_plan_of_another_version_is_read_as_far_as_it_is_known() -> None:
    plan = FusePlan(64, compiled=True, single_s=1e-3, trials=1000, reason="quicker")
    assert FusePlan.from_json(plan.to_json()) == plan
    assert FusePlan.from_json({"lanes": 4, "since": "tomorrow"}) == FusePlan(4)
