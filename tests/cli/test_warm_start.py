"""A study that starts from an earlier one, as it is typed."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Callable
from pathlib import Path

from tests.conftest import MakeSpec
from tuner.store import Studies, open_database

Tuner = Callable[..., subprocess.CompletedProcess[str]]

_SMALL = ("--set", "budget.trials=12", "--set", "budget.steps=10", "--set", "train.batch_size=32")


def test_a_study_starts_from_an_earlier_one_trains_and_reports_it(
    typed: Tuner, tuner: Tuner, project: Path
) -> None:
    parabola = ("--workload", "models.parabola:Parabola", *_SMALL)
    assert tuner("run", *parabola, "--name", "quick").returncode == 0
    for name in ("quik", "thorough"):
        refused = typed("study", "create", *parabola, "--name", "thorough", "--warm-start", name)
        assert refused.returncode != 0
    ended = tuner("run", *parabola, "--name", "thorough", "--warm-start", "auto")
    assert ended.returncode == 0, ended.stderr
    assert "Starts from the best of 'quick'" in ended.stderr
    assert "It started from the best of the study quick" in " ".join(ended.stdout.split())

    shown = json.loads(typed("study", "show", "thorough", "--json").stdout)
    assert shown["spec"]["warm_start"]["study"] == "quick"
    first = typed("trial", "show", "thorough", "0")
    assert "one of the best of the study 'quick'" in first.stdout
    assert json.loads(typed("trial", "show", "thorough", "0", "--json").stdout)["preset"] == (
        "warm_start"
    )

    # The file of a study that exists need not say again what it started from.
    assert typed("study", "delete", "quick", "--yes").returncode == 0
    more = ("--set", "budget.trials=13")
    again = tuner("run", *parabola, *more, "--name", "thorough")
    assert again.returncode == 0, again.stderr
    assert "13 of 13" in again.stdout


def test_a_choice_of_none_that_was_taken_over_is_shown(
    typed: Tuner, project: Path, make_spec: MakeSpec
) -> None:
    params = {"optimizer": "adam", "schedule": "constant", "adam.lr": 0.05}
    own = {"kind": {"axis": {"choices": [None, "wide"]}}}
    opening = {"params": params, "own": own}
    start = {"study": "earlier", "trials": 9, "value": 0.5, "openings": [opening]}
    database = open_database("sqlite:///tuner.db", create=True)
    Studies(database).create(make_spec(warm_start=start))
    database.close()
    shown = typed("study", "show", "small", "--spec")
    assert shown.returncode == 0
    assert '"none"' in shown.stdout


def test_a_study_file_asks_for_a_warm_start(typed: Tuner, project: Path) -> None:
    file = project / "later.toml"
    file.write_text(
        '[study]\nworkload = "models.parabola:Parabola"\n[search]\nwarm_start = "auto"\n'
    )
    created = typed("study", "create", "later.toml", "--no-check")
    assert created.returncode == 0, created.stderr
    assert "it starts cold" in created.stderr
