"""Every mistake gets one message with the place, the value, the rule and the remedy."""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from tuner.cli.main import UNAVAILABLE, cli

Tuner = Callable[..., subprocess.CompletedProcess[str]]

_GOOD = """
[study]
name = "small"
workload = "models.parabola:Parabola"
[budget]
trials = 4
steps = 20
[space]
optimizers = ["sgd", "adam"]
[train]
batch_size = 32
"""


def says(ended: subprocess.CompletedProcess[str], code: int, *parts: str) -> None:
    assert ended.returncode == code, ended.stderr
    assert "Traceback" not in ended.stderr
    for part in parts:
        assert part in ended.stderr
    assert ended.stdout == ""


@pytest.mark.parametrize(
    ("change", "parts"),
    [
        (("trials = 4", "trails = 4"), ("budget.trails", "did you mean 'trials'")),
        (("[train]", "[trian]"), ("trian", "did you mean 'train'")),
        (('"adam"]', '"adm"]'), ("space.optimizers", "'adm'", "did you mean 'adam'")),
        (("steps = 20", "steps = 20\nepochs = 3"), ("budget", "exactly one of")),
        (("trials = 4", "trials = 0"), ("budget.trials = 0", "greater than or equal to 1")),
        (("trials = 4", 'trials = "many"'), ("budget.trials = 'many'", "valid integer")),
        (
            ("[train]", "[optimizer.adam]\nlr = { low = 0.1, high = 0.01 }\n[train]"),
            ("optimizer.adam.lr", "low = 0.1 is above high = 0.01"),
        ),
        (
            ("[train]", "[optimizer.adam]\nlr = { low = 0, high = 0.1, log = true }\n[train]"),
            ("optimizer.adam.lr", "must start above 0"),
        ),
        (
            ("[train]", "[optimizer.adam]\nbeta3 = 0.5\n[train]"),
            ("optimizer.adam", "'beta3'", "did you mean 'beta"),
        ),
        (
            ("[train]", "[optimizer.muon]\nlr = 0.5\n[train]"),
            ("optimizer.muon", "not in space.optimizers"),
        ),
        (
            ("models.parabola:Parabola", "models/parabola"),
            ("study.workload", "models.digits:Digits"),
        ),
        (("[study]", "[study"), ("not valid TOML",)),
        (("batch_size = 32", "batch_size = 3200"), ("train.batch_size = 3200", "800 training")),
        (
            ('"small"', '"small"\nmetric = "f1"'),
            ("study.metric = 'f1'", "val_loss"),
        ),
        (("models.parabola:", "models.parabel:"), ("importing models.parabel failed",)),
        (("parabola:Parabola", "parabola:Parable"), ("has no 'Parable'",)),
        (("parabola:Parabola", "parabola:torch"), ("not a workload",)),
    ],
    ids=lambda value: value[-1].splitlines()[0][:40],
)
def test_mistake_in_a_study_file_is_explained_and_creates_nothing(
    typed: Tuner, project: Path, change: tuple[str, str], parts: tuple[str, ...]
) -> None:
    assert change[0] in _GOOD
    (project / "bad.toml").write_text(_GOOD.replace(*change))
    says(typed("study", "create", "bad.toml"), 2, *parts)
    assert not (project / "tuner.db").exists()
    assert not (project / ".tuner").exists()


def test_missing_file_is_named(typed: Tuner) -> None:
    says(typed("run", "studies/digit.toml"), 2, "studies/digit.toml", "no such file")


def test_a_study_file_named_by_its_stem_is_suggested(typed: Tuner, project: Path) -> None:
    (project / "studies").mkdir(exist_ok=True)
    (project / "studies" / "mine.toml").write_text(_GOOD)
    says(typed("run", "mine"), 2, "mine: no such file. Did you mean studies/mine.toml?")
    assert not (project / "tuner.db").exists()


def test_a_study_named_in_place_of_its_file_is_gone_on_with_by_another_command(
    typed: Tuner, project: Path
) -> None:
    (project / "good.toml").write_text(_GOOD)
    assert typed("study", "create", "good.toml", "--no-check").returncode == 0
    for command in (("run",), ("study", "create")):
        says(typed(*command, "small"), 2, "no such file", "tuner study run small")


def test_a_workload_named_in_place_of_a_file_has_an_option(typed: Tuner) -> None:
    says(typed("run", "models.mine:Mine"), 2, "--workload models.mine:Mine")


