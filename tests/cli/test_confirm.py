"""A study's finalists run again on fresh seeds: by the command, by itself, and after kill -9."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from tests.conftest import copy_project, run_tuner
from tuner.domain.confirmation import Confirm
from tuner.service.confirmation import open_confirmation
from tuner.store import Studies, open_database

Tuner = Callable[..., subprocess.CompletedProcess[str]]

_SEARCH = ("run", "studies/parabola.toml", "--set", "budget.epochs=2", "--fuse", "off")


@pytest.fixture(scope="module")
def searched(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Returns a project with a study of twelve trials, which is not confirmed by itself."""
    folder = copy_project(tmp_path_factory.mktemp("searched") / "project")
    ended = run_tuner(*_SEARCH, "--set", "budget.trials=12", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    assert "Confirming" not in ended.stderr
    assert "tuner study confirm parabola" in ended.stderr
    return folder


@pytest.fixture
def parabola(project: Path, searched: Path) -> Path:
    shutil.copytree(searched, project, dirs_exist_ok=True)
    return project


def report(typed: Tuner) -> dict[str, object]:
    ended = typed("study", "report", "parabola", "--format", "json")
    assert ended.returncode == 0, ended.stderr
    parsed: dict[str, object] = json.loads(ended.stdout)
    return parsed


def states_of(typed: Tuner) -> dict[str, str]:
    listed = json.loads(typed("study", "list", "--json").stdout)
    return {study["name"]: study["state"] for study in listed}


def runs_in(project: Path) -> list[tuple[str, int, int]]:
    """Returns the runs of the confirmation: their state, their finalist and their seed's number."""
    with closing(sqlite3.connect(project / "tuner.db")) as connection:
        return connection.execute(
            "SELECT t.state, c.value_json, r.value_json FROM trials t"
            " JOIN studies s ON s.study_id = t.study_id AND s.study_name = 'parabola.confirm'"
            " JOIN trial_user_attributes c ON c.trial_id = t.trial_id AND c.key = 'confirms'"
            " JOIN trial_user_attributes r ON r.trial_id = t.trial_id AND r.key = 'repeat'"
        ).fetchall()


def test_finalists_run_again_and_the_report_ends_in_a_verdict(
    typed: Tuner, tuner: Tuner, parabola: Path
) -> None:
    assert report(typed)["verdict"] is None
    ended = tuner("study", "confirm", "parabola", "--fuse", "off")
    assert ended.returncode == 0, ended.stderr
    assert "at most 15 full trials" in ended.stderr
    assert "Finalists on fresh seeds" in ended.stdout
    assert "Every configuration ran once" not in ended.stdout
    parsed = report(typed)
    confirmation, verdict = parsed["confirmation"], parsed["verdict"]
    assert isinstance(confirmation, dict)
    assert isinstance(verdict, dict)
    assert (confirmation["seeds"], confirmation["runs"], confirmation["settled"]) == (5, 15, True)
    assert all(len(finalist["values"]) == 5 for finalist in confirmation["finalists"])
    assert all(None not in f["test"]["val_loss"]["values"] for f in confirmation["finalists"])
    assert "Finalists over test data" in ended.stdout
    best = parsed["best"]
    assert isinstance(best, dict)
    assert best["trial"] == verdict["winner"]
    assert verdict["sentence"] in " ".join(ended.stdout.split())
    exported = typed("study", "export", "parabola", "--format", "json")
    assert json.loads(exported.stdout)["trial"] == verdict["winner"]
    other = next(
        f["trial"] for f in confirmation["finalists"] if f["trial"] not in (None, verdict["winner"])
    )
    code = typed("study", "export", "parabola", "--trial", str(other)).stdout
    assert code.startswith("# A trial of the tuner study 'parabola'")
    assert f"# Trial {other} reached" in code
    lucky = typed("study", "export", "parabola.confirm")
    assert (lucky.returncode, lucky.stdout) == (2, "")
    assert "Name the other study, which has the verdict" in lucky.stderr
    again = tuner("study", "confirm", "parabola")
    assert (again.returncode, again.stdout) == (0, ended.stdout)
    assert len(runs_in(parabola)) == 15


@pytest.mark.parametrize(("command", "state"), [("pause", "paused"), ("stop", "stopped")])
def test_both_are_listed_halt_together_and_are_deleted_together(
    typed: Tuner, parabola: Path, command: str, state: str
) -> None:
    database = open_database(f"sqlite:///{parabola / 'tuner.db'}")
    open_confirmation(database, Studies(database).find("parabola"), Confirm())
    database.close()
    assert typed("study", command, "parabola").returncode == 0
    # Its runs would count as lost if they ended early: they are saved.
    assert states_of(typed) == {"parabola": state, "parabola.confirm": "paused"}
    refused = typed("study", "stop", "parabola.confirm")
    assert refused.returncode == 2
    assert "a run that is stopped in the middle tells nothing" in refused.stderr
    assert typed("study", "resume", "parabola").returncode == 0
    assert states_of(typed) == {"parabola": "running", "parabola.confirm": "running"}
    deleted = typed("study", "delete", "parabola", "--yes")
    assert deleted.stdout.splitlines() == [
        "Deleted 'parabola.confirm' and its 0 trials.",
        "Deleted 'parabola' and its 12 trials.",
    ]
    assert states_of(typed) == {}


def test_a_study_that_is_no_finished_search_is_refused(typed: Tuner, parabola: Path) -> None:
    missing = typed("study", "confirm", "parabol")
    assert missing.returncode == 2
    assert "did you mean 'parabola'" in missing.stderr
    created = typed("study", "create", "studies/parabola.toml", "--name", "new", "--no-check")
    assert created.returncode == 0, created.stderr
    early = typed("study", "confirm", "new")
    assert early.returncode == 2
    assert "there is nothing to confirm" in early.stderr


def test_a_confirmation_that_has_not_begun_is_no_study_to_look_at(
    typed: Tuner, project: Path
) -> None:
    created = typed("study", "create", "studies/parabola.toml", "--name", "new", "--no-check")
    assert created.returncode == 0, created.stderr
    assert states_of(typed) == {"new": "running"}
    assert re.search("confirmation +waits for the search", typed("study", "show", "new").stdout)
    shown = json.loads(typed("study", "show", "new", "--json").stdout)
    assert shown["confirmation"] == {"study": "new.confirm", "waits": True}
    early = typed("study", "run", "new.confirm")
    assert early.returncode == 2
    assert "waits for the search of 'new': train that one" in early.stderr
    for command in ("stop", "resume"):
        assert typed("study", command, "new").returncode == 0
    deleted = typed("study", "delete", "new", "--yes")
    assert deleted.stdout == "Deleted 'new' and its 0 trials.\n"
    again = typed("study", "create", "studies/parabola.toml", "--name", "new.confirm", "--no-check")
    assert again.returncode == 0, again.stderr


@pytest.mark.slow
def test_a_search_of_thirty_trials_is_confirmed_by_itself(tuner: Tuner, project: Path) -> None:
    ended = tuner(*_SEARCH, "--set", "budget.trials=30")
    assert ended.returncode == 0, ended.stderr
    assert "Confirming 'parabola': 3 finalists" in ended.stderr
    for done in ("30/30 done", "1/15 done", "15/15 done"):
        assert done in ended.stderr
    assert "Finalists on fresh seeds" in ended.stdout
    assert len(runs_in(project)) == 15
    # A study of an earlier version has no companion yet.
    assert tuner("study", "delete", "parabola.confirm", "--yes").returncode == 0
    again = tuner("study", "run", "parabola")
    assert "Confirming 'parabola': 3 finalists" in again.stderr
    assert len(runs_in(project)) == 15
    off = tuner(*_SEARCH, "--set", "budget.trials=30", "--set", "confirm.top=0", "--name", "off")
    assert "Confirming" not in off.stderr
    on = tuner(*_SEARCH, "--set", "budget.trials=30", "--set", "confirm.top=1", "--name", "off")
    assert "Confirming 'off'" in on.stderr


@pytest.mark.slow
def test_after_kill_9_workers_started_alone_have_trained_every_run_once(
    tuner: Tuner, project: Path
) -> None:
    long = ("--set", "budget.epochs=10", "--set", "budget.trials=30", "--no-check")
    created = tuner("study", "create", "studies/parabola.toml", *long)
    assert created.returncode == 0, created.stderr

    def start() -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "tuner", "worker", "start", "parabola", "--fuse", "off"],
            cwd=project,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    # Each is killed once the search, or so many runs more, have started; two are there at a time.
    workers, killed = [start(), start()], 0
    for at in (1, 6):
        while len(runs_in(project)) < at:
            assert any(each.poll() is None for each in workers), [w.communicate() for w in workers]
            time.sleep(0.02)
        victim = next((each for each in workers if each.poll() is None), None)
        if victim is not None:
            victim.kill()
            victim.communicate(timeout=60)
            killed += 1
            workers = [each for each in workers if each is not victim] + [start()]
    for each in workers:
        said, _ = each.communicate(timeout=200)
        assert each.returncode == 0, said
    assert killed
    runs = runs_in(project)
    assert len(runs) == len(set(runs)) == 15
    assert {state for state, _, _ in runs} == {"COMPLETE"}
    last = tuner("worker", "start", "parabola")
    assert last.returncode == 0, last.stdout + last.stderr
    assert len(runs_in(project)) == 15


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["worker", "parent"])
def test_after_kill_9_every_run_has_trained_once(tuner: Tuner, parabola: Path, victim: str) -> None:
    command = ("study", "confirm", "parabola", "--fuse", "off", "--workers", "2")
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner", *command],
        cwd=parabola,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    while len(runs_in(parabola)) < 4:
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)
    with closing(sqlite3.connect(parabola / "tuner.db")) as connection:
        rows = connection.execute("SELECT pid FROM tuner_workers ORDER BY last_seen DESC LIMIT 2")
        pids = [pid for (pid,) in rows]
    os.kill(process.pid if victim == "parent" else pids[0], signal.SIGKILL)
    process.communicate(timeout=120)
    again = tuner(*command)
    assert again.returncode == 0, again.stdout + again.stderr
    runs = runs_in(parabola)
    assert len(runs) == len(set(runs)) == 15
    assert {state for state, _, _ in runs} == {"COMPLETE"}
