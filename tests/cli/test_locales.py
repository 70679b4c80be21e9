"""Names of any letters, typed and shown where the locale knows ASCII alone."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.cli.test_light_commands import commands
from tuner.cli.main import cli
from tuner.cli.words import STUDY, TEXT

Tuner = Callable[..., subprocess.CompletedProcess[str]]

NAME = "größe"

SPEC = f"""
[study]
name = "{NAME}"
workload = "models.parabola:Parabola"
[budget]
trials = 1
steps = 2
evaluations = 1
[space]
optimizers = ["sgd"]
schedules = ["constant"]
"""


@pytest.fixture(autouse=True)
def ascii_locale(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (project / "named.toml").write_text(SPEC, encoding="utf-8")
    (project / f"{NAME}2.toml").write_text(SPEC.replace(f'name = "{NAME}"\n', ""), encoding="utf-8")
    for key, value in (("LC_ALL", "C"), ("PYTHONUTF8", "0"), ("PYTHONCOERCECLOCALE", "0")):
        monkeypatch.setenv(key, value)


def test_a_study_is_found_by_its_name_as_typed(tuner: Tuner) -> None:
    created = tuner("study", "create", "named.toml", "--no-check")
    assert created.returncode == 0, created.stderr
    for command in (("study", "show", NAME), ("study", "list"), ("study", "delete", NAME, "--yes")):
        ended = tuner(*command)
        assert ended.returncode == 0, ended.stderr


def test_every_name_is_read_as_typed() -> None:
    named = [
        param
        for path, command in commands(cli)
        for param in command.params
        if path[0] not in ("optimizers", "schedules") and param.name in ("name", "study")
    ]
    assert len(named) > 10
    assert all(param.type in (TEXT, STUDY) for param in named)


@pytest.mark.parametrize(
    "arguments",
    [
        ("named.toml", "--name", f"{NAME}2"),
        ("named.toml", "--set", f"study.name={NAME}2"),
        (f"{NAME}2.toml",),
    ],
    ids=["option", "setting", "stem"],
)
def test_a_study_is_named_as_typed(tuner: Tuner, arguments: tuple[str, ...]) -> None:
    ended = tuner("study", "create", "--no-check", *arguments)
    assert ended.returncode == 0, ended.stderr
    assert tuner("study", "show", f"{NAME}2").returncode == 0
    unknown = tuner("trial", "show", f"{NAME}3", "0")
    assert unknown.returncode == 2
    assert "has no study" in unknown.stderr


@pytest.mark.slow
def test_a_study_of_such_a_name_is_trained_by_workers_of_its_own(tuner: Tuner) -> None:
    ended = tuner("run", "named.toml")
    assert ended.returncode == 0, ended.stderr


def test_a_name_that_is_no_text_is_told(tuner: Tuner) -> None:
    ended = tuner("study", "show", "bad\udcff")
    assert ended.returncode == 2
    assert "is no text in UTF-8" in ended.stderr
    assert "Traceback" not in ended.stderr
