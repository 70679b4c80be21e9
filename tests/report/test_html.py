from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from tests.report.summaries import (
    advised_summary,
    averaging_summary,
    half_settled_summary,
    make_spec,
    mixed_summary,
    summary_of,
    trial,
)
from tuner.analysis.summary import StudySummary
from tuner.domain.trials import Outcome, TrialRecord
from tuner.report.html import to_html

LOADING = {"src", "href", "data", "poster", "srcset", "action"}


class Page(HTMLParser):
    """What a browser would make of a page: its tags, its text, and what it would load."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.loaded: list[str] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.loaded += [f"{tag} {k}={v}" for k, v in attrs if k in LOADING]

    def handle_data(self, data: str) -> None:
        if self.tags and self.tags[-1] not in ("script", "style"):
            self.text += data


def render(summary: StudySummary) -> str:
    return to_html(summary, summary.records)


def page_of(summary: StudySummary) -> Page:
    return Page(render(summary))


@pytest.fixture(scope="module")
def page() -> Page:
    return page_of(mixed_summary())


def test_the_page_loads_nothing(page: Page) -> None:
    assert page.loaded == []
    assert "link" not in page.tags
    assert "iframe" not in page.tags


def test_the_page_says_what_the_study_found(page: Page) -> None:
    for said in ("some_study", "models.digits:Digits", "Use adam with the cosine schedule", "0.25"):
        assert said in page.text


def test_the_page_has_the_tables_and_the_plots(page: Page) -> None:
    assert page.tags.count("table") == 3
    for title in ("Optimizers by val_loss", "Best trial: 2", "Cost", "Best value over trials"):
        assert title in page.text
    assert page.tags.count("h2") == 3 + 4


def test_averages_are_compared_and_their_lines_drawn() -> None:
    source = render(averaging_summary())
    page = Page(source)
    assert "Averages of weights by val_loss" in page.text
    assert "From the last weights to their average" in page.text
    drawn = json.JSONDecoder().raw_decode(source[source.index('[{"mode":"lines+markers"') :])[0]
    assert [(line["name"], line["x"], line["y"]) for line in drawn] == [
        ("ema, trial 1", [0.0, 0.5, 1.0], [0.6, 0.5, 0.4]),
        ("swa, trial 3", [0.0, 0.5, 1.0], [0.45, 0.5, 0.55]),
    ]


def test_the_winner_s_row_is_marked() -> None:
    source = render(mixed_summary())
    assert re.search(r'<tr class="first[ \w]*"><td>adam</td>', source)
    assert source.count('class="first') == 1


def test_what_is_not_settled_stands_below_a_line() -> None:
    assert '<tr class="first below"><td>sgd</td><td>–</td>' in render(half_settled_summary())
    only = make_spec(space={"optimizers": ["adam"]})
    assert 'below">' not in render(summary_of(trial(0, "adam", 0.5), spec=only))


def test_advice_stands_with_its_command() -> None:
    page = page_of(advised_summary())
    assert "What next" in page.text
    assert "It <b>may</b> be noise." in page.text
    assert "tuner study confirm 'a `b` <c>'" in page.text
    assert "b" not in page.tags
    assert "What next" not in page_of(mixed_summary()).text


def test_importance_is_a_table() -> None:
    assert "Importance: how much of the differences" in page_of(advised_summary()).text


def test_names_are_text_and_never_markup() -> None:
    spec = make_spec(name="<img src=x onerror=alert(1)>")
    page = page_of(mixed_summary(spec))
    assert "img" not in page.tags
    assert page.loaded == []
    assert "<img src=x onerror=alert(1)>" in page.text


@pytest.mark.parametrize(
    "records", [(), (trial(0, outcome=Outcome.FAILED), trial(1, outcome=Outcome.RUNNING))]
)
def test_a_study_without_a_winner_has_a_page_without_plots(
    records: tuple[TrialRecord, ...],
) -> None:
    page = page_of(summary_of(*records))
    assert page.tags.count("h2") == page.tags.count("table") == 2


def test_a_study_with_one_trial_has_a_page() -> None:
    assert "Use adam" in page_of(summary_of(trial(0, "adam", 0.5))).text
