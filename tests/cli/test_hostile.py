"""A database in which somebody has written what a terminal or a file would act on."""

from __future__ import annotations

import json
import os
import pty
import re
import sqlite3
import subprocess
import sys
import tomllib
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution
from optuna.trial import TrialState

from tests.conftest import MakeSpec
from tests.store.single_trials import SingleTrials
from tuner.cli import main as command_line
from tuner.search import Proposer
from tuner.store import Studies, open_database
from tuner.store.leases.workers import WorkerIdentity

HOSTILE = "x\x1b]52;c;aGk=\x07\x1b]0;owned\x07\x9b2J\u202eevil\r\nforged | [a](javascript:b)"
"""The clipboard, the title, the screen, the direction of writing, a line, a column, a link."""

ACTING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\u2028\u2029]")

Type = Callable[..., str]


@pytest.fixture
def typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> Type:
    """Returns the command line as a terminal gets it, in an empty folder."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNER_STORAGE", f"sqlite:///{tmp_path / 'tuner.db'}")
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: str) -> str:
        monkeypatch.setattr(sys, "argv", ["tuner", *arguments])
        with monkeypatch.context() as streams:
            streams.setattr(sys, "stdout", sys.stdout)
            streams.setattr(sys, "stderr", sys.stderr)
            with pytest.raises(SystemExit):
                command_line.main()
        return "".join(capsys.readouterr())

    return run


@pytest.fixture
def hostile(typed: Type, tmp_path: Path, make_spec: MakeSpec) -> str:
    """Returns the name of a study of which everything that may be any text is hostile."""
    database = open_database(f"sqlite:///{tmp_path / 'tuner.db'}", create=True)
    study = Studies(database).create(make_spec())
    identity = WorkerIdentity(HOSTILE, HOSTILE, 7, HOSTILE, HOSTILE, HOSTILE, HOSTILE)
    ledger = SingleTrials(database, study, identity)
    ledger.register(0.0, lambda ordinal: ordinal)
    proposer = Proposer(study.spec, seed=0)
    for state in (TrialState.COMPLETE, TrialState.FAIL, None):
        lease = ledger.start_one(proposer.openings(), proposer.propose())
        assert lease is not None
        own = {HOSTILE: HOSTILE, "kind": HOSTILE}
        axis = CategoricalDistribution((HOSTILE, "other"))
        ledger.add_parameters(lease, own, dict.fromkeys(own, axis))
        ledger.report_one(lease, 5, 5, 0.5, [(5, HOSTILE, 1.0)])
        if state is not None:
            group = {"name": HOSTILE, "parameters": 1, "lr": 0.1, "weight_decay": 0.0}
            group |= {"momentum": None, "frozen_until": 0.0}
            said = dict.fromkeys(("error", "error_at", "traceback", HOSTILE), HOSTILE)
            value = 0.5 if state is TrialState.COMPLETE else None
            ledger.finish_one(lease, state, value, {"steps": 20, "groups": [group], **said})
    database.close()
    with closing(sqlite3.connect(tmp_path / "tuner.db")) as connection, connection:
        connection.execute("UPDATE studies SET study_name = ?", (HOSTILE,))
        connection.execute("UPDATE tuner_events SET detail = ?", (HOSTILE,))
    return HOSTILE


COMMANDS = (
    *(("study", "list"), ("study", "list", "--json"), ("db", "status")),
    *(("study", "show", HOSTILE), ("study", "show", HOSTILE, "--json")),
    *(("study", "report", HOSTILE, "--format", f) for f in ("terminal", "json", "markdown")),
    *(("study", "export", HOSTILE, "--format", f) for f in ("python", "toml", "json")),
    *(("trial", "show", HOSTILE, str(number)) for number in (0, 1, 2, 3)),
    ("trial", "show", HOSTILE, "0", "--json"),
    *(("workers", "list", HOSTILE), ("workers", "list", HOSTILE, "--json")),
    *(("workers", "stop", HOSTILE), ("study", "repair", HOSTILE), ("trial", "rerun", HOSTILE, "1")),
    *(("study", order, HOSTILE) for order in ("pause", "run", "resume", "stop", "report")),
    *(("study", "report", name) for name in ("", f"{HOSTILE}!", "x")),
    *(
        ("run", HOSTILE),
        ("run", "--workload", HOSTILE),
        ("study", HOSTILE),
        ("optimizers", HOSTILE),
    ),
    ("study", "list", "--storage", f"sqlite:///{HOSTILE}/x.db"),
    *(
        ("study", "create", "--workload", "a:B", "--no-check", "--name", "b", "--warm-start", name)
        for name in (f"{HOSTILE}!", HOSTILE)
    ),
    *(("study", "show", "b"), ("study", "report", "b"), ("trial", "show", "b", "0")),
    ("study", "report", HOSTILE, "--output", f"{HOSTILE}/x"),
    ("init", HOSTILE),
    ("workloads", HOSTILE),
    ("dashboard", "--host", HOSTILE),
    ("study", "delete", HOSTILE, "--yes"),
)


def test_no_command_has_a_terminal_act_on_what_a_database_holds(typed: Type, hostile: str) -> None:
    for arguments in COMMANDS:
        said = typed(*arguments)
        assert said, arguments
        assert not ACTING.search(said), (arguments, said)
        assert "fault of tuner" not in said, (arguments, said)


def test_page_holds_no_control_characters(typed: Type, hostile: str) -> None:
    page = typed("study", "report", hostile, "--format", "html")
    assert not ACTING.search(page)
    assert "<h1><bdi>x\\u001b]52" in page


def test_a_name_of_several_lines_forges_none(typed: Type, hostile: str) -> None:
    told = {
        arguments: typed(*arguments)
        for arguments in COMMANDS
        if arguments[:2] in (("study", "list"), ("study", "report"), ("workers", "list"))
        and not {"--storage", "--output"} & set(arguments)
    }
    told |= {("trial",): typed("trial", "show", hostile, "2")}
    for arguments, said in told.items():
        forged = [line for line in said.splitlines() if line.startswith("forged")]
        assert not forged, (arguments, said)


def test_a_terminal_gets_colours_that_are_ours(tmp_path: Path) -> None:
    leader, follower = pty.openpty()
    command = [sys.executable, "-m", "tuner", "study", "report", "\x1b[7mx\x1b]0;owned\x07"]
    subprocess.run(command, cwd=tmp_path, stdout=follower, stderr=follower, check=False)
    said = os.read(leader, 10_000).decode()
    os.close(leader)
    os.close(follower)
    assert said.startswith("\x1b[1;31mError: \x1b[0m"), said
    assert not ACTING.search(said.partition("\x1b[0m")[2].replace("\r\n", "\n")), said


def test_files_mean_the_same_with_what_is_hostile_in_them(
    typed: Type, hostile: str, tmp_path: Path
) -> None:
    for style in ("toml", "json", "python"):
        typed("study", "export", hostile, "--format", style, "--output", f"winner.{style}")
    typed("study", "report", hostile, "--format", "json", "--output", "report.json")
    typed("study", "report", hostile, "--format", "markdown", "--output", "report.md")
    files = {path.name: path.read_text() for path in tmp_path.glob("*.*[!b]") if path.is_file()}
    assert len(files) >= 5
    for name, text in files.items():
        assert not ACTING.search(text), name
    assert json.loads(files["winner.json"])["own"]["kind"] == hostile
    assert json.loads(files["report.json"])["study"] == hostile
    tree = tomllib.loads(files["winner.toml"])
    assert re.fullmatch(r"x-.*-winner", tree["study"]["name"])
    compile(files["winner.python"], "winner.py", "exec")
    assert "\\[a\\](javascript:b)" in files["report.md"]
    assert "[a](" not in files["report.md"].replace("\\[a\\](", "")
