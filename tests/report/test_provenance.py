from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from tests.report.strange import STRANGE
from tests.report.summaries import mixed_summary
from tuner.domain.study_file import parse_spec, read_spec
from tuner.report.charts.view import View
from tuner.report.provenance import commands, provenance, study_file


@pytest.mark.parametrize("name", STRANGE)
def test_the_study_file_makes_the_same_study_again(name: str, tmp_path: Path) -> None:
    view = STRANGE[name]()
    path = tmp_path / "again.toml"
    path.write_text(study_file(view), encoding="utf-8")
    again = parse_spec(read_spec(path), origin="again.toml").resolve()
    assert again.differences(view.summary.spec) == {}


def test_facts_name_the_time_the_device_the_seed_and_the_versions() -> None:
    told = dict(provenance(STRANGE["usual"](), datetime(2026, 1, 2, 3, 4, tzinfo=UTC)))
    assert told["report made"] == "2026-01-02 03:04 UTC"
    assert (told["device"], told["seed"]) == ("cuda:0", "0")
    assert "torch 2." in told["versions, of this report"]


def test_commands_are_quoted_for_a_shell() -> None:
    told = [command for _, command in commands(STRANGE["markup"]())]
    assert told[0].startswith("tuner study run '<img src=x")
    assert commands(View(mixed_summary(), {}))[1][1] == "tuner run some_study.toml"
