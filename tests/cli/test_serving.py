"""``tuner study report --serve``: what it refuses, where it says it is, and how it ends."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

Tuner = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture(autouse=True)
def study(tuner: Tuner, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TUNER_DASHBOARD_PASSWORD", "TUNER_DASHBOARD_PASSWORD_FILE"):
        monkeypatch.delenv(name, raising=False)
    created = tuner("study", "create", "studies/parabola.toml")
    assert created.returncode == 0, created.stderr


def test_a_page_is_served_until_it_is_interrupted(project: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner", "study", "report", "parabola", "--serve", "--port", "0"],
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    line = process.stdout.readline()
    try:
        url = line.split("'parabola': ")[1].split()[0]
        with urllib.request.urlopen(url, timeout=30) as answer:  # noqa: S310
            assert "<h1><bdi>parabola</bdi></h1>" in answer.read().decode()
    finally:
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=30)
    assert (process.returncode, err) == (0, "")


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (("--serve", "--host", "0.0.0.0"), "--password-file"),  # noqa: S104
        (("--serve", "--json"), "not json"),
        (("--serve", "--format", "markdown"), "not markdown"),
        (("--serve", "--output", "page.html"), "leave out --serve"),
        (("--port", "0"), "add --serve"),
        (("--allow-host", "a.example"), "add --serve"),
    ],
)
def test_what_contradicts_a_served_page_is_refused(
    tuner: Tuner, options: tuple[str, ...], told: str
) -> None:
    refused = tuner("study", "report", "parabola", *options)
    assert refused.returncode == 2
    assert told in refused.stderr
