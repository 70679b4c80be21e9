"""The fault table in small: fewer trials and workers, shorter steps, the same faults."""

from __future__ import annotations

import warnings

import pytest

with warnings.catch_warnings():
    # Without a folder of the login session the server uses another one, and says so.
    warnings.simplefilter("ignore")
    from benchmarks.fault_scenes import Scale
    from benchmarks.fault_strikes import FAULTS
    from benchmarks.faults import run

SCALE = Scale(
    trials=5,
    workers=2,
    checkpoint_s=0.4,
    every_s=1.5,
    strikes=3,
    cut_s=3.0,
    phase_s=0.5,
    calm_s=0.0,
)
CASES = [(name, kind) for name, fault in FAULTS.items() for kind in fault.databases]


@pytest.mark.slow
@pytest.mark.parametrize(("name", "kind"), CASES)
def test_study_under_a_fault_ends_with_its_budget_and_loses_nothing(name: str, kind: str) -> None:
    reason = FAULTS[name].refusal()
    if reason is not None:
        pytest.skip(reason)
    result = run(name, kind, SCALE)
    assert result.holds(SCALE), result
