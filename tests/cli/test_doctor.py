"""The examination, as typed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from tuner.cli.main import cli
from tuner.service.doctor import examination
from tuner.service.doctor.finding import Finding

Type = Callable[..., Result]


@pytest.fixture
def typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Type:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TUNER_HOME", str(tmp_path / ".tuner"))
    monkeypatch.delenv("TUNER_STORAGE", raising=False)
    monkeypatch.delenv("TUNER_STORAGE_FILE", raising=False)

    def type_(*words: str) -> Result:
        return CliRunner().invoke(cli, ["doctor", *words])

    return type_


def test_everything_is_told_and_nothing_is_changed(typed: Type) -> None:
    shown = typed()
    assert shown.exit_code in (0, 1)
    for topic in ("python", "packages", "devices", "cores", "checkpoints", "data", "database"):
        assert topic in shown.stdout
    assert list(Path.cwd().iterdir()) == []


def test_a_problem_is_told_with_its_remedy_and_ends_with_1(typed: Type) -> None:
    shown = typed("-q", "--storage", "sqlite:////no/such/folder/a.db")
    assert shown.exit_code == 1
    problem, remedy, *_ = shown.stdout[shown.stdout.index("problem") :].splitlines()
    assert "/no/such/folder does not exist" in problem
    assert remedy.strip().startswith("→ ")
    assert "ok " not in shown.stdout


def test_json_has_every_finding(typed: Type) -> None:
    found = json.loads(typed("--json").stdout)
    assert {"topic", "level", "text", "remedy"} == set(found["findings"][0])
    levels = [one["level"] for one in found["findings"]]
    for level in ("ok", "warning", "problem"):
        assert found[level] == levels.count(level)


def test_a_file_of_the_url_that_is_missing_is_a_finding(
    typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_STORAGE_FILE", "/no/such/file")
    shown = typed("-q")
    assert shown.exit_code == 1
    assert "TUNER_STORAGE_FILE = /no/such/file: cannot be read" in shown.stdout


def test_a_part_that_breaks_is_a_finding_and_the_others_go_on(
    typed: Type, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail() -> list[Finding]:
        raise ZeroDivisionError("of its own")

    monkeypatch.setattr(examination, "examine_clock", fail)
    shown = typed()
    assert shown.exit_code == 1
    assert "cannot be looked at: ZeroDivisionError: of its own" in shown.stdout
    assert "database" in shown.stdout
