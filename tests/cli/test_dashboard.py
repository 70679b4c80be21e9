"""What ``tuner dashboard`` asks for before it listens, and says when it does."""

from __future__ import annotations

import signal
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

import pytest

from tuner.store import open_database

Tuner = Callable[..., subprocess.CompletedProcess[str]]

PASSWORD = "correct horse battery"  # noqa: S105


@pytest.fixture(autouse=True)
def database(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("TUNER_DASHBOARD_PASSWORD", "TUNER_DASHBOARD_PASSWORD_FILE"):
        monkeypatch.delenv(name, raising=False)
    open_database(f"sqlite:///{project / 'tuner.db'}", create=True).close()


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1"])  # noqa: S104
def test_other_addresses_than_loopback_demand_a_password(tuner: Tuner, host: str) -> None:
    refused = tuner("dashboard", "--host", host, "--port", "0")
    assert refused.returncode == 2
    assert "--password-file" in refused.stderr
    assert "TUNER_DASHBOARD_PASSWORD_FILE" in refused.stderr


def test_short_password_is_refused_and_not_shown(
    tuner: Tuner, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TUNER_DASHBOARD_PASSWORD", "hunter2")
    refused = tuner("dashboard", "--port", "0")
    assert refused.returncode == 2
    assert "at least 12" in refused.stderr
    assert "hunter2" not in refused.stdout + refused.stderr


def test_password_of_a_file_guards_every_address(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = project / "secret"
    file.write_text(f"{PASSWORD}\n")
    file.chmod(0o644)
    monkeypatch.setenv("TUNER_DASHBOARD_PASSWORD_FILE", str(file))
    process = subprocess.Popen(
        [sys.executable, "-m", "tuner", "dashboard", "--host", "0.0.0.0", "--port", "0"],  # noqa: S104
        cwd=project,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    url = process.stdout.readline().split(": ")[1].split()[0]
    try:
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(url, timeout=30)  # noqa: S310
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {PASSWORD}"})  # noqa: S310
        with urllib.request.urlopen(request, timeout=30) as answer:  # noqa: S310
            assert answer.status == 200
    finally:
        process.send_signal(signal.SIGINT)
        out, err = process.communicate(timeout=30)
    assert "TLS" in err
    assert f"chmod 600 {file}" in err
    assert PASSWORD not in out + err
