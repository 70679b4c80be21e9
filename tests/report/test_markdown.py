from __future__ import annotations

import re
from dataclasses import replace

import pytest

from tests.report.summaries import (
    advised_summary,
    make_spec,
    mixed_summary,
    summary_of,
    trial,
)
from tuner.analysis.advice.evidence import Advice
from tuner.domain.trials import Outcome, TrialRecord
from tuner.report.conclusion import conclude
from tuner.report.markdown import to_card, to_markdown


def test_the_report_says_what_the_study_found() -> None:
    text = to_markdown(mixed_summary())
    assert text.startswith("# some\\_study\n\n`models.digits:Digits`, minimize `val_loss`\n\n**Use")
    for title in ("## Optimizers by", "## Best trial: 2", "## Cost"):
        assert title in text


def test_every_row_of_a_table_has_as_many_cells_as_its_head() -> None:
    for block in to_markdown(mixed_summary()).split("\n\n"):
        rows = [line for line in block.splitlines() if line.startswith("|")]
        assert len({len(re.findall(r"(?<!\\)\|", row)) for row in rows}) <= 1


def test_a_table_has_a_rule_under_its_head() -> None:
    text = to_markdown(mixed_summary())
    assert "| setting | value |\n| --- | ---: |\n| lr | 0.1 |" in text


def test_names_are_text_and_never_markup() -> None:
    text = to_markdown(mixed_summary(make_spec(name="a_b*c|d<script>")))
    assert "# a\\_b\\*c\\|d&lt;script&gt;" in text


def test_underscores_around_a_metric_are_text_and_never_markup() -> None:
    text = to_markdown(mixed_summary(make_spec(metric="_loss_")))
    assert "## Optimizers by \\_loss\\_, best first" in text


@pytest.mark.parametrize("records", [(), (trial(0, outcome=Outcome.FAILED),)])
def test_a_study_without_a_winner_has_a_report_without_settings(
    records: tuple[TrialRecord, ...],
) -> None:
    text = to_markdown(summary_of(*records))
    assert text.count("\n## ") == 2
    assert "Best trial" not in text


def test_advice_comes_last_with_its_command_as_code() -> None:
    text = to_markdown(advised_summary())
    assert text.endswith(
        "## What next\n\nIt &lt;b&gt;may&lt;/b&gt; be noise.\n\n"
        "```sh\ntuner study confirm 'a `b` <c>'\n```"
    )
    fenced = replace(advised_summary(), advice=(Advice("noise", "Why.", "tuner '```'"),))
    assert to_markdown(fenced).endswith("````sh\ntuner '```'\n````")
    assert "What next" not in to_markdown(mixed_summary())


def test_card_says_whom_to_use_how_sure_and_what_next() -> None:
    summary = advised_summary()
    card = to_card(summary)
    verdict, *doubts = conclude(summary)
    assert card.startswith("**Use ")
    plain = card.replace("\\", "")
    assert all(sentence in plain for sentence in (verdict, *doubts))
    assert (
        "*Not confirmed: the best of one seed. Confirm it: tuner study confirm some_study*" in plain
    )
    assert "| setting | value |" in card
    assert "val\\_accuracy, measured last | 0.9 |" in card
    assert "## What next" in card
    assert all(advice.command in card for advice in summary.advice)
    assert "```sh\ntuner study report some_study\ntuner study export some_study\n```" in card


def test_card_of_a_study_without_a_result_has_no_table_and_exports_nothing() -> None:
    for records in ((), (trial(0, outcome=Outcome.FAILED),), (trial(0, outcome=Outcome.DIVERGED),)):
        card = to_card(summary_of(*records))
        assert card.startswith("**No trial ")
        assert "|" not in card
        assert "export" not in card


@pytest.mark.parametrize("name", ["a_b*c|d<script>", "``` `x`", "[a](b)"])
def test_names_in_a_card_are_text(name: str) -> None:
    card = to_card(mixed_summary(make_spec(name=name)))
    prose = re.sub(r"(`{3,})sh\n.*?\n\1", "", card, flags=re.DOTALL)
    assert not re.search(r"(?<!\\)[<`]|(?<!\\)\]\(", prose)
