"""A study that compares optimizers, as it is typed, from its file to its report."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tuner.domain.lengths import share_trained
from tuner.store import Studies, open_database, read_records

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
    assert "Best after k trials, by optimizer" in page


_COMPARE = (
    *("run", "studies/parabola.toml", "--optimizers", "sgd,adam,muon", "--name", "fair"),
    *("--set", "search.mode=compare", "--set", "budget.epochs=2", "--set", "budget.trials=48"),
)


def test_every_optimizer_trains_as_much_and_all_are_compared_on_fresh_seeds(
    typed: Tuner, project: Path
) -> None:
    ended = typed(*_COMPARE)
    assert ended.returncode == 0, ended.stderr
    assert "9 finalists, the best of each optimizer; 3 fresh seeds choose one" in ended.stderr
    with closing(open_database(f"sqlite:///{project / 'tuner.db'}")) as database:
        study = Studies(database).get("fair")
        assert study is not None
        records = read_records(database, study)
    trained = dict.fromkeys(("sgd", "adam", "muon"), 0.0)
    for record in records:
        trained[record.optimizer] += share_trained(record.attributes)
    assert max(trained.values()) - min(trained.values()) <= 1
    presets = Counter(record.proposal.preset for record in records)
    assert presets == {"default": 3, "random": 24, None: 21}
    assert all(record.outcome in ("complete", "diverged") for record in records)


def test_trials_that_cannot_be_shared_out_are_refused_before_anything_is_made(
    typed: Tuner, project: Path
) -> None:
    ended = typed(*_COMPARE, "--set", "budget.trials=31")
    assert ended.returncode == 2
    assert "budget.trials = 31 cannot be shared out equally among 3 optimizers" in ended.stderr
    assert not (project / "tuner.db").exists()
