from __future__ import annotations

from dataclasses import replace
from io import StringIO

import pytest
from rich.console import Console

from tests.report.summaries import (
    advised_summary,
    half_settled_summary,
    make_spec,
    mixed_summary,
    summary_of,
    trial,
)
from tuner.analysis.advice.evidence import Advice
from tuner.analysis.summary import StudySummary
from tuner.domain.trials import Outcome, TrialRecord
from tuner.report.tables import TextTable
from tuner.report.terminal import FittedTable, TextConsole, print_report


def printed(summary: StudySummary, width: int = 160) -> str:
    console = Console(file=StringIO(), width=width, force_terminal=False)
    print_report(summary, console)
    assert isinstance(console.file, StringIO)
    return console.file.getvalue()


def test_the_report_ends_with_the_verdict() -> None:
    text = printed(mixed_summary())
    assert text.startswith("some_study  models.digits:Digits, minimize val_loss")
    assert text.index("Optimizers by val_loss") < text.index("Best trial: 2") < text.index("Cost")
    assert text.index("Cost") < text.index("Use adam with the cosine schedule")


def test_a_pipe_gets_no_colours() -> None:
    assert "\x1b[" not in printed(mixed_summary())


def test_a_pipe_gets_lines_as_long_as_their_text_and_no_spaces_at_their_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    stream, long = StringIO(), "word " * 60
    console = TextConsole(stream)
    console.print(FittedTable(TextTable("t", ("key", *"abcdef"), (("k", *[long] * 6),))))
    console.print(long)
    print_report(advised_summary(), console)
    lines = stream.getvalue().splitlines()
    assert any(line.count(long.strip()) == 6 for line in lines)
    assert long.strip() in lines
    assert [line for line in lines if line.endswith(" ")] == []


def test_a_narrow_terminal_keeps_the_names_of_the_optimizers() -> None:
    text = printed(mixed_summary(), width=60)
    assert "nesterov" in text
    assert max(map(len, text.splitlines())) <= 60


@pytest.mark.parametrize("name", ["[bold]study", "[red]", "a [link=x] b"])
def test_brackets_in_a_name_are_text_and_never_markup(name: str) -> None:
    assert name in printed(mixed_summary(make_spec(name=name)))


@pytest.mark.parametrize("name", ["[bold]", "recall[micro]"])
def test_brackets_in_a_table_are_text_and_never_markup(name: str) -> None:
    console = Console(file=StringIO(), width=100)
    console.print(FittedTable(TextTable(name, ("key", "value"), ((name, "1"),))))
    assert isinstance(console.file, StringIO)
    assert console.file.getvalue().count(name) == 2


@pytest.mark.parametrize("records", [(), (trial(0, outcome=Outcome.FAILED),)])
def test_a_study_without_a_winner_has_a_report(records: tuple[TrialRecord, ...]) -> None:
    text = printed(summary_of(*records))
    assert "Best trial" not in text
    assert "No trial" in text


def test_advice_comes_last_and_its_command_stays_on_one_line() -> None:
    text = printed(advised_summary(), width=40)
    after = text.partition("What next\n")[2]
    assert "    tuner study confirm 'a `b` <c>'\n" in after
    long = replace(advised_summary(), advice=(Advice("noise", "Why.", f"tuner {'x ' * 100}end"),))
    assert any(line.endswith("x end") for line in printed(long, width=40).splitlines())


def test_a_terminal_shows_five_pieces_of_advice_and_says_where_the_others_are() -> None:
    text = printed(advised_summary(pieces=7))
    assert text.count("It <b>may</b> be noise.") == 5
    assert text.rstrip().endswith("2 more: tuner study report some_study --format markdown")
    assert "more: " not in printed(advised_summary(pieces=5))


def test_what_is_not_settled_stands_below_a_line() -> None:
    lines = printed(half_settled_summary()).splitlines()
    start = next(place for place, line in enumerate(lines) if line.startswith("  adam "))
    adam, between, sgd = lines[start : start + 3]
    assert adam.split()[:2] == ["adam", "1"]
    assert between.strip() == ""
    assert sgd.split()[:2] == ["sgd", "–"]
