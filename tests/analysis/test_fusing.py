from __future__ import annotations

import pytest

from tests.analysis.test_summary import trial
from tuner.analysis.fusing import summarize_fusing
from tuner.domain.fuse_plan import FusePlan

PLAN = FusePlan(8, compiled=True, single_s=0.01, lane_s=0.001, trials=20, reason="quicker")


def test_nothing_is_said_where_nothing_was_planned() -> None:
    assert summarize_fusing([trial(0, steps=10, train_s=1.0)], []) is None


def test_occupancy_is_the_share_of_a_cohort_that_trains_on_average() -> None:
    whole = trial(0, lanes=2, steps=100, places=150.0, train_s=0.5)
    pruned = trial(1, lanes=2, steps=50, places=50.0, train_s=0.25)
    alone = trial(2, steps=100, train_s=1.0)

    found = summarize_fusing([whole, pruned, alone], [PLAN])

    assert found is not None
    assert (found.trials, found.lanes, found.compiled) == (2, 2, True)
    assert found.occupancy == 0.75
    assert found.speedup == pytest.approx(0.01 / 0.001)


def test_trials_that_train_alone_have_a_reason() -> None:
    found = summarize_fusing([trial(0, steps=10)], [FusePlan(1, reason="too few")])
    assert found is not None
    assert (found.trials, found.occupancy, found.speedup) == (0, None, None)
    assert found.reason == "too few"


def test_a_speed_that_was_not_measured_is_not_claimed() -> None:
    record = trial(0, lanes=2, steps=100, places=100.0, train_s=0.5)
    found = summarize_fusing([record], [])
    assert found is not None
    assert found.speedup is None
