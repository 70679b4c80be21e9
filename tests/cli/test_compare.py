"""A comparison from its file to its verdict, as it is typed."""

from __future__ import annotations

import subprocess
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from tuner.domain.lengths import share_trained
from tuner.store import Studies, open_database, read_records

Tuner = Callable[..., subprocess.CompletedProcess[str]]

_COMPARE = (
    *("run", "studies/parabola.toml", "--optimizers", "sgd,adam,muon", "--name", "fair"),
    *("--set", "search.mode=compare", "--set", "budget.epochs=2", "--set", "budget.trials=30"),
)


def test_every_optimizer_trains_as_much_and_all_are_compared_on_fresh_seeds(
    typed: Tuner, project: Path
) -> None:
    ended = typed(*_COMPARE)
    assert ended.returncode == 0, ended.stderr
    assert "3 finalists on up to 5 fresh seeds each" in ended.stderr
    with closing(open_database(f"sqlite:///{project / 'tuner.db'}")) as database:
        study = Studies(database).get("fair")
        assert study is not None
        records = read_records(database, study)
    trained = dict.fromkeys(("sgd", "adam", "muon"), 0.0)
    for record in records:
        trained[record.optimizer] += share_trained(record.attributes)
    assert max(trained.values()) - min(trained.values()) <= 1
    presets = Counter(record.proposal.preset for record in records)
    assert presets == {"default": 3, "random": 15, None: 12}
    assert all(record.outcome in ("complete", "diverged") for record in records)


def test_trials_that_cannot_be_shared_out_are_refused_before_anything_is_made(
    typed: Tuner, project: Path
) -> None:
    ended = typed(*_COMPARE, "--set", "budget.trials=31")
    assert ended.returncode == 2
    assert "budget.trials = 31 cannot be shared out equally among 3 optimizers" in ended.stderr
    assert not (project / "tuner.db").exists()