def test_a_file_in_place_of_a_database_s_url_is_suggested_as_one(typed: Tuner) -> None:
    for command in (
        ("study", "list"),
        ("study", "show", "x"),
        ("db", "status"),
        ("workers", "list", "x"),
    ):
        says(typed(*command, "--storage", "tuner.db"), 2, "did you mean sqlite:///tuner.db?")


@pytest.mark.parametrize("command", ["study", "suite"])
@pytest.mark.parametrize("style", ["html", "markdown", "terminal"])
def test_two_formats_at_once_are_refused(typed: Tuner, command: str, style: str) -> None:
    for options in (("--format", style, "--json"), ("--json", "--format", style)):
        says(typed(command, "report", "x", *options), 2, f"--format {style} and --json contradict")


def test_run_without_file_or_workload_says_what_to_give(typed: Tuner) -> None:
    says(typed("run"), 2, "--workload")


@pytest.mark.parametrize(
    ("setting", "part"),
    [
        ("budget.trials", "key=value"),
        ("budget.trails=3", "did you mean 'trials'"),
        ("=3", "key=value"),
    ],
)
def test_mistake_in_a_setting_is_explained(typed: Tuner, setting: str, part: str) -> None:
    says(typed("study", "create", "studies/parabola.toml", "--set", setting), 2, part)


def test_unknown_study_is_told_and_makes_no_database(
    tuner: Tuner, typed: Tuner, project: Path
) -> None:
    for arguments in (["study", "show", "x"], ["study", "report", "x"]):
        says(typed(*arguments), 2, "there is no database yet")
    says(tuner("worker", "start", "x"), 2, "there is no database yet")
    assert not (project / "tuner.db").exists()


def test_folder_of_the_database_must_exist(typed: Tuner) -> None:
    says(
        typed("study", "create", "studies/parabola.toml", "--storage", "sqlite:///no/such/x.db"),
        1,
        "no/such",
    )


def test_text_file_is_no_database(typed: Tuner, project: Path) -> None:
    (project / "notes.db").write_text("notes\n" * 1000)
    says(typed("study", "list", "--storage", "sqlite:///notes.db"), 1, "notes.db", "SQLite")


def test_unreachable_server_is_told_without_its_password(typed: Tuner) -> None:
    url = "postgresql+psycopg://ann:hunter2@127.0.0.1:1/tuner"
    ended = typed("study", "list", "--storage", url)
    says(ended, UNAVAILABLE, "ann:***@127.0.0.1")
    assert "hunter2" not in ended.stderr


def test_database_of_a_newer_version_is_told(typed: Tuner, project: Path) -> None:
    assert typed("study", "create", "studies/parabola.toml").returncode == 0
    with sqlite3.connect(project / "tuner.db") as connection:
        connection.execute("UPDATE tuner_alembic_version SET version_num = '0999'")
    connection.close()
    says(typed("study", "list"), 1, "0999", "newer")
    shown = typed("db", "status")
    assert shown.returncode == 0
    assert "0999 (known: " in shown.stdout
    assert "a newer tuner made the tables" in shown.stdout
    assert json.loads(typed("db", "status", "--json").stdout)["needs_newer"]


def test_other_spec_under_a_used_name_is_shown_and_refused(typed: Tuner, project: Path) -> None:
    assert typed("study", "create", "studies/parabola.toml").returncode == 0
    changed = ["--set", "search.seed=4", "--set", "budget.epochs=3"]
    ended = typed("study", "create", "studies/parabola.toml", *changed)
    says(ended, 2, "search.seed: 0 in the database, 4 now", "budget.epochs: 12.0", "--name")


DEEP = 20_000


