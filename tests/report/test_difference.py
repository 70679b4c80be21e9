"""Two studies side by side, as a page and as Markdown."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, datetime

from tests.report.summaries import make_spec, mixed_summary, summary_of, trial
from tests.report.test_html import Page
from tuner.report.charts.pair import draw_pair
from tuner.report.difference import difference_tables
from tuner.report.html import to_difference_html
from tuner.report.markdown import to_difference_markdown

NOW = datetime(2026, 1, 2, tzinfo=UTC)


def test_the_page_has_both_answers_a_chart_and_the_tables() -> None:
    one = mixed_summary()
    other = replace(mixed_summary(make_spec("other", search={"seed": 7})), name="other")
    page = Page(to_difference_html(one, other, NOW))
    assert page.text.count("Use adam with the cosine schedule") == 2
    for said in ("some_study and other", "Settings that differ", "search.seed", "Results"):
        assert said in page.text
    assert "chart-pair" in set(page.values("id"))
    assert page.open == []
    assert page.loaded == []


def test_a_long_setting_is_cut_and_no_table_is_wider_than_a_page() -> None:
    one = mixed_summary()
    finalists = [
        {"trial": n, "params": {"optimizer": "adam", "schedule": "cosine"}} for n in (0, 1)
    ]
    again = {"study": "0" * 32, "finalists": finalists, "seeds": 5, "runs": 10}
    other = replace(mixed_summary(make_spec("other", confirmation=again)), name="other")
    settings = difference_tables(one, other)[0]
    assert ("confirmation.seeds", "–", "5") in settings.rows
    told = next(row[2] for row in settings.rows if row[0] == "confirmation.finalists")
    assert told.startswith('{"trial": 0')
    assert len(told) <= 60


def test_an_optimizer_has_one_colour_in_both_studies() -> None:
    space = {"optimizers": ["sgd", "adam"], "schedules": ["constant"]}
    one = summary_of(trial(0, "adam", 0.5), spec=make_spec("one"))
    other = summary_of(trial(0, "adam", 0.4), spec=make_spec("two", space=space))
    source = to_difference_html(one, other, NOW)
    assert len(set(re.findall(r'<div class="answer (h\d)"', source))) == 1


def test_the_chart_tells_who_is_ahead_and_draws_what_only_one_has_tried() -> None:
    one = summary_of(trial(0, "adam", 0.5), trial(1, "sgd", 0.2), spec=make_spec("one"))
    other = summary_of(trial(0, "adam", 0.4), trial(1, "lion", 0.3), spec=make_spec("two"))
    chart = draw_pair(one, other)
    assert chart is not None
    assert chart.finding == ("Of one optimizer with a value in both, one is ahead in 0, two in 1.")
    assert [row[0] for row in chart.rows] == ["sgd", "lion", "adam"]
    assert chart.rows[0][1:] == ("0.2", "–")
    empty = summary_of(spec=make_spec("none"))
    assert draw_pair(empty, empty) is None


def test_values_of_different_things_are_told_apart_and_not_drawn() -> None:
    one = summary_of(trial(0, "adam", 0.5), spec=make_spec("one"))
    accuracy = make_spec("two", "val_accuracy", "maximize")
    other = summary_of(trial(0, "adam", 0.9), spec=accuracy)
    page = Page(to_difference_html(one, other, NOW))
    assert "'one' is to minimize val_loss, 'two' to maximize val_accuracy" in page.text
    assert "chart-pair" not in set(page.values("id"))
    assert "**Their values are of different things" in to_difference_markdown(one, other)


def test_names_with_markup_stay_text() -> None:
    bad = "<img src=x onerror=alert(1)>"
    one = summary_of(trial(0, "adam", 0.5), spec=make_spec(bad))
    page = Page(to_difference_html(one, one, NOW))
    assert "img" not in page.tags
    assert bad in page.text
