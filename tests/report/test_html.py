from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import UTC, datetime
from html.parser import HTMLParser

import pytest

from tests.report.strange import STRANGE, Recipe, make_spec_of, view_of
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
from tuner.domain.trials import Outcome
from tuner.report.charts.knobs import draw_rates
from tuner.report.charts.selection import CURVES, LISTED, choose_curves
from tuner.report.charts.view import View
from tuner.report.html import to_card, to_html

NOW = datetime(2026, 1, 2, tzinfo=UTC)
LOADING = {"src", "data", "poster", "srcset", "action"}
EMPTY = {"meta", "input", "br", "img"}


class Page(HTMLParser):
    """What a browser would make of a page: its tags, its text, and what it would load."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(source)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))
        if tag not in EMPTY:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if not set(self.open) & {"script", "style"}:
            self.text += data

    @property
    def loaded(self) -> list[str]:
        """What it would load: anything but an anchor in itself."""
        found = []
        for tag, attributes in self.attributes:
            found += [f"{tag} {key}" for key in attributes if key in LOADING]
            if not (attributes.get("href") or "#").startswith("#"):
                found.append(f"{tag} href")
        return found

    def values(self, key: str) -> Iterable[str]:
        """Returns the values of an attribute."""
        return (attributes[key] or "" for _, attributes in self.attributes if key in attributes)


def view_of_summary(summary: StudySummary) -> View:
    chosen = set(choose_curves(summary))
    return View(summary, {r.number: r.evaluations for r in summary.records if r.number in chosen})


def render(summary: StudySummary) -> str:
    return to_html(view_of_summary(summary), NOW)


def page_of(summary: StudySummary) -> Page:
    return Page(render(summary))


@pytest.fixture(scope="module")
def page() -> Page:
    return page_of(mixed_summary())


@pytest.fixture(scope="module", params=STRANGE)
def source(request: pytest.FixtureRequest) -> str:
    return to_html(STRANGE[request.param](), NOW)


def test_every_page_is_whole_small_and_loads_nothing(source: str) -> None:
    page = Page(source)
    assert page.open == []
    assert page.loaded == []
    assert not {"link", "iframe", "img", "object"} & set(page.tags)
    assert len(source.encode()) < (2e6 if "1000 of 1000" in page.text else 7e5)
    assert "nan" not in re.findall(r'="(\w+)"', source.partition("<script>")[0].lower())


def test_every_chart_of_a_page_is_told_in_words_and_every_anchor_is_there(source: str) -> None:
    page = Page(source)
    drawn = [own for tag, own in page.attributes if own.get("role") == "img"]
    assert all(len(own.get("aria-label") or "") > 20 for own in drawn)
    ids = list(page.values("id"))
    assert len(set(ids)) == len(ids)
    wanted = {href.removeprefix("#") for href in page.values("href") if href != "#rates"}
    assert wanted <= set(ids)


def test_the_marks_of_a_chart_are_told_apart() -> None:
    for name in ("maximised", "negative"):
        chart = draw_rates(STRANGE[name]())
        assert chart is not None
        looks = [(key.symbol, "hollow" in key.kind) for key in chart.legend]
        assert len(set(looks)) == len(looks)
        beyond = next(key.symbol for key in chart.legend if key.name.startswith("worse"))
        assert beyond == ("down" if name == "maximised" else "arrow")


def test_heads_of_numbers_stand_above_them_and_long_commands_in_lines() -> None:
    source = to_html(STRANGE["maximised"](), NOW)
    for name in ("val_accuracy", "lr", "steps", "time"):
        assert f'<th scope="col" class="n">{name}</th>' in source
    assert '<th scope="col">outcome</th>' in source
    command = source.partition('class="command"><code>tuner run')[2].partition("<")[0]
    assert " \\\n    --set" in command
    assert max(map(len, command.splitlines())) <= 90


def test_a_study_without_a_trial_has_no_table_of_trials() -> None:
    source = to_html(STRANGE["no_trial"](), NOW)
    assert "No trial has started yet." in source
    assert 'id="all"' not in source


def test_every_trial_that_is_drawn_is_listed(source: str) -> None:
    page = Page(source)
    assert {f"t{number}" for number in page.values("data-t")} <= set(page.values("id"))


def test_the_page_says_what_the_study_found(page: Page) -> None:
    for said in ("some_study", "models.digits:Digits", "Use adam with the cosine schedule", "0.25"):
        assert said in page.text


def test_the_answer_says_how_sure_it_is() -> None:
    assert "Not confirmed: the best of one seed." in page_of(mixed_summary()).text
    assert "Confirmed on 5 fresh seeds" in Page(to_html(STRANGE["usual"](), NOW)).text


def test_the_answer_has_all_settings_all_metrics_and_code(page: Page) -> None:
    for said in ("beta1", "weight_decay", "batch_size", "val_accuracy", "torch.optim.Adam("):
        assert said in page.text
    assert "tuner.best('some_study')" in page.text
    assert "[optimizer.adam]" in page.text


def test_the_page_tells_where_it_comes_from_and_how_to_go_on(page: Page) -> None:
    for said in ("2026-01-02 00:00 UTC", "torch 2.", "tuner study run some_study", "[budget]"):
        assert said in page.text


def test_averages_are_compared_and_their_lines_drawn() -> None:
    page = page_of(averaging_summary())
    assert "Averages of weights by val_loss" in page.text
    assert "From the last weights to their average" in page.text
    assert "ema, trial 1: from 0.6 to 0.4." in page.text


def test_bests_are_called_bests_and_metrics_to_show_have_a_column() -> None:
    section = {"name": "a", "workload": "b:C", "rank_by": "best", "show": ["val_accuracy"]}
    summary = mixed_summary(make_spec(study=section))
    source, page = render(summary), page_of(summary)
    assert re.search(r">best val_loss</\w+>.{0,120}>val_accuracy</", source, re.DOTALL)
    for said in ("best val_loss as trials train", "at each trial's best evaluation"):
        assert said in page.text
    assert "best best" not in page.text


def test_the_winner_s_row_is_marked() -> None:
    source = render(mixed_summary())
    assert re.search(r'<tr class="lit[ \w]*"><th scope="row">adam</th>', source)
    assert '<tr id="t2" data-o="complete" class="lit">' in source
    assert source.count('class="lit') == 2


def test_names_are_text_and_never_markup() -> None:
    page = page_of(mixed_summary(make_spec(name="<img src=x onerror=alert(1)>")))
    assert "img" not in page.tags
    assert page.loaded == []
    assert "<img src=x onerror=alert(1)>" in page.text


def test_a_study_of_which_all_failed_shows_the_errors() -> None:
    text = Page(to_html(STRANGE["all_failed"](), NOW)).text
    assert "No answer: all of 5 trials failed" in text
    assert "mat1 and mat2 shapes cannot be multiplied (128x64 and 32x10)" in text
    assert "models/mine.py:41" in text
    assert "4 trials failed with this error" in text


def test_a_study_of_which_all_diverged_has_no_colour_of_a_winner() -> None:
    source = to_html(STRANGE["all_diverged"](), NOW)
    assert "No answer: all of 24 trials diverged" in source
    assert '<div class="answer none">' in source


def test_a_study_without_a_trial_has_a_page_without_charts() -> None:
    page = page_of(summary_of())
    assert "figure" not in page.tags
    assert "No trial has finished yet." in page.text


def test_a_study_with_one_trial_has_a_page() -> None:
    assert "Use adam" in page_of(summary_of(trial(0, "adam", 0.5))).text


def test_what_is_not_settled_stands_below_a_line() -> None:
    assert '<tr class="lit below"><th scope="row">sgd</th><td>–</td>' in render(
        half_settled_summary()
    )
    only = make_spec(space={"optimizers": ["adam"]})
    assert 'below">' not in render(summary_of(trial(0, "adam", 0.5), spec=only))


def test_advice_stands_with_its_command() -> None:
    page = page_of(advised_summary())
    assert "What next" in page.text
    assert "It <b>may</b> be noise." in page.text
    assert "tuner study confirm 'a `b` <c>'" in page.text
    assert "b" not in page.tags
    assert "What next" not in page_of(mixed_summary()).text


def test_importance_is_a_table_and_drawn_where_it_is_told_from_noise() -> None:
    page = page_of(advised_summary())
    assert "Importance: how much of the differences" in page.text
    assert "adam.lr: 42.0%" in page.text
    assert "Not told from noise: adam.eps." in page.text
    assert "adam.eps: not told from noise" not in page.text
    assert "chart-importance-sgd" not in set(page.values("id"))


def test_an_optimizer_that_never_ran_is_named_and_not_ranked() -> None:
    page = page_of(mixed_summary())
    assert "Not tried yet: momentum, nesterov" in page.text


def test_a_page_of_thousands_of_trials_is_small_and_says_what_it_leaves_out() -> None:
    view = view_of(Recipe(make_spec_of("large", 3000), 3000))
    source = to_html(view, NOW)
    page = Page(source)
    assert len(source.encode()) < 2e6
    assert len(view.listed) >= LISTED
    assert re.search(r"Shown are 1,\d\d\d of 3,000 trials", page.text)
    assert f"Drawn are {CURVES} of 3,000 trials" in page.text
    assert page.tags.count("tr") < LISTED + 300


def test_the_card_is_the_answer_alone() -> None:
    card = Page(to_card(mixed_summary()))
    assert "Use adam with the cosine schedule" in card.text
    assert not {"script", "figure", "html"} & set(card.tags)


def test_the_card_leaves_the_style_of_what_is_around_it_alone() -> None:
    style = re.search(r"<style>(.*?)</style>", to_card(mixed_summary()), flags=re.DOTALL)
    assert style
    assert style[1].strip().startswith(".tuner-card {")
    assert style[1].count("{") == style[1].count("}")
    assert ":root" not in style[1]
    assert "body" not in style[1]


def test_a_running_trial_without_a_value_is_in_the_table_alone() -> None:
    page = page_of(summary_of(trial(0, outcome=Outcome.RUNNING)))
    assert "running" in page.text
    assert "chart-rates" not in set(page.values("id"))
