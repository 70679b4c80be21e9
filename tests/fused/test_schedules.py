from __future__ import annotations

import numpy as np
import pytest

from tuner.domain.catalog.dimensions import Value
from tuner.domain.catalog.schedules import SCHEDULES
from tuner.fused.schedules import evaluate_schedules

WARMUPS = (0.0, 0.1)


def values_of(name: str) -> list[dict[str, Value]]:
    """Returns a schedule's defaults, with and without a warmup where it has one."""
    known = SCHEDULES[name].decode({})
    return [{**known, "warmup": w} for w in WARMUPS] if "warmup" in known else [known]


@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("length", [1, 7, 200])
def test_courses_at_once_are_those_of_single_trials(name: str, length: int) -> None:
    row, several = SCHEDULES[name], values_of(name)
    at = np.arange(length + 2)

    factors, momenta = evaluate_schedules([(name, values) for values in several], length, at)

    for values, factor, momentum in zip(several, factors, momenta, strict=True):
        factor_fn = row.factor(values, length)
        assert factor == pytest.approx([factor_fn(int(step)) for step in at], rel=1e-13, abs=1e-13)
        cycle = row.momentum(values, length)
        assert np.isnan(momentum).all() if cycle is None else True
        if cycle is not None:
            assert momentum == pytest.approx([cycle(int(step)) for step in at], rel=1e-13)


def test_every_lane_follows_its_own_schedule() -> None:
    schedules = [(name, values) for name in SCHEDULES for values in values_of(name)]
    at = np.arange(5, 40)

    together, _ = evaluate_schedules(schedules, 50, at)

    for lane, schedule in enumerate(schedules):
        [alone], _ = evaluate_schedules([schedule], 50, at)
        assert np.array_equal(alone, together[lane])
