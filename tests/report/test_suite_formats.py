"""The report of a suite in every format, and as a file that a later one takes the place of."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.analysis.suites import even, suite_of
from tests.report.test_html import Page
from tuner.analysis.suite import SuiteSummary
from tuner.errors import SpecError
from tuner.report.charts.profiles import draw_profiles
from tuner.report.files import write_file
from tuner.report.html import to_suite_html
from tuner.report.json import to_suite_json
from tuner.report.markdown import to_suite_markdown
from tuner.report.terminal import TextConsole, print_suite


def to_terminal(summary: SuiteSummary) -> str:
    text = io.StringIO()
    print_suite(summary, TextConsole(text))
    return text.getvalue()


STYLES: dict[str, Callable[[SuiteSummary], str]] = {
    "json": lambda summary: json.dumps(to_suite_json(summary), indent=2),
    "markdown": to_suite_markdown,
    "html": to_suite_html,
    "terminal": to_terminal,
}


@pytest.fixture
def summary() -> SuiteSummary:
    late = even(4, 6, 1) | {"muon": [None] * 3}
    return suite_of(digits=even(4, 6, 2), own=late, parabola="it has no study yet")


@pytest.mark.parametrize("style", STYLES)
def test_a_report_takes_the_place_of_a_former_one(
    tmp_path: Path, summary: SuiteSummary, style: str
) -> None:
    path = tmp_path / "out"
    for _ in range(2):
        write_file(path, STYLES[style](summary))
    assert "adam" in path.read_text()


def test_nothing_is_written_over_a_suite_file(tmp_path: Path, summary: SuiteSummary) -> None:
    path = tmp_path / "suite.toml"
    path.write_text('[[workload]]\nstudy = "digits.toml"\n')
    with pytest.raises(SpecError, match="name another file"):
        write_file(path, to_suite_markdown(summary), force=True)


@pytest.mark.parametrize("style", ["markdown", "html", "terminal"])
def test_the_conclusion_and_the_tables_are_in_every_format(
    summary: SuiteSummary, style: str
) -> None:
    text = " ".join(STYLES[style](summary).split())
    for words in (
        "suite of 3 workloads, 3 optimizers, baseline adamw",
        "adam scores best",
        "τ = 1.5",
    ):
        assert words in text


def test_the_page_draws_profiles_that_end_where_they_should(summary: SuiteSummary) -> None:
    chart = draw_profiles(summary)
    assert chart is not None
    told = {row[0]: row[1:] for row in chart.rows}
    assert told["adam"] == ("1, 2", "100%")
    assert told["muon"] == ("1", "50%")
    drawn = str(chart.panels[0].drawn)
    # adam's line: up at 1, up at 2 times the fewest steps, and on to 4.
    assert re.search(r'd="M0,280H0V146\.7H333\.3V13\.3H1000" class="h\d best"', drawn)


def test_a_suite_without_scores_has_a_page_without_plots() -> None:
    page = Page(to_suite_html(suite_of(digits="gone")))
    assert (page.tags.count("table"), page.tags.count("figure")) == (1, 0)


def test_the_page_loads_nothing(summary: SuiteSummary) -> None:
    assert Page(to_suite_html(summary)).loaded == []


def test_json_has_null_where_a_target_was_missed(summary: SuiteSummary) -> None:
    told = json.loads(json.dumps(to_suite_json(summary), allow_nan=False))
    assert (told["suite"], told["baseline"], told["scored"]) == ("mine", "adamw", 2)
    own = {standing["optimizer"]: standing for standing in told["workloads"][1]["standings"]}
    assert (own["muon"]["steps"], own["muon"]["ratio"], own["muon"]["reached"]) == (None, None, 0)
    assert told["workloads"][2]["missing"] == "it has no study yet"
    best = told["scores"]["steps"][0]
    assert (best["optimizer"], best["profile"]["1"]) == ("adam", 0.5)
    assert best["speedup"]["both"] == 2
