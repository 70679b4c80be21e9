"""The comparison of searches in small: both take the same steps, and their figures add up."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_both_searches_take_the_budget_and_find_something() -> None:
    command = [sys.executable, "-m", "benchmarks.quality", "--json"]
    size = ["--trials", "12", "--lanes", "4", "--repeats", "2", "--processes", "1"]
    ended = subprocess.run(
        [*command, *size], cwd=ROOT, capture_output=True, text=True, check=True, timeout=300
    )
    found = json.loads(ended.stdout)

    assert (found["lanes"], found["repeats"], len(found["pairs"])) == (4, 2, 2)
    for way in ("single", "fused"):
        figures = found["ways"][way]
        assert all(0.005 < best < 1 for best, _, _ in figures["best"][1:])
        assert figures["started"][0] >= 12
        assert 0 <= figures["pruned"][0] < 1
    for test in found["tests"]:
        assert test["better"] + test["worse"] <= 2
        assert 0 <= test["p_worse"] <= 1