@pytest.mark.parametrize(
    ("arguments", "part"),
    [
        (("--set", f"optimizer.adam.lr={'[' * DEEP}{']' * DEEP}"), "nested too deeply"),
        (("--set", f"budget.trials={'9' * 5000}"), "more than 64 bits"),
        (("--set", f"train.batch_size={{ choices = [0x{'f' * 5000}] }}"), "more than 64 bits"),
        (("--set", f"budget.steps={2**63}"), "more than 64 bits"),
        (("--optimizers", f"{'lookahead(' * 2000}sgd{')' * 2000}"), "looks ahead already"),
        (("--set", f"train.precision={'x' * 5000}"), "train.precision = 'xxx"),
        (("--workload", "x" * 5000), "must be an import string"),
        (("--name", "/" * 5000), "at most 200 characters"),
    ],
    ids=lambda value: value[1][:30] if isinstance(value, tuple) else "",
)
def test_what_is_too_deep_large_or_long_is_refused_and_echoed_in_part(
    project: Path, arguments: tuple[str, ...], part: str
) -> None:
    ended = CliRunner().invoke(cli, ["study", "create", "studies/parabola.toml", *arguments])
    assert ended.exit_code == 2, ended.output
    assert part in ended.output
    assert "fault of tuner" not in ended.output
    assert max(map(len, ended.output.splitlines())) < 600


@pytest.mark.parametrize("depth", [50, 300, 480, DEEP])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ("{ a = ", " }")])
def test_study_file_nested_too_deeply_is_refused(
    project: Path, depth: int, opening: str, closing: str
) -> None:
    deep = f"{opening * depth}1{closing * depth}"
    Path("deep.toml").write_text(f"{_GOOD}\n[optimizer.adam]\nlr = {deep}\n")
    ended = CliRunner().invoke(cli, ["study", "create", "deep.toml"])
    assert ended.exit_code == 2, ended.output
    assert "fault of tuner" not in ended.output
    assert max(map(len, ended.output.splitlines())) < 600


@pytest.mark.parametrize("arguments", [("x" * 5000,), ("trial", "show", "x", "9" * 5000)])
def test_word_that_is_no_command_or_number_is_echoed_in_part(
    project: Path, arguments: tuple[str, ...]
) -> None:
    ended = CliRunner().invoke(cli, arguments)
    assert ended.exit_code == 2
    assert max(map(len, ended.output.splitlines())) < 600


@pytest.mark.parametrize(
    ("home", "part"),
    [
        ("file", "the folder cannot be made"),
        ("file/below", "the folder cannot be made"),
        ("loop", "the folder cannot be made"),
        ("~nobody-of-this-name/x", "there is no such user"),
    ],
)
def test_home_that_cannot_be_one_is_told(
    project: Path, monkeypatch: pytest.MonkeyPatch, home: str, part: str
) -> None:
    Path("file").write_text("")
    Path("loop").symlink_to("loop")
    create = ["study", "create", "studies/parabola.toml", "--no-check"]
    assert CliRunner().invoke(cli, create).exit_code == 0
    monkeypatch.setenv("TUNER_HOME", home)
    ended = CliRunner().invoke(cli, ["study", "run", "parabola", "--device", "cpu"])
    assert ended.exit_code in (1, 2)
    assert part in ended.output
    assert "fault of tuner" not in ended.output


@pytest.mark.parametrize("place", ["loop", "loop/x", "file/x"])
def test_place_that_leads_nowhere_is_told(
    project: Path, monkeypatch: pytest.MonkeyPatch, place: str
) -> None:
    Path("file").write_text("")
    Path("loop").symlink_to("loop")
    url = ["--storage", f"sqlite:///{place}"]
    for arguments in (
        ["study", "create", place],
        ["study", "create", "studies/parabola.toml", "--no-check", *url],
        ["study", "report", "x", *url],
        ["dashboard", "--password-file", place],
        ["init", place],
    ):
        ended = CliRunner().invoke(cli, arguments)
        assert ended.exit_code in (1, 2), ended.output
        assert "fault of tuner" not in ended.output, ended.output


def test_deleted_working_directory_is_told_where_it_matters(project: Path) -> None:
    gone = project / "gone"
    gone.mkdir()
    os.chdir(gone)
    gone.rmdir()
    for arguments in (["study", "list"], ["run", str(project / "studies/parabola.toml")]):
        ended = CliRunner().invoke(cli, arguments)
        assert ended.exit_code == 2
        assert "The working directory has been deleted" in ended.output
    assert CliRunner().invoke(cli, ["optimizers", "adam"]).exit_code == 0


def test_debug_shows_where_an_error_comes_from(tuner: Tuner) -> None:
    ended = tuner("--debug", "study", "create", "studies/parabola.toml", "--set", "budget.trials=0")
    assert "Traceback" in ended.stderr


def test_device_that_is_not_there_is_told(typed: Tuner) -> None:
    says(
        typed("run", "studies/parabola.toml", "--device", "cuda:93"), 2, "cuda:93", "--device auto"
    )
