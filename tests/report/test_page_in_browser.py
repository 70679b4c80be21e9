"""Pages in a real browser: headless Chromium, driven by Playwright; skipped where there is none.

With ``TUNER_SCREENSHOTS`` set to a folder, pictures of all pages are left there, to be looked at.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from tests.report.strange import STRANGE
from tuner.report.html import to_difference_html, to_html

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)
WIDTHS = {"phone": 390, "desk": 1440}
TALLEST = 16_000
"""The most pixels that Chromium draws in one picture."""

playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed.")
pytestmark = [
    pytest.mark.skipif(CHROMIUM is None, reason="There is no chromium to show pages with."),
    pytest.mark.slow,
]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("pages")
    for name, make in STRANGE.items():
        page = to_html(make(), datetime(2026, 1, 2, tzinfo=UTC))
        (folder / f"{name}.html").write_text(page, encoding="utf-8")
    return folder


class Shown:
    """A page in a browser, with what it asked for and what it complained of."""

    def __init__(self, browser: Any, path: Path, width: int, theme: str, **context: Any) -> None:
        self.context = browser.new_context(
            viewport={"width": width, "height": 900}, color_scheme=theme, **context
        )
        self.page = self.context.new_page()
        self.complaints: list[str] = []
        self.requests: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("request", lambda request: self.requests.append(request.url))
        self.page.goto(path.as_uri())

    def __enter__(self) -> Any:
        return self.page

    def __exit__(self, *error: object) -> None:
        self.context.close()


@pytest.mark.parametrize("theme", ["light", "dark"])
@pytest.mark.parametrize("size", WIDTHS)
@pytest.mark.parametrize("name", STRANGE)
def test_a_page_is_quiet_fits_and_can_be_used_by_all(
    browser: Any, folder: Path, name: str, size: str, theme: str
) -> None:
    shown = Shown(browser, folder / f"{name}.html", WIDTHS[size], theme)
    with shown as page:
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        if pictures := os.environ.get("TUNER_SCREENSHOTS"):
            picture = Path(pictures) / f"{name}-{WIDTHS[size]}-{theme}.png"
            tall = page.evaluate("document.documentElement.scrollHeight")
            clip = {"x": 0, "y": 0, "width": WIDTHS[size], "height": min(tall, TALLEST)}
            page.screenshot(path=picture, full_page=True, clip=clip)
        if size == "phone" and name != "thousand":  # rows that are alike tell no more
            assert find_barriers(page) == []
    assert shown.complaints == []
    assert [url for url in shown.requests if not url.startswith("file:")] == []


@pytest.mark.parametrize(("width", "theme"), [(390, "dark"), (1440, "light")])
def test_two_studies_side_by_side_fit_and_can_be_used_by_all(
    browser: Any, folder: Path, width: int, theme: str
) -> None:
    one, other = STRANGE["usual"]().summary, STRANGE["long_names"]().summary
    page = to_difference_html(one, other, datetime(2026, 1, 2, tzinfo=UTC))
    (folder / "difference.html").write_text(page, encoding="utf-8")
    shown = Shown(browser, folder / "difference.html", width, theme)
    with shown as page:
        assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0
        assert find_barriers(page) == []
        page.get_by_role("button", name="theme").click()
    assert shown.complaints == []


@pytest.mark.parametrize("width", [360, 1920])
def test_every_page_fits_a_small_phone_and_a_wide_screen(
    browser: Any, folder: Path, width: int
) -> None:
    for name in STRANGE:
        with Shown(browser, folder / f"{name}.html", width, "light") as page:
            assert page.evaluate("document.documentElement.scrollWidth - innerWidth") <= 0, name


def find_barriers(page: Any) -> list[str]:
    """Returns what axe-core finds that keeps people from using a page."""
    axe = resources.files("axe_playwright_python").joinpath("axe.min.js")
    page.evaluate(axe.read_text(encoding="utf-8"))
    found = page.evaluate("axe.run()")["violations"]
    return [f"{one['id']}: {one['nodes'][0]['html'][:200]}" for one in found]


def test_the_table_is_sorted_by_a_click_and_filtered_by_words(browser: Any, folder: Path) -> None:
    with Shown(browser, folder / "usual.html", 1440, "light") as page:
        numbers = "[...document.querySelectorAll('#all tbody tr:not([hidden])')].map(r => r.id)"
        page.get_by_role("button", name="val_loss").click()
        first = page.evaluate(numbers)[0]
        page.get_by_role("button", name="val_loss").click()
        assert page.evaluate(numbers)[-1] != first
        page.get_by_label("Find").fill("muon constant")
        texts = page.evaluate(
            "[...document.querySelectorAll('#all tbody tr:not([hidden])')].map(r => r.textContent)"
        )
        assert texts
        assert all("muon" in text and "constant" in text for text in texts)
        page.get_by_label("Outcome").select_option("diverged")
        assert "of 60 trials" in page.locator("#found").text_content()


def test_a_mark_tells_of_its_trial_and_leads_to_its_row(browser: Any, folder: Path) -> None:
    with Shown(browser, folder / "usual.html", 1440, "light") as page:
        mark = page.locator("#chart-rates use[data-t]").first
        number = mark.get_attribute("data-t")
        mark.hover(force=True)
        told = page.locator("#tip").text_content()
        assert told.startswith("trial ")
        mark.click(force=True)
        assert page.evaluate("document.querySelector('tr.on').id") == f"t{number}"
        assert page.locator(f"[data-t='{number}'].on").count() >= 1


def test_the_theme_is_switched_by_a_button(browser: Any, folder: Path) -> None:
    with Shown(browser, folder / "usual.html", 1440, "light") as page:
        paper = "getComputedStyle(document.body).backgroundColor"
        assert page.evaluate(paper) == "rgb(255, 255, 255)"
        page.get_by_role("button", name="Dark theme").click()
        assert page.evaluate(paper) == "rgb(20, 24, 31)"


def test_code_is_shown_one_piece_at_a_time(browser: Any, folder: Path) -> None:
    with Shown(browser, folder / "usual.html", 1440, "light") as page:
        assert page.locator("#code-1").is_visible()
        page.get_by_role("tab", name="torch").focus()
        page.keyboard.press("ArrowRight")
        assert page.locator("#code-2").is_visible()
        assert not page.locator("#code-1").is_visible()


def test_without_scripts_everything_is_there(browser: Any, folder: Path) -> None:
    shown = Shown(browser, folder / "usual.html", 1440, "dark", java_script_enabled=False)
    with shown as page:
        for place in ("#code-1", "#code-3", "#chart-rates", "#t59"):
            assert page.locator(place).is_visible()
        assert not page.locator("#find").is_visible()


@pytest.mark.parametrize("name", ["usual", "comparison", "all_diverged"])
def test_a_printed_page_is_a_small_file(browser: Any, folder: Path, name: str) -> None:
    with Shown(browser, folder / f"{name}.html", 1440, "dark") as page:
        assert len(page.pdf(format="A4")) < 1e6


def test_a_printed_page_is_on_white_and_hides_nothing(browser: Any, folder: Path) -> None:
    with Shown(browser, folder / "usual.html", 1440, "dark") as page:
        page.emulate_media(media="print")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == (
            "rgb(255, 255, 255)"
        )
        assert page.locator("#code-3").is_visible()
        cut = "(e => e.scrollHeight - e.clientHeight)(document.querySelector('.scroll.tall'))"
        assert page.evaluate(cut) <= 1
