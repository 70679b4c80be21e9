"""A study on PostgreSQL from the command line, with several workers."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable

import pytest

Tuner = Callable[..., subprocess.CompletedProcess[str]]


@pytest.mark.slow
def test_four_workers_on_postgresql_end_with_exactly_the_budget(
    tuner: Tuner, postgres_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_STORAGE", postgres_url)
    settings = ("--set", "budget.trials=14", "--set", "budget.epochs=1")
    ended = tuner("run", "studies/parabola.toml", "--workers", "4", *settings)
    assert ended.returncode == 0, ended.stderr
    report = json.loads(tuner("study", "report", "parabola", "--json").stdout)
    counts = report["counts"]
    assert counts["running"] == counts["waiting"] == counts["failed"] == 0
    assert sum(counts.values()) == 14

    more = tuner("run", "studies/parabola.toml", *settings, "--set", "budget.trials=16")
    assert more.returncode == 0, more.stderr
    listed = json.loads(tuner("study", "list", "--json").stdout)
    assert [(entry["started"], entry["running"]) for entry in listed] == [(16, 0)]
