"""A study that compares optimizers, from its file to its report."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

Tuner = Callable[..., subprocess.CompletedProcess[str]]

STUDY = """
[study]
name = "fair"
workload = "models.parabola:Parabola"

[search]
mode = "compare"

[space]
optimizers = ["sgd", "momentum"]

[budget]
trials = 8
epochs = 1
"""


@pytest.mark.slow
def test_optimizers_are_compared_before_and_after_their_confirmation(
    tuner: Tuner, typed: Tuner, project: Path
) -> None:
    (project / "fair.toml").write_text(STUDY)
    searched = tuner("run", "fair.toml", "--fuse", "off")
    assert searched.returncode == 0, searched.stderr
    assert "No optimizer is shown to be better yet" in searched.stdout
    assert "How hard tuning is" in searched.stdout
    before = json.loads(typed("study", "report", "fair", "--json").stdout)["comparison"]
    assert {own["trained"] for own in before["optimizers"]} == {4.0}
    assert [own["beats"] for own in before["optimizers"]] == [None, None]
    assert before["optimizers"][0]["speed"]["runs"] == 1
    for own in before["optimizers"]:
        assert own["curve"][0] == own["default_value"]
        assert own["curve"][-1] == own["best_value"]
        assert len(own["draws"]) == len(own["random"]["median"]) == 2
    confirmed = tuner("study", "confirm", "fair", "--fuse", "off")
    assert confirmed.returncode == 0, confirmed.stderr
    assert "Who beats whom on fresh seeds" in confirmed.stdout
    after = json.loads(typed("study", "report", "fair", "--json").stdout)["comparison"]
    assert after["target"]["seeds"]
    assert all(own["speed"]["runs"] >= 5 for own in after["optimizers"])
    page = typed("study", "report", "fair", "--format", "html").stdout
    assert "Tuning curves: the best after n trials" in page
