"""A study's page as it is served: over WSGI, and in a real browser while trials end."""

from __future__ import annotations

import shutil
import threading
from collections.abc import Callable, Iterator
from typing import Any
from wsgiref.util import setup_testing_defaults

import pytest
from optuna.trial import TrialState

from tests.conftest import MakeSpec
from tests.store.leases.bench import ledger_of
from tuner.search.proposer import Proposer
from tuner.service.web.server import Place, listen
from tuner.service.web.study_page import StudyPage
from tuner.store import Database, Studies, StudyHandle

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")

End = Callable[[], int]


@pytest.fixture
def study(database: Database, make_spec: MakeSpec) -> StudyHandle:
    budget = {"trials": 60, "steps": 20, "evaluations": 4}
    return Studies(database).create(make_spec(budget=budget))


@pytest.fixture
def end(database: Database, study: StudyHandle) -> End:
    """Returns what trains one more trial to its end, and returns its number."""
    ledger, proposer = ledger_of(database, study, "a"), Proposer(study.spec, seed=0)

    def end_one() -> int:
        lease = ledger.start_one([], proposer.propose())
        assert lease is not None
        value = 1.0 / (1 + lease.number)
        attributes = {"steps": 20, "total_steps": 20, "metrics": {"val_loss": value}}
        ledger.finish_one(lease, TrialState.COMPLETE, value, attributes)
        return lease.number

    return end_one


class Asked:
    """An answer of a page over WSGI."""

    def __init__(
        self, page: StudyPage, method: str = "GET", path: str = "/", tag: str = ""
    ) -> None:
        environ: dict[str, Any] = {}
        setup_testing_defaults(environ)
        environ |= {"REQUEST_METHOD": method, "PATH_INFO": path, "HTTP_IF_NONE_MATCH": tag}
        self.text = b"".join(page(environ, self._start)).decode()

    def _start(self, status: str, headers: list[tuple[str, str]]) -> None:
        self.status, self.headers = status, dict(headers)


def test_another_version_comes_once_a_trial_has_ended(
    database: Database, study: StudyHandle, end: End
) -> None:
    now = 0.0
    page = StudyPage(database, study.name, clock=lambda: now)
    first = Asked(page)
    assert first.status == "200 OK"
    assert "Trial 0" not in first.text
    tag = first.headers["ETag"]
    assert tag.strip('"') in first.text
    assert Asked(page, tag=tag).status == "304 Not Modified"
    assert Asked(page, tag=tag).text == ""
    number = end()
    again = Asked(page, tag=tag)
    assert again.status == "200 OK"
    assert again.headers["ETag"] != tag
    assert f'id="t{number}"' in again.text


def test_a_page_that_took_long_is_kept_for_a_while(
    database: Database, study: StudyHandle, end: End
) -> None:
    times = iter([0.0, 10.0, 11.0, 29.0, 30.0, 30.0])
    page = StudyPage(database, study.name, clock=lambda: next(times))
    tag = Asked(page).headers["ETag"]  # from 0 to 10: it is kept until 30
    end()
    assert Asked(page, tag=tag).status == "304 Not Modified"
    assert Asked(page, tag=tag).status == "304 Not Modified"
    assert Asked(page, tag=tag).status == "200 OK"


def test_the_page_may_load_nothing_and_be_framed_by_nobody(
    database: Database, study: StudyHandle
) -> None:
    policy = Asked(StudyPage(database, study.name)).headers["Content-Security-Policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert "http" not in policy


def test_other_paths_and_methods_are_refused_and_a_head_has_no_body(
    database: Database, study: StudyHandle
) -> None:
    page = StudyPage(database, study.name)
    assert Asked(page, path="/../etc/passwd").status == "404 Not Found"
    assert Asked(page, "DELETE").status == "405 Method Not Allowed"
    head = Asked(page, "HEAD")
    assert (head.status, head.text) == ("200 OK", "")


def test_a_study_that_is_deleted_is_told(database: Database, study: StudyHandle) -> None:
    page = StudyPage(database, study.name, clock=lambda: 0.0)
    tag = Asked(page).headers["ETag"]
    Studies(database).delete(study)
    asked = Asked(page, tag=tag)
    assert asked.status == "404 Not Found"
    assert asked.text == "The study 'small' is no longer in the database.\n"


@pytest.fixture
def shown(database: Database, study: StudyHandle) -> Iterator[Any]:
    """Yields the served page in a browser."""
    playwright = pytest.importorskip("playwright.sync_api", reason="Playwright is not installed.")
    if CHROMIUM is None:
        pytest.skip("There is no chromium to show pages with.")
    place = Place("127.0.0.1", "127.0.0.1")
    with listen(lambda: StudyPage(database, study.name), place, 0) as server:
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        with playwright.sync_playwright() as driver:
            options = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
            browser = driver.chromium.launch(executable_path=CHROMIUM, args=options)
            page = browser.new_page(viewport={"width": 1280, "height": 800})
            yield page, server.url
            browser.close()
        server.shutdown()


@pytest.mark.slow
def test_a_reader_keeps_the_place_and_all_that_was_chosen_while_trials_end(
    shown: Any, end: End
) -> None:
    page, url = shown
    for _ in range(12):
        end()
    asked: list[str] = []
    complaints: list[str] = []
    page.on("request", lambda request: asked.append(request.url))
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.goto(url)
    page.get_by_role("tab", name="TOML").click()
    page.locator("#chart-rates details summary").click()
    page.locator("#all").get_by_role("button", name="val_loss").click()
    page.locator("#find").press_sequentially("a")
    top = "document.getElementById('find').getBoundingClientRect().top"
    before = page.evaluate(top)

    number = end()
    page.wait_for_selector(f"#t{number}", state="attached", timeout=60_000)
    assert abs(page.evaluate(top) - before) < 2
    assert page.evaluate("document.activeElement.id") == "find"
    assert page.locator("#find").input_value() == "a"
    assert page.locator("[role=tab][aria-selected=true]").text_content() == "TOML"
    assert page.locator("#chart-rates details").evaluate("e => e.open")
    assert page.locator("#all [aria-sort=ascending]").text_content() == "val_loss"
    assert page.locator("#all tbody tr").first.get_attribute("id") == f"t{number}"
    assert "Live" in page.locator("#live").text_content()
    assert set(asked) == {url}
    assert complaints == []
