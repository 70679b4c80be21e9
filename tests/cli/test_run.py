from __future__ import annotations

import json
import subprocess
from collections import Counter
from collections.abc import Callable
from typing import Any

import click
import pytest
import sqlalchemy as sa

from tuner.cli.worker import start, work
from tuner.service.interruption import Interruption
from tuner.store import Studies, StudyHandle

Tuner = Callable[..., subprocess.CompletedProcess[str]]

ONE_TRIAL = ("studies/parabola.toml", "--set", "budget.trials=1", "--set", "budget.epochs=1")


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Counter[str]:
    """Counts the engines that this process makes, and the studies that it looks up by name."""
    counts: Counter[str] = Counter()
    connect, get = sa.Engine.__init__, Studies.get

    def count_engine(self: sa.Engine, *arguments: Any, **options: Any) -> None:
        counts["engines"] += 1
        connect(self, *arguments, **options)

    def count_look_up(self: Studies, name: str) -> StudyHandle | None:
        counts["studies"] += 1
        return get(self, name)

    monkeypatch.setattr(sa.Engine, "__init__", count_engine)
    monkeypatch.setattr(Studies, "get", count_look_up)
    return counts


def test_every_command_opens_the_database_once_and_looks_its_study_up_once(
    typed: Tuner, opened: Counter[str]
) -> None:
    once = {"engines": 1, "studies": 1}
    for command in (
        ("study", "create", *ONE_TRIAL),
        ("run", *ONE_TRIAL),
        ("run", *ONE_TRIAL),
        ("run", *ONE_TRIAL, "--set", "budget.wall_time=1h"),
        ("study", "run", "parabola"),
        ("study", "report", "parabola"),
        ("study", "report", "parabola", "--format", "html", "--output", "report.html"),
        ("study", "show", "parabola"),
        ("workers", "launch", "parabola", "--devices", "cpu"),
        ("trial", "show", "parabola", "0"),
    ):
        opened.clear()
        ended = typed(*command)
        assert ended.returncode == 0, ended.stderr
        # In a database that is not there yet, there is nothing to look up.
        expected = {"engines": 1} if command[1] == "create" else once
        assert opened == expected, command

    opened.clear()
    with click.Context(start):
        work("parabola", None, "cpu", None, Interruption())
    assert opened == once


def test_quiet_run_prints_its_report_as_json_and_nothing_else(tuner: Tuner) -> None:
    small = ("--set", "budget.trials=2", "--set", "budget.epochs=1", "--device", "cpu")
    ended = tuner("run", "studies/parabola.toml", *small, "-q", "--json")
    assert ended.returncode == 0, ended.stderr
    assert ended.stderr == ""
    found = json.loads(ended.stdout)
    assert found["study"] == "parabola"
    assert sum(found["counts"].values()) == 2
